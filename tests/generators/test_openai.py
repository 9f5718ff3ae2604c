from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers import stub_server as broken
from tests.servers.stub_server import Raw, Reply, StubServer, stub_server

from stepcredit.errors import UserError
from stepcredit.generators.openai import OpenAIGenerator
from stepcredit.generators.prompts import PromptFormat
from stepcredit.servers import ServerLimits, pacing
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout, Sampling


def completion(text: Any, reason: Any = "stop", **message: Any) -> Reply:
    answer = {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return Reply(answer)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    with stub_server() as stub:
        stub.answer = lambda number, body: completion("ok")
        yield stub


def _request(name: str = "p", num_samples: int = 1, prefix: str = "", **sampling: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=name, prompt=f"What is {name}?", answer="4"),
        indices=tuple(range(num_samples)),
        sampling=Sampling(**sampling),
        response_prefix=prefix,
    )


def _generator(server: StubServer, **limits: Any) -> OpenAIGenerator:
    settings = {"concurrency": 4, "timeout": 5.0, "retries": 3, **limits}
    return OpenAIGenerator("m", base_url=server.url, limits=ServerLimits(**settings))


def _results(generator: OpenAIGenerator, *requests: GenerationRequest) -> list[Rollout | GenerationFailure]:
    return list(generator.generate(requests))


def test_a_server_that_takes_no_seeds_gets_none(server: StubServer) -> None:
    generator = OpenAIGenerator("m", base_url=server.url, seeds=False)
    assert len(_results(generator, _request("a", 3))) == 3
    assert [body for body in server.seen if "seed" in body] == []


def test_every_sample_is_one_request_with_a_seed_of_its_own(server: StubServer) -> None:
    server.answer = lambda number, body: completion(body["messages"][0]["content"] + str(body["seed"]))
    generator = _generator(server)
    rollouts = _results(generator, _request("a", 3, top_p=0.9, stop=("###",)), _request("b", 2, min_p=0.1))
    by_sample = {(r.prompt_id, r.index): r for r in rollouts if isinstance(r, Rollout)}
    assert set(by_sample) == {("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)}
    assert len({r.response for r in by_sample.values()}) == 5
    assert all(r.response.startswith(f"What is {r.prompt_id}?") for r in by_sample.values())
    assert all(r.policy == "m" and r.finish_reason == "stop" for r in by_sample.values())
    assert (generator.ledger.prompt_tokens, generator.ledger.generated_tokens) == (35, 15)
    sent = {body["messages"][0]["content"]: body for body in server.seen}
    assert sent["What is a?"]["top_p"] == 0.9
    assert sent["What is a?"]["stop"] == ["###"]
    assert sent["What is b?"]["min_p"] == 0.1
    assert "top_k" not in sent["What is b?"]
    again = {
        (r.prompt_id, r.index): r
        for r in _results(_generator(server), _request("a", 3, top_p=0.9))
        if isinstance(r, Rollout)
    }
    assert again["a", 2].response == by_sample["a", 2].response
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}


def test_no_more_than_so_many_requests_are_open_at_once(server: StubServer) -> None:
    def slow(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return completion("ok")

    server.answer = slow
    assert len(_results(_generator(server, concurrency=3), _request("a", 20))) == 20
    assert server.most_open == 3


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(b"<html>busy</html>", 503),
        Reply({}, 429),
        Reply(b'{"choices": [{"mess'),
        Reply({"choices": []}),
        Reply({"choices": "none"}),
        Reply([1]),
        completion(None),
        completion(7),
        completion("half of a pair \ud800"),
        completion("fine", reason=["stop"]),
        completion("fine", reasoning_content={"text": "hm"}),
        broken.close,
        broken.cut_body,
    ],
)
def test_passing_trouble_is_tried_again(server: StubServer, trouble: Reply | Raw) -> None:
    server.answer = lambda number, body: trouble if number < 2 else completion("fine")
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert result.response == "fine"
    assert len(server.seen) == 3
    assert len({body["seed"] for body in server.seen}) == 1


