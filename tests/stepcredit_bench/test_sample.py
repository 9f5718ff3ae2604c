from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stepcredit.checkpoints import load_model, load_tokenizer
from stepcredit.cli import main
from stepcredit.types import Prompt
from stepcredit_bench.processes import SideReport
from stepcredit_bench.sample import Result
from stepcredit_bench.sampling import (
    END_TOKEN,
    ContinuousSide,
    GenerateSide,
    OurSide,
    SampleBenchmark,
    SampleWork,
    write_policy,
)
from stepcredit_bench.vllm_engine import VllmEngine

SMALL = {"shape": "tiny", "num_prompts": 2, "samples": 3, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    write_policy(folder, "tiny", seed=1, dtype="float32")
    return folder


@pytest.mark.parametrize("side_class", [OurSide, GenerateSide, ContinuousSide])
def test_every_engine_draws_every_token(
    side_class: type[OurSide | GenerateSide | ContinuousSide], policy: Path
) -> None:
    work = SampleWork(model=str(policy), **SMALL)  # type: ignore[arg-type]
    side = side_class(work)
    side.load()
    side.warm_up()
    side.prepare()
    outcome = side.run()
    assert outcome["tokens"] == work.num_tokens == 30
    assert outcome["first_row_seconds"] > 0
    assert outcome["start_seconds"] > 0


@pytest.fixture(scope="module")
def brief_policy(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that says nothing: its turn ends with the first token."""
    folder = tmp_path_factory.mktemp("brief")
    model: Any = load_model(policy)
    with torch.no_grad():
        model.get_input_embeddings().weight[END_TOKEN] *= -1
    model.save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side_class", [OurSide, GenerateSide, ContinuousSide])
def test_tokens_after_the_end_of_a_response_do_not_count(
    side_class: type[OurSide | GenerateSide | ContinuousSide], brief_policy: Path
) -> None:
    questions = (Prompt(id="a", prompt="t5 t6 t7"), Prompt(id="b", prompt="t8 t9"))
    work = SampleWork(model=str(brief_policy), questions=questions, top_p=0.9, **SMALL)  # type: ignore[arg-type]
    side = side_class(work)
    side.load()
    side.prepare()
    assert side.prompts == [[5, 6, 7], [8, 9]]
    assert side.run()["tokens"] == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "POLICY"], "--model and --data: go together"),
        (["--data", "DATA"], "--model and --data: go together"),
        (
            ["--model", "POLICY", "--data", "DATA"],
            "its vocab_size is 512, that of smollm2-135m is 49152. Take a model of that shape",
        ),
        (
            ["--model", "POLICY", "--data", "DATA", "--prompt-tokens", "9"],
            "--prompt-tokens: is for random prompts",
        ),
        (["--top-p", "0"], "--top-p: must be above 0 and at most 1, got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], message: str, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"id": "a", "prompt": "t5 t6"}\n')
    places = {"POLICY": str(policy), "DATA": str(data)}
    assert main(["bench", "sample", *(places.get(option, option) for option in options)]) == 2
    assert message in capsys.readouterr().err


def test_operations_by_hand() -> None:
    work = SampleWork(model="", shape="tiny", num_prompts=1, samples=2, max_new_tokens=3)
    length = len(work.prompts()[0])
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 32 * 64 * 3
    read = 2 * (2 * (layer * length + 2 * 32 * length * (length + 1) // 2) + 512 * 32)
    # The third token of a response is drawn and not read.
    drawn = 2 * (2 * (layer * 2 + 2 * 32 * (2 * length + 3)) + 512 * 32 * 2)
    assert work.operations() == read + 2 * drawn


def test_prompts_have_the_length_asked_for() -> None:
    work = SampleWork(model="", shape="tiny", num_prompts=3, prompt_tokens=(300, 300), samples=1)
    assert [len(prompt) for prompt in work.prompts()] == [300] * 3


def test_what_does_not_fit_into_the_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--prompt-tokens", "2000", "--max-new-tokens", "64"]
    assert main(["bench", "sample", "--shape", "tiny", *sizes]) == 2
    assert "prompts of 2000 tokens and responses of 64 do not fit into the model's 2048" in (
        capsys.readouterr().err
    )


def report(seconds: float, own_cpu_seconds: float, **outcome: float) -> SideReport:
    return SideReport(
        seconds=(seconds,),
        cpu_seconds=(own_cpu_seconds,),
        outcome={"tokens": 30, "first_row_seconds": 0.5, "start_seconds": 8.0, **outcome},
        imports_mb=1.0,
        loaded_mb=2.0,
        peak_mb=300.0,
    )


def test_ratios_by_hand() -> None:
    work = SampleWork(model="", **SMALL)  # type: ignore[arg-type]
    sides = {"ours": report(2.0, 1.0), "vllm": report(4.0, 0.0, cpu_seconds=3.0, peak_mb=900.0)}
    benchmark = SampleBenchmark(
        work=work, sides=sides, products_per_second=work.operations() * 2, failures={"generate": "no"}
    )
    printed = Result(benchmark=benchmark).to_json()
    assert printed["speedup"] == {"vllm": 3.0}
    assert printed["engines"]["ours"]["tokens_per_second"] == 15.0
    assert printed["engines"]["ours"]["tokens_per_second_with_start"] == 3.0
    assert printed["engines"]["ours"]["utilisation"] == 0.5
    assert (printed["engines"]["vllm"]["peak_mb"], printed["engines"]["ours"]["peak_mb"]) == (900.0, 300.0)
    text = Result(benchmark=benchmark).to_text()
    assert text.startswith(
        "2 prompts of 70 to 90 tokens x 3 samples x 5 tokens, tiny with random weights, float32, 1 thread\n"
    )
    assert text.endswith("generate failed: no")


def test_the_environment_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sample", "--vllm", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds no bin/python" in capsys.readouterr().err


def test_an_engine_that_ends_says_why() -> None:
    """This environment has no vLLM, or one that cannot load a model that is not there."""
    with pytest.raises(RuntimeError, match="vLLM ended during start:\n"):
        VllmEngine(Path(sys.executable), {"threads": 1, "model": "nowhere", "dtype": "float32", "context": 8})
