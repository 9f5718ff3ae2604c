from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import MissingExtraError, UserError
from stepcredit.generators.vllm import EngineSettings, VLLMGenerator
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout, Sampling


@pytest.fixture
def _contract(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the contract where ``import vllm`` finds it, in this process and in those it starts."""
    import sys

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "contracts"))
    yield
    for name in ("vllm", "vllm.platforms"):
        sys.modules.pop(name, None)


def _request(name: str, num_samples: int, text: str = "1+2=", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=name, prompt=text, answer="3"),
        indices=tuple(range(num_samples)),
        sampling=Sampling(**{"max_new_tokens": 20, **sampling}),
    )


def _generator(tokenizer: Any, model: str = "model", **settings: Any) -> VLLMGenerator:
    return VLLMGenerator(
        model,
        tokenizer,
        name="policy",
        tokenizer_hash="hash",
        model_parameters=10,
        settings=EngineSettings(**settings),
    )


def _responses(generator: VLLMGenerator, *requests: GenerationRequest) -> dict[tuple[str, int], Rollout]:
    results = list(generator.generate(requests))
    return {(r.prompt_id, r.index): r for r in results if isinstance(r, Rollout)}


@pytest.mark.usefixtures("_contract")
def test_samples_have_seeds_of_their_own_whatever_the_chunks(tokenizer: Any) -> None:
    requests = [_request("a", 5), _request("b", 4, top_k=3, min_p=0.1, top_p=0.9)]
    generator = _generator(tokenizer)
    whole = _responses(generator, *requests)
    assert len(whole) == 9
    assert len({r.response for r in whole.values()}) == 9
    assert _responses(_generator(tokenizer, chunk_samples=2), *requests[::-1]) == whole
    rollout = whole["a", 0]
    assert rollout.policy == "policy"
    assert rollout.tokenizer == "hash"
    assert rollout.response_token_ids is not None
    assert tokenizer.decode(rollout.response_token_ids, skip_special_tokens=True) == rollout.response
    assert all((r.finish_reason == "stop") == ((r.response_token_ids or ())[-1] == 1) for r in whole.values())
    ledger = generator.ledger
    assert ledger.prompt_tokens == 2 * 7
    assert ledger.generated_tokens == sum(len(r.response_token_ids or ()) for r in whole.values())
    assert ledger.model_parameters == 10


@pytest.mark.usefixtures("_contract")
def test_on_a_cpu_samples_have_no_seeds_and_a_warning_says_so(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONTRACT_PLATFORM", "cpu")
    drawn = _responses(_generator(tokenizer), _request("a", 5))
    # The contract draws by prompt and seed, so without seeds all samples of a prompt are the same.
    assert len({r.response for r in drawn.values()}) == 1
    assert capsys.readouterr().err.count("vLLM takes no seeds on a CPU") == 1


@pytest.mark.usefixtures("_contract")
def test_stop_strings_cut_the_text(tokenizer: Any) -> None:
    free = _responses(_generator(tokenizer), _request("a", 30))
    stopped = _responses(_generator(tokenizer), _request("a", 30, stop=("3",)))
    assert {key: r.response for key, r in stopped.items()} == {
        key: r.response.split("3")[0] for key, r in free.items()
    }


@pytest.mark.usefixtures("_contract")
def test_a_stop_string_that_is_a_special_token_is_refused(tokenizer: Any) -> None:
    special = next(text for text in tokenizer.all_special_tokens if text != tokenizer.eos_token)
    with pytest.raises(UserError, match=r"--stop: .* holds a special token"):
        _responses(_generator(tokenizer), _request("a", 1, stop=(special,)))


@pytest.mark.usefixtures("_contract")
def test_what_does_not_fit_or_is_broken_off_fails_alone(tokenizer: Any) -> None:
    long, aborted = _request("long", 2, "1" * 70), _request("aborted", 1, "2")
    near = _request("near", 2, "1" * 50, max_new_tokens=500)
    results = list(_generator(tokenizer).generate([long, _request("a", 2), aborted, near]))
    failures = {r.prompt_id: r.reason for r in results if isinstance(r, GenerationFailure)}
    assert failures == {
        "long": "the prompt has 73 tokens, but the model's context is only 64",
        "aborted": "vLLM ended the response for the reason 'abort'",
    }
    assert sum(isinstance(r, Rollout) for r in results) == 4


@pytest.mark.usefixtures("_contract")
@pytest.mark.slow
def test_copies_draw_what_one_engine_draws(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    requests = [_request(name, 3) for name in "abcdefg"]
    copies = _generator(tokenizer, data_parallel=2, tensor_parallel=2, chunk_samples=4)
    assert _responses(copies, *requests) == _responses(_generator(tokenizer), *requests)


@pytest.mark.usefixtures("_contract")
def test_too_few_accelerators_are_an_error(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UserError, match="2 copies on 2 accelerators each need 4"):
        _generator(tokenizer, data_parallel=2, tensor_parallel=2)


@pytest.mark.usefixtures("_contract")
@pytest.mark.slow
def test_a_copy_that_dies_is_told_in_one_line(tokenizer: Any) -> None:
    with pytest.raises(UserError, match="a vLLM process ended"):
        _generator(tokenizer, model="broken", data_parallel=2)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_error_names_the_command_that_installs_it(tokenizer: Any) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[vllm\]'"):
        _generator(tokenizer)