def test_lasting_trouble_is_a_failure_with_its_reason_and_the_others_go_on(server: StubServer) -> None:
    replies = {
        "What is long?": Reply({"error": {"message": "too many tokens"}}, 400),
        "What is broken?": Reply(b"not json"),
        "What is fine?": completion("ok"),
    }
    server.answer = lambda number, body: replies[body["messages"][0]["content"]]
    names = ["long", "fine", "broken"]
    results = _results(_generator(server, retries=1), *(_request(name) for name in names))
    reasons = {r.prompt_id: r.reason for r in results if isinstance(r, GenerationFailure)}
    assert reasons.keys() == {"long", "broken"}
    assert "too many tokens" in reasons["long"]
    assert "not JSON" in reasons["broken"]
    counts = [sum(name in body["messages"][0]["content"] for body in server.seen) for name in names]
    assert counts == [1, 1, 2]


THINKING = "3 + 4 is 7"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_that_a_parser_took_out_is_put_back(server: StubServer, field: str) -> None:
    server.answer = lambda number, body: completion("The answer is 7", **{field: THINKING})
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert result.response == "<think>\n3 + 4 is 7\n</think>\n\nThe answer is 7"


@pytest.mark.parametrize(
    ("thinking", "content", "response"),
    [
        ("\n3 + 4 is 7\n", "\n\n7", "<think>\n3 + 4 is 7\n</think>\n\n7"),
        ("3 + 4 is 7", "\n7", "<think>3 + 4 is 7</think>\n7"),
        ("", "7", "7"),
        (None, "7", "7"),
        ("3 + 4 is 7", "", "<think>\n3 + 4 is 7\n</think>\n\n"),
    ],
    ids=["not stripped", "only cut", "empty", "none", "without an answer"],
)
def test_thinking_stands_as_the_model_wrote_it(
    server: StubServer, thinking: str | None, content: str, response: str
) -> None:
    server.answer = lambda number, body: completion(content, reasoning_content=thinking)
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert result.response == response


@pytest.mark.parametrize(
    ("message", "response"),
    [({"reasoning_content": "3 + 4 is"}, "<think>\n3 + 4 is"), ({}, "")],
    ids=["in its thinking", "without a word"],
)
def test_an_answer_without_content_is_cut_off(
    server: StubServer, message: dict[str, str], response: str
) -> None:
    server.answer = lambda number, body: completion(None, "length", **message)
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert (result.response, result.finish_reason) == (response, "length")
    assert len(server.seen) == 1


