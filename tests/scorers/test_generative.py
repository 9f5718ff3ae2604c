"""A judge that writes verdicts: by a script, by a server on loopback, by a tiny model on this machine."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import MakeModel, MakeTokenizer
from tests.servers.stub_server import Reply, StubServer, stub_server

from stepcredit.checkpoints import tokenizer_hash
from stepcredit.cli import main
from stepcredit.data import read_scores
from stepcredit.encoding import EncodingError
from stepcredit.generators.fake import FakeGenerator, Script
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.lab.policies import policy_path
from stepcredit.runs import Ledger, read_manifest
from stepcredit.scorers.generative import GenerativeScorer
from stepcredit.scorers.judge import DEFAULT_JUDGE, Judge
from stepcredit.scorers.verdict_candidates import LocalCandidates
from stepcredit.servers import pacing
from stepcredit.steps import StepRule
from stepcredit.types import GenerationRequest, Rollout

JUDGE = Judge.read(DEFAULT_JUDGE)
NEWLINE = StepRule("newline")
SOLUTIONS = ["1 + 1 = 2\n2 + 2 = 5\nThe answer is 5.", "1 + 1 = 2", "1 + 1 = 2\n2 + 2 = 4"]


def rollouts(solutions: Sequence[str] = SOLUTIONS) -> list[Rollout]:
    return [
        Rollout(id=str(number), prompt_id="p", prompt="Add up.", response=solution)
        for number, solution in enumerate(solutions)
    ]


def answer(words: Sequence[str]) -> str:
    return "\n".join(f"Step {number}: \\boxed{{{word}}}" for number, word in enumerate(words, 1))


def steps_in(question: str) -> list[str]:
    return re.findall(r"<step_\d+>\n(.*?)\n</step_\d+>", question, flags=re.DOTALL)


def verdict_words(question: str) -> list[str]:
    """The stub judge's opinion: a step is wrong if it holds a 5."""
    return ["wrong" if "5" in step else "right" for step in steps_in(question)]


def question_of(request: GenerationRequest) -> str:
    return str(request.prompt.prompt[-1]["content"])  # type: ignore[index]


def scorer(script: Script, **settings: Any) -> GenerativeScorer:
    return GenerativeScorer(FakeGenerator(script), JUDGE, NEWLINE, **settings)


# A script ---------------------------------------------------------------------------------------------


def test_without_log_probabilities_a_score_is_the_share_of_answers_that_say_right() -> None:
    def script(request: GenerationRequest, index: int) -> str:
        words = verdict_words(question_of(request))
        return answer(["right"] * len(words) if index == 3 else words)

    scores = list(scorer(script, samples=4).score_all(rollouts()))
    assert [[step.reward for step in score.steps] for score in scores] == [[1, 0.25, 0.25], [1], [1, 1]]
    assert [score.reward for score in scores] == [0.25, 1, 1]
    assert [step.text for step in scores[0].steps] == ["1 + 1 = 2\n", "2 + 2 = 5\n", "The answer is 5."]
    assert scores[0].scorer == "generative: fake, 4 answers, reward is min"


def test_solutions_that_are_judged_alike_keep_their_own_steps() -> None:
    def script(request: GenerationRequest, _: int) -> str:
        return answer(verdict_words(question_of(request)))

    solutions = ["1 + 1 = 2\n2 + 2 = 5", "1 + 1 = 2\n\n2 + 2 = 5\n", "1 + 1 = 2 \n 2 + 2 = 5"]
    for solution, score in zip(solutions, scorer(script).score_all(rollouts(solutions)), strict=True):
        assert "".join(step.text for step in score.steps) == solution
        assert [step.reward for step in score.steps] == [1, 0]


def test_an_answer_with_another_count_is_drawn_again_and_never_shifted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn: list[tuple[int, int]] = []

    def script(request: GenerationRequest, index: int) -> str:
        words = verdict_words(question_of(request))
        drawn.append((len(words), index))
        if len(words) == 3 and index < 2_000_000:
            return answer(words[1:]) if index % 2 == 0 else answer([*words, "wrong"])
        return answer(words)

    judge = scorer(script, samples=2)
    scores = list(judge.score_all(rollouts()))
    assert [[step.reward for step in score.steps] for score in scores] == [[1, 0, 0], [1], [1, 1]]
    assert judge.counts == {"refused_answers": 4}
    assert sorted(index for count, index in drawn if count == 3) == [
        *(0, 1, 1_000_000, 1_000_001, 2_000_000, 2_000_001)
    ]
    assert sorted(index for count, index in drawn if count == 1) == [0, 1]
    (warning,) = capsys.readouterr().err.splitlines()
    assert "without exactly one verdict per step are refused and drawn again (at most 3 times)" in warning


