import base64
import io
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.servers import stub_server as broken
from tests.servers.stub_server import Raw, Reply, StubServer, stub_server

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.logprobs.checking import TokenError
from stepcredit.logprobs.remote import INTERFACES, RemoteTokenLogProbs
from stepcredit.logprobs.vllm import VLLMTokenLogProbs
from stepcredit.servers import ServerLimits, pacing
from stepcredit.types import Encoded

ENCODED = [
    Encoded(token_ids=(5, 9, 200, 31, 7), scored_start=2),
    Encoded(token_ids=(5, 9), scored_start=1),
    Encoded(token_ids=(1, 2, 3), scored_start=3),
    Encoded(token_ids=tuple(range(20, 60)), scored_start=10),
]


def log_probs(model: Any, tokens: list[int]) -> list[float]:
    """Of every token but the first, by a float64 model."""
    ids = torch.tensor([tokens])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1]
    return [float(x) for x in logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]]


class ModelServer:
    """Answers as the interfaces do, from a tiny model.

    Attributes:
        stub: The server.
        mangle: What becomes of each answer.
    """

    def __init__(self, stub: StubServer, model: Any) -> None:
        self.stub, self.model = stub, model
        self.mangle: Callable[[Any], Any] = lambda answer: answer
        self.url = stub.url
        stub.answer = lambda number, body: Reply(self.mangle(self.answer(body)))

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["path"] == "/inference/v1/generate":
            parameters = body["sampling_params"]
            start = parameters["prompt_logprob_start"]
            values = log_probs(self.model, body["token_ids"])[start:]
            asked = [row[0] for row in parameters["prompt_logprob_token_ids"]]
            assert asked == body["token_ids"][start + 1 :]
            file = io.BytesIO()
            np.save(file, np.array(values, np.float32)[:, None])
            return {"prompt_token_id_logprobs": base64.b64encode(file.getvalue()).decode()}
        assert body["path"] == "/v1/completions"
        values = log_probs(self.model, body["prompt"])
        if "prompt_logprobs" in body:
            rows: list[Any] = [None]
            for token, value in zip(body["prompt"][1:], values, strict=True):
                own = {"logprob": value, "rank": 3, "decoded_token": spell(token)}
                rows.append({"0": {"logprob": -1.0}, str(token): own})
            return {"choices": [{"prompt_logprobs": rows}]}
        assert body["echo"] is True
        names = [spell(token) for token in body["prompt"]]
        return {"choices": [{"logprobs": {"token_logprobs": [None, *values, -0.5], "tokens": [*names, "."]}}]}


def spell(token: int) -> str:
    return f" word{token}"


@pytest.fixture
def server(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    with stub_server() as stub:
        # Converted once: requests are answered at the same time, and converting changes weights in place.
        yield ModelServer(stub, make_model(12).double())


def remote(server: ModelServer, interface: str = "echo", **limits: Any) -> RemoteTokenLogProbs:
    settings = {"concurrency": 3, "timeout": 5.0, "retries": 1, **limits}
    return RemoteTokenLogProbs(
        server.url, "m", interface=interface, limits=ServerLimits(**settings), spell=spell
    )


@pytest.mark.parametrize("interface", INTERFACES)
def test_scored_tokens_of_each_sequence_in_order(server: ModelServer, interface: str) -> None:
    source = RemoteTokenLogProbs(server.url, "m", interface=interface)
    for item, values in zip(ENCODED, source.of(ENCODED), strict=True):
        expected = log_probs(server.model, list(item.token_ids))[item.scored_start - 1 :]
        assert values.dtype == np.float32
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert all(body["model"] == "m" for body in server.stub.seen)
    assert len(server.stub.seen) == 3  # nothing is asked for a sequence without scored tokens


def test_no_sequences_need_no_server() -> None:
    assert RemoteTokenLogProbs("http://127.0.0.1:9", "m").of([]) == []


def test_faults_that_may_pass_are_tried_again(server: ModelServer) -> None:
    right = server.stub.answer
    faults: list[Reply | Raw] = [Reply(b"busy", 503), Reply(b"{not json"), broken.close, broken.cut_body]
    server.stub.answer = lambda number, body: faults[number] if number < 4 else right(number, body)
    assert len(remote(server, retries=4).of(ENCODED[:1])[0]) == 3


SLOW = "no whole answer within 0.3 seconds|no connection .timed out"
"""On a busy machine the time may run out before there is a connection."""


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (
            Reply({"error": {"message": "no model 'm'\nhere"}}, 404),
            UserError,
            "refuses .*404: no model 'm' here",
        ),
        (
            Reply(b"busy", 503),
            UserError,
            r"no answer \(status 503: busy\)\. Check that the server is running",
        ),
        (broken.close, UserError, "no answer .no connection"),
        (broken.silent, UserError, SLOW),
        (broken.drip_body, UserError, SLOW),
        (Reply(b'{"choices": [{"logp'), DataError, "not JSON"),
    ],
)
def test_lasting_trouble_ends_in_one_line(
    server: ModelServer, reply: Reply | Raw, kind: type[UserError], message: str
) -> None:
    server.stub.answer = lambda number, body: reply
    with pytest.raises(kind, match=message) as caught:
        remote(server, timeout=0.3).of(ENCODED)
    assert server.url in str(caught.value)