def test_a_stop_string_is_looked_for_in_the_answer_only(server: StubServer) -> None:
    server.answer = lambda number, body: completion("7\n\nDone.", reasoning=THINKING)
    (result,) = _results(_generator(server), _request(stop=("\n\n",)))
    assert isinstance(result, Rollout)
    assert result.response == "<think>\n3 + 4 is 7\n</think>\n\n7"
    assert result.finish_reason == "stop"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("eos", "stop"),
        ("stop_sequence", "stop"),
        ("EOS", "stop"),
        ("max_tokens", "length"),
        ("length", "length"),
    ]
    + [(name, None) for name in ("tool_calls", "content_filter", "abort", "something new")],
)
def test_reasons_of_other_servers_are_read(server: StubServer, reason: str, expected: str | None) -> None:
    server.answer = lambda number, body: completion("7", reason)
    (result,) = _results(_generator(server), _request())
    assert isinstance(result, Rollout)
    assert result.finish_reason == expected
    assert result.extras.get("source_finish_reason") == (reason if expected is None else None)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_request_can_change_ends_the_run_with_one_message(
    server: StubServer, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda number, body: Reply({"error": {"message": "no such model"}}, status)
    with pytest.raises(UserError, match=r"127\.0\.0\.1.*no such model.*OPENAI_API_KEY"):
        _results(_generator(server), _request("a", 50))
    time.sleep(0.1)
    assert len(server.seen) <= 8
    assert capsys.readouterr().err == ""


def test_a_server_that_is_not_there_is_reported_at_once_and_ends_the_run(
    server: StubServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepcredit.servers.server._SECONDS_BETWEEN_WARNINGS", math.inf)
    server.close()
    with pytest.raises(UserError, match="cannot be reached"):
        _results(_generator(server, retries=1, concurrency=2), _request("a", 50))
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: http://127.0.0.1")
    assert "no connection" in warning


def test_completions_continue_a_prefix_with_token_ids(server: StubServer, tokenizer: Any) -> None:
    answer = {"choices": [{"text": "4\n#4", "finish_reason": "length"}]}
    server.answer = lambda number, body: Reply(answer)
    prompt_format = PromptFormat(tokenizer)
    generator = OpenAIGenerator("m", base_url=server.url, prompt_format=prompt_format, name="policy")
    request = GenerationRequest(
        prompt=Prompt(id="p", prompt="2+2="), indices=(0,), sampling=Sampling(), response_prefix="2+2="
    )
    (rollout,) = _results(generator, request)
    assert isinstance(rollout, Rollout)
    assert rollout.response == "2+2=4\n#4"
    assert rollout.finish_reason == "length"
    assert rollout.policy == "policy"
    assert server.seen[0]["path"] == "/v1/completions"
    assert tokenizer.decode(server.seen[0]["prompt"]) == "<|user|>2+2=<|end|><|assistant|>2+2="


def test_the_chat_interface_cannot_continue(server: StubServer) -> None:
    with pytest.raises(UserError, match="--api completions"):
        _results(_generator(server), _request(prefix="So "))


def test_a_reader_that_stops_ends_the_requests(server: StubServer) -> None:
    stream = _generator(server, concurrency=2).generate([_request("a", 1000)])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    time.sleep(0.1)
    assert len(server.seen) < 20


def test_the_key_comes_from_the_environment_and_addresses_hold_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        OpenAIGenerator("m")
    with pytest.raises(UserError, match="user name or password") as caught:
        OpenAIGenerator("m", base_url="http://me:hidden@localhost/v1")
    assert "hidden" not in str(caught.value)


def test_the_chat_interface_gets_tools_arguments_and_a_turn_to_go_on_with(server: StubServer) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    prompt = Prompt(
        id="p",
        prompt=[{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "It is"}],
        extras={"tools": tools},
    )
    generator = OpenAIGenerator("m", base_url=server.url, template_arguments={"enable_thinking": False})
    (rollout,) = _results(generator, GenerationRequest(prompt=prompt, indices=(0,), sampling=Sampling()))
    assert isinstance(rollout, Rollout)
    assert rollout.response == "ok"
    (body,) = server.seen
    assert body["messages"] == prompt.prompt
    assert body["tools"] == tools
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    ("text", "said", "response"),
    [
        ("3 + 4", {"matched_stop": "\n"}, "3 + 4\n"),
        ("3 + 4", {"stop_reason": "\n"}, "3 + 4\n"),
        ("3 + 4\n", {"stop_reason": "\n"}, "3 + 4\n"),
        ("7", {"stop_reason": None, "matched_stop": 2}, "7"),
        ("7", {"stop_reason": "<|end|>"}, "7"),
    ],
)
def test_a_stop_string_that_is_to_be_kept_is_asked_for_in_every_dialect_or_put_back(
    server: StubServer, text: str, said: dict[str, Any], response: str
) -> None:
    reply = completion(text)
    assert isinstance(reply, Reply)
    reply.content["choices"][0] |= said
    server.answer = lambda number, body: reply
    (result,) = _results(_generator(server), _request(stop=("\n",), keep_stop=True))
    assert isinstance(result, Rollout)
    assert result.response == response
    assert server.seen[0]["include_stop_str_in_output"] is server.seen[0]["no_stop_trim"] is True
    (other,) = _results(_generator(server), _request(stop=("\n",)))
    assert isinstance(other, Rollout)
    assert other.response == response.rstrip("\n")
    assert "no_stop_trim" not in server.seen[1]