def test_what_cannot_be_judged_is_an_error_or_left_out() -> None:
    def script(request: GenerationRequest, index: int) -> str:
        words = verdict_words(question_of(request))
        return "I am not sure." if len(words) == 3 else answer(words)

    with pytest.raises(EncodingError, match=r"^0: the judge did not give one verdict per step in 4 tries"):
        list(scorer(script).score_all(rollouts()))
    skipped: list[EncodingError] = []
    scores = list(scorer(script).score_all(rollouts(), on_skip=skipped.append))
    assert [score.id for score in scores] == ["1", "2"]
    assert [(error.kind, error.where) for error in skipped] == [("no-verdicts", "0")]


def test_equal_solutions_are_judged_once_and_every_token_is_counted() -> None:
    generator = FakeGenerator(lambda request, index: answer(verdict_words(question_of(request))))
    judge = GenerativeScorer(generator, JUDGE, NEWLINE, samples=3)
    first, again = judge.score_all(rollouts([SOLUTIONS[0], SOLUTIONS[0]]))
    assert first.steps == again.steps
    assert generator.ledger.generated_tokens == 3 * len(answer(["right"] * 3).split())
    assert judge.ledger is generator.ledger
    assert first.judge_tokens >= generator.ledger.generated_tokens


def test_a_window_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(request: GenerationRequest, index: int) -> str:
        return answer(
            ["right" if (index + len(step)) % 3 else "wrong" for step in steps_in(question_of(request))]
        )

    whole = list(scorer(script, samples=5).score_all(rollouts()))
    monkeypatch.setattr(GenerativeScorer, "window", 1)
    assert list(scorer(script, samples=5).score_all(rollouts())) == whole
    alone = list(scorer(script, samples=5).score_all(rollouts()[2:]))
    assert alone == whole[2:]


# A server ---------------------------------------------------------------------------------------------


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    with stub_server() as server:
        server.answer = lambda number, body: Reply(completion(body))
        yield server


def completion(body: dict[str, Any], *, right: float = -0.5, given: bool = True) -> dict[str, Any]:
    """An answer whose every verdict has log-probability ``right`` for right and -2 for wrong."""
    words = verdict_words(body["messages"][-1]["content"])
    tokens = []
    for number, word in enumerate(words, 1):
        tokens += [
            (f"Step {number}:", {}),
            (" \\boxed", {}),
            (f"{{{word}", {"{right": right, "{wrong": -2.0}),
        ]
        tokens += [("}\n", {})]
    content = [
        {
            "token": token,
            "logprob": others.get(token, -0.1),
            "top_logprobs": [{"token": name, "logprob": value} for name, value in others.items()],
        }
        for token, others in tokens
    ]
    message = {
        "role": "assistant",
        "content": "".join(token for token, _ in tokens),
        "reasoning_content": "Hm.",
    }
    choice = {
        "message": message,
        "finish_reason": "stop",
        "logprobs": {"content": content} if given else None,
    }
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}