def test_after_an_error_the_source_can_be_asked_again(server: ModelServer) -> None:
    right, source = server.stub.answer, remote(server)
    server.stub.answer = lambda number, body: Reply({}, 404)
    with pytest.raises(UserError):
        source.of(ENCODED)
    server.stub.answer = right
    assert len(source.of(ENCODED)) == 4


def echo(values: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"logprobs": {"token_logprobs": values, **more}}]}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        "text",
        None,
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"tokens": ["a"]}}]},
        echo(None),
        echo({"0": -1.0}),
        echo([None, -1.0]),
        echo([None, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]),
        echo([None, -1.0, "NaN", -1.0, -1.0]),
        echo([None, -1.0, True, -1.0, -1.0]),
        echo([None, -1.0, [-1.0], -1.0, -1.0]),
        echo([None, -1.0, 10**400, -1.0, -1.0]),
        echo([None, -1.0, "\ud800", -1.0, -1.0]),
    ],
    ids=str,
)
def test_an_answer_of_another_shape_is_a_data_error(server: ModelServer, answer: Any) -> None:
    server.mangle = lambda right: answer
    with pytest.raises(DataError, match="holds no log-probabilities of the prompt"):
        remote(server).of(ENCODED[:1])


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"prompt_logprobs": None}]},
        {"choices": [{"prompt_logprobs": [None, {}, {}, {}, {}]}]},
        {"choices": [{"prompt_logprobs": [None, None, None, None, None]}]},
        {"choices": [{"prompt_logprobs": [None, {"200": {"logprob": "x"}}]}]},
    ],
    ids=["none", "other tokens", "nulls", "fewer"],
)
def test_candidates_of_other_tokens_are_a_data_error(server: ModelServer, answer: Any) -> None:
    server.mangle = lambda right: answer
    with pytest.raises(DataError, match="holds no log-probabilities of the prompt"):
        remote(server, "prompt-logprobs").of(ENCODED[:1])


@pytest.mark.parametrize(
    "content", ["no base64!", "", base64.b64encode(b"\x93NUMPY\x01\x00").decode(), 5, None, [1]], ids=str
)
def test_a_matrix_that_cannot_be_read_is_a_data_error(server: ModelServer, content: Any) -> None:
    server.mangle = lambda right: {"prompt_token_id_logprobs": content}
    with pytest.raises(DataError, match="holds no log-probabilities of the prompt"):
        remote(server, "token-ids").of(ENCODED[:1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [None, -1.0, -1.0, 3.7e4, -1.0],
            r"scored token 2 of 3 ' word31' \(id 31\) a log-probability of 37000",
        ),
        ([None, -1.0, -1.0, 0.1, -1.0], "which is above 0"),
        (
            [None, -1.0, -9999.0, -1.0, -1.0],
            r"scored token 1 of 3 .* a probability of 0 \(log-probability -9999\)",
        ),
        ([None, -1.0, -1.0, -1.0, -math.inf], r"scored token 3 of 3 .*\(log-probability -inf\)"),
        ([None, -1.0, -1.0, math.inf, -1.0], "which is above 0"),
        (
            [None, -1.0, -1.0, None, -1.0],
            r"gives 2 log-probabilities for 3 scored tokens: .* token 2 .* none",
        ),
        ([None, -1.0, -1.0, math.nan, -1.0], "gives 2 log-probabilities for 3 scored tokens"),
        ([None, 0.0, 0.0, 0.0, 0.0], "all 3 scored tokens a log-probability of exactly 0.*prefix cache"),
    ],
)
def test_what_cannot_be_a_log_probability_names_the_token(
    server: ModelServer, values: list[float | None], message: str
) -> None:
    server.mangle = lambda right: echo(values)
    with pytest.raises(TokenError, match=message) as caught:
        remote(server).of(ENCODED[:1])
    assert caught.value.item == ENCODED[0]
    assert server.url in str(caught.value)


