from __future__ import annotations

from stepcredit.generators.fake import FakeGenerator
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout, Sampling


def _request(name: str, indices: tuple[int, ...], prefix: str = "", **sampling: object) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=name, prompt="What is 2 + 2?", answer="4"),
        indices=indices,
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
        response_prefix=prefix,
    )


def _responses(generator: FakeGenerator, *requests: GenerationRequest) -> list[str]:
    return [r.response for r in generator.generate(requests) if isinstance(r, Rollout)]


def test_a_script_answers_round_and_round() -> None:
    fake = FakeGenerator({"p": ["one", "two"]})
    assert _responses(fake, _request("p", (0, 1, 2, 5))) == ["one", "two", "one", "two"]


def test_a_script_may_be_a_function() -> None:
    fake = FakeGenerator(lambda request, index: f"{request.prompt.id}{index}")
    assert _responses(fake, _request("p", (3,))) == ["p3"]


def test_random_responses_depend_on_seed_prompt_and_index_only() -> None:
    fake = FakeGenerator()
    whole = _responses(fake, _request("p", (0, 1, 2)), _request("q", (0,)))
    assert _responses(FakeGenerator(), _request("q", (0,)), _request("p", (2,))) == [whole[3], whole[2]]
    assert len({*whole, *_responses(fake, _request("p", (0,), seed=1))}) == 5
    assert all("The answer is" in response for response in whole)


def test_a_scripted_response_goes_on_after_its_prefix() -> None:
    fake = FakeGenerator({"p": ["one two"]})
    assert _responses(fake, _request("p", (0,), "one")) == ["one two"]
    assert _responses(fake, _request("p", (0,), "zero ")) == ["zero one two"]


def test_stop_strings_cut() -> None:
    assert _responses(FakeGenerator({"p": ["a\n#4"]}), _request("p", (0,), stop=("#",))) == ["a\n"]


def test_failures_and_the_ledger() -> None:
    fake = FakeGenerator({"p": ["a b c"]}, failures={"q": "too hard"})
    results = list(fake.generate([_request("q", (0, 1)), _request("p", (0, 1))]))
    assert results[0] == GenerationFailure("q", (0, 1), "too hard")
    assert (fake.ledger.prompt_tokens, fake.ledger.generated_tokens) == (5, 6)