PROBABILITY = math.exp(-0.5) / (math.exp(-0.5) + math.exp(-2.0))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    lines = [
        {"id": row.id, "prompt_id": row.prompt_id, "prompt": row.prompt, "response": row.response}
        for row in rollouts()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def words(rows: Path, stub: StubServer, out: Path, *more: str) -> list[str]:
    judge = ["--prm", "m", "--family", "generative", "--judge-generator", stub.url]
    return ["score", str(rows), *judge, "--steps", "newline", *more, "--out", str(out)]


def test_scores_of_a_server_are_probabilities_of_right(rows: Path, stub: StubServer, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert main(words(rows, stub, out, "--judge-samples", "2", "--aggregate", "last")) == 0
    scores = list(read_scores(out))
    assert [step.reward for score in scores for step in score.steps] == pytest.approx([PROBABILITY] * 6)
    manifest = read_manifest(out) or {}
    assert manifest["ledger"]["generated_tokens"] == 6 * 10
    assert manifest["ledger"]["prompt_tokens"] == 6 * 100
    assert manifest["settings"]["judge"]["samples"] == 2
    assert {(body["model"], body["logprobs"], body["top_logprobs"]) for body in stub.seen} == {
        ("m", True, 20)
    }
    assert len({body["seed"] for body in stub.seen}) == 6


def test_a_server_without_log_probabilities_gives_verdicts(
    rows: Path, stub: StubServer, tmp_path: Path
) -> None:
    stub.answer = lambda number, body: Reply(completion(body, given=False))
    out = tmp_path / "scores.jsonl"
    assert main(words(rows, stub, out)) == 0
    assert [[step.reward for step in score.steps] for score in read_scores(out)] == [[1, 0, 0], [1], [1, 1]]


def test_a_log_probability_above_zero_is_not_believed(
    rows: Path, stub: StubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = lambda number, body: Reply(completion(body, right=0.5))
    judge = tmp_path / "judge.yaml"
    judge.write_text(yaml.safe_dump({**json.loads(json.dumps(JUDGE.to_json())), "retries": 0}))
    assert main(words(rows, stub, tmp_path / "scores.jsonl", "--judge", str(judge))) == 2
    assert "a log-probability of 0.5, which is above 0" in capsys.readouterr().err


def test_a_server_that_takes_no_seeds_and_gives_no_log_probabilities_is_not_asked_for_them(
    rows: Path, stub: StubServer, tmp_path: Path
) -> None:
    judge = tmp_path / "judge.yaml"
    content = {**json.loads(json.dumps(JUDGE.to_json())), "seed": None, "candidates": 0}
    judge.write_text(yaml.safe_dump(content))
    stub.answer = lambda number, body: Reply(completion(body, given=False))
    assert main(words(rows, stub, tmp_path / "scores.jsonl", "--judge", str(judge))) == 0
    assert not {"seed", "logprobs", "top_logprobs"} & set().union(*stub.seen)


@pytest.mark.parametrize("name", ["fake", "openai", "localhost:8000"])
def test_what_runs_no_judge_is_refused(
    name: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["score", str(rows), "--prm", "m", "--family", "generative", "--judge-generator", name]
    assert main([*command, "--out", str(tmp_path / "scores.jsonl")]) == 2
    assert f"--judge-generator: '{name}' cannot run a judge" in capsys.readouterr().err


def test_a_run_that_was_broken_off_goes_on_to_the_same_scores(
    rows: Path, stub: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GenerativeScorer, "window", 1)

    def right(body: dict[str, Any]) -> Reply:
        return Reply(completion(body, right=-(body["seed"] % 97) / 50))

    stub.answer = lambda number, body: right(body)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    assert main(words(rows, stub, whole)) == 0
    before = len(stub.seen)
    stub.answer = lambda number, body: right(body) if number < before + 2 else Reply({"error": "no key"}, 401)
    assert main(words(rows, stub, parts)) == 2
    broken_off = len(stub.seen)
    stub.answer = lambda number, body: right(body)
    assert main(words(rows, stub, parts)) == 0
    assert broken_off < len(stub.seen) < broken_off + len(SOLUTIONS)
    assert parts.read_bytes() == whole.read_bytes()
    for name in ("ledger", "counts"):
        assert (read_manifest(parts) or {})[name] == (read_manifest(whole) or {})[name]


def test_other_commands_take_a_judge_too(rows: Path, stub: StubServer, tmp_path: Path) -> None:
    """Evaluation of labelled steps, guided search, and a comparison by recipe."""
    labelled = tmp_path / "labelled.jsonl"
    row = {"id": "0", "prompt_id": "p", "prompt": "Add up.", "response": SOLUTIONS[0]}
    labels = [{"end": 10, "label": 1.0}, {"end": 20, "label": 0.0}]
    others = {
        "id": "1",
        "prompt_id": "q",
        "prompt": "Add.",
        "response": "1 + 1 = 2\n",
        "step_labels": labels[:1],
    }
    lines = [json.dumps({**row, "step_labels": labels}), json.dumps(others)]
    labelled.write_text("\n".join(lines), encoding="utf-8")
    judge = ["--family", "generative", "--judge-generator", stub.url]
    evaluation = ["eval", "steps", f"data={labelled}", "--prm", "judge=m", *judge]
    assert main([*evaluation, "--out", str(tmp_path / "eval"), "--draws", "1000"]) == 0

    prompts, found = tmp_path / "prompts.jsonl", tmp_path / "found.jsonl"
    prompts.write_text(json.dumps({"id": "a", "prompt": "1+2=", "answer": "3"}) + "\n", encoding="utf-8")
    search = ["search", str(prompts), "--model", str(policy_path("mid")), "--prm", "m", *judge]
    size = [
        "--strategy",
        "beam",
        "--width",
        "2",
        "--expand",
        "2",
        "--max-new-tokens",
        "48",
        "--grader",
        "exact",
    ]
    assert main([*search, "--steps", "newline", *size, "--out", str(found)]) == 0
    assert (read_manifest(found) or {})["ledger"]["scored_tokens"] >= 110

    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "test")}
    for name, path in files.items():
        samples = [
            {"id": f"p{n}", "prompt_id": "p", "prompt": name, "response": text, "correct": "5" not in text}
            for n, text in enumerate(SOLUTIONS)
        ]
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in samples), encoding="utf-8")
    stub.answer = lambda number, body: Reply(completion(body, given=False))
    method = {"family": "generative", "prm": "m", "judge_generator": stub.url}
    methods = [{"name": "judge", "score": method}, {"name": "shortest", "baseline": "shortest"}]
    recipe = {
        "model": "none",
        "methods": methods,
        "n": [1, 2],
        "choose_at": 2,
        "settings": {"step_rule": "newline"},
    }
    recipe |= files
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    compare = ["compare", str(tmp_path / "recipe.yaml"), "--draws", "1000"]
    assert main([*compare, "--out", str(tmp_path / "comparison")]) == 0
    assert "| judge |" in (tmp_path / "comparison" / "README.md").read_text()