def test_what_rounding_explains_is_believed(server: ModelServer) -> None:
    server.mangle = lambda right: echo([None, -1.0, 1e-6, 0.0, -1.0])
    assert remote(server).of(ENCODED[:1])[0].tolist() == [0.0, 0.0, -1.0]
    server.mangle = lambda right: echo([None, 0.0])
    assert remote(server).of(ENCODED[1:2])[0].tolist() == [0.0]


@pytest.mark.parametrize("interface", ["echo", "prompt-logprobs"])
def test_a_server_with_other_tokens_is_noticed_at_the_first_sequence(
    server: ModelServer, interface: str
) -> None:
    source = remote(server, interface)
    source.spell = lambda token: f" other{token}"
    with pytest.raises(UserError, match="'word200' there is 'other200' here"):
        source.of(ENCODED)
    assert len(server.stub.seen) == 1


@pytest.mark.parametrize(
    "spelled",
    [
        lambda token: f"Ġword{token}",
        lambda token: f"▁word{token}",
        lambda token: "x",
        lambda token: None,
        lambda token: 7,
    ],
    ids=["GPT-2", "SentencePiece", "one name for all", "none", "no text"],
)
def test_other_spellings_of_the_same_tokens_are_not_other_tokens(server: ModelServer, spelled: Any) -> None:
    item = ENCODED[3]
    names = [spelled(token) for token in item.token_ids]
    server.mangle = lambda right: echo(right["choices"][0]["logprobs"]["token_logprobs"], tokens=names)
    assert len(remote(server).of([item])[0]) == item.num_scored


def test_the_fingerprint_tells_models_apart(server: ModelServer, make_model: Any) -> None:
    first = RemoteTokenLogProbs(server.url, "m").fingerprint
    assert RemoteTokenLogProbs(server.url, "m", interface="token-ids").fingerprint == first
    server.model = make_model(13)
    assert RemoteTokenLogProbs(server.url, "m").fingerprint != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:8000", "m", "echo"), "is not an address"),
        (("http://localhost", "m", "chat"), "no interface 'chat'"),
    ],
)
def test_wrong_settings_are_user_errors(arguments: tuple[str, str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RemoteTokenLogProbs(arguments[0], arguments[1], interface=arguments[2])


class FakeEngine:
    """A ``vllm.LLM`` as far as it is used, on a tiny model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(dtype="float32"))

    def generate(self, prompts: Any, parameters: Any, use_tqdm: bool) -> list[Any]:
        outputs = []
        for prompt, asked in zip(prompts, parameters, strict=True):
            values = log_probs(self.model, prompt["prompt_token_ids"])
            rows = [
                None,
                *[
                    {t: SimpleNamespace(logprob=v)}
                    for t, v in zip(prompt["prompt_token_ids"][1:], values, strict=True)
                ],
            ]
            start = asked.settings.get("prompt_logprob_start")
            matrix = None if start is None else np.array(values[start:])[:, None]
            outputs.append(
                SimpleNamespace(
                    prompt_logprobs=rows if "prompt_logprobs" in asked.settings else None,
                    prompt_token_id_logprobs=matrix,
                )
            )
        return outputs


@pytest.mark.parametrize("gathers", [True, False])
def test_vllm_gathers_scored_tokens_where_it_can(
    gathers: bool, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SamplingParams:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings
            assert ("prompt_logprob_token_ids" in settings) == gathers

    if gathers:
        SamplingParams.prompt_logprob_token_ids = None  # type: ignore[attr-defined]
    fake: Any = ModuleType("vllm")
    fake.SamplingParams, fake.__version__ = SamplingParams, "0.0"
    monkeypatch.setitem(sys.modules, "vllm", fake)
    source = VLLMTokenLogProbs(FakeEngine(make_model(12).double()), weights_hash="w")
    items = ENCODED[:2]
    for item, values in zip(items, source.of(items), strict=True):
        expected = log_probs(make_model(12).double(), list(item.token_ids))[item.scored_start - 1 :]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert source.fingerprint != VLLMTokenLogProbs(FakeEngine(None), weights_hash="v").fingerprint


def test_a_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[vllm\]'"):
        VLLMTokenLogProbs(None, weights_hash="w")