# A model on this machine ------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma"])
def test_candidates_of_a_local_model_are_its_own_log_probabilities(
    template: str, make_model: MakeModel, make_tokenizer: MakeTokenizer
) -> None:
    model, tokenizer = make_model(4), make_tokenizer(template)
    generator = TransformersGenerator(model, tokenizer, name="tiny", tokenizer_hash=tokenizer_hash(tokenizer))
    text = answer(["right", "wrong"])
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    given = Rollout(id="0", prompt_id="p", prompt="Judge.", response=text, response_token_ids=tuple(ids))
    starts = [verdict.start for verdict in JUDGE.verdicts(text, 2) or ()]
    ledger = Ledger()
    places = LocalCandidates(generator, ledger).at(given, starts)
    asked: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Judge."}], tokenize=False, add_generation_prompt=True
    )
    opening = tokenizer(asked, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model.double()(input_ids=torch.tensor([[*opening, *ids]])).logits[0]
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert places is not None
    for start, (before, candidates) in zip(starts, places, strict=True):
        token = max(index for index, (first, _) in enumerate(offsets) if first <= start)
        assert before == text[offsets[token][0] : start]
        log_probs = logits[len(opening) + token - 1].log_softmax(-1)
        best = {
            str(tokenizer.decode([int(index)])): float(log_probs[index])
            for index in log_probs.topk(20).indices
        }
        assert candidates.keys() == best.keys()
        assert [candidates[name] for name in best] == pytest.approx(list(best.values()), abs=1e-5)
    assert ledger.scored_tokens > len(opening)


def test_a_local_judge_draws_the_same_again(
    rows: Path, tmp_path: Path, make_model: MakeModel, make_tokenizer: MakeTokenizer
) -> None:
    """A random model says anything; this judge takes the first character for the verdict on all."""
    directory = tmp_path / "judge-model"
    make_model(6).save_pretrained(str(directory))
    make_tokenizer().save_pretrained(str(directory))
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    judge = {
        "prompt": "{problem} {steps}",
        "step": "{text}",
        "verdict": r"(?s)\A\s*(?P<verdict>[!-~])",
        "right": characters[::2],
        "wrong": characters[1::2],
        "max_new_tokens": 6,
        "retries": 20,
    }
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump(judge))
    command = [
        "score",
        str(rows),
        "--prm",
        str(directory),
        "--family",
        "generative",
        "--steps",
        "separator:@@",
    ]
    command += ["--judge", str(tmp_path / "judge.yaml"), "--judge-samples", "3"]
    for name in ("one", "two"):
        assert main([*command, "--out", str(tmp_path / f"{name}.jsonl")]) == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    scores = list(read_scores(tmp_path / "one.jsonl"))
    assert all(0 < step.reward < 1 for score in scores for step in score.steps)
    ledger = (read_manifest(tmp_path / "one.jsonl") or {})["ledger"]
    assert min(ledger["generated_tokens"], ledger["prompt_tokens"], ledger["scored_tokens"]) > 0


def test_a_base_model_without_a_template_cannot_be_asked(
    rows: Path, tmp_path: Path, make_model: MakeModel, make_tokenizer: MakeTokenizer, capsys: Any
) -> None:
    directory, tokenizer = tmp_path / "base", make_tokenizer()
    tokenizer.chat_template = None
    make_model(6).save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
    command = ["score", str(rows), "--prm", str(directory), "--family", "generative", "--steps", "newline"]
    assert main([*command, "--out", str(tmp_path / "scores.jsonl")]) == 2
    assert "the tokenizer has no chat template" in capsys.readouterr().err
