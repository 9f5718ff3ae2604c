from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.processes import partial_rows, run_until_killed
from tests.tutor_generator import TutorGenerator
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.cli import main
from stepcredit.data import read_rollouts, rollout_to_json, write_rows
from stepcredit.errors import DataError, UserError
from stepcredit.generators.fake import FakeGenerator
from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.generators.records import failures_path
from stepcredit.grading.options import GraderOptions
from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit.lab.policies import policy_path
from stepcredit.lab.tutor import WEAK
from stepcredit.pipelines import label_math_shepherd
from stepcredit.pipelines.label_math_shepherd import Options, Result
from stepcredit.runs import lines, read_manifest
from stepcredit.types import GenerationFailure, GenerationRequest, Generator, Rollout


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    rollouts = [
        replace(rollout, extras={"level": number % 5})
        for number, rollout in enumerate(tutor_rollouts(WEAK, 5, 3, seed=2))
    ]
    write_rows(tmp_path / "graded.jsonl", map(rollout_to_json, rollouts))
    return tmp_path / "graded.jsonl"


def _use(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Generator]) -> None:
    monkeypatch.setattr(label_math_shepherd, "make_generator", lambda options, continues: make())


@pytest.fixture
def tutor(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, lambda: TutorGenerator(WEAK))


def _options(graded: Path, out: Path, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "num_completions": 6,
        "steps": "newline",
        "policy": GeneratorOptions(generator="fake", policy_name="tutor"),
        "draw": SamplingOptions(max_new_tokens=64),
        "grading": GraderOptions(grader="exact", answer_pattern=r"#(\d)\s*$"),
    }
    return Options(graded=graded, out=out, **{**given, **changes})


class _KilledError(Exception):
    pass


class _DiesAfter:
    """Passes on what a tutor writes, and raises after so many completions."""

    def __init__(self, completions: int) -> None:
        self._left = completions
        self._tutor = TutorGenerator(WEAK)
        self.name, self.ledger = self._tutor.name, self._tutor.ledger

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        for result in self._tutor.generate(requests):
            if self._left == 0:
                raise _KilledError
            self._left -= 1
            yield result


@pytest.mark.usefixtures("tutor")
def test_every_step_gets_labels_of_all_kinds(graded: Path, tmp_path: Path) -> None:
    result = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    before, after = list(read_rollouts(graded)), list(read_rollouts(tmp_path / "out.jsonl"))
    for old, new in zip(before, after, strict=True):
        assert new.step_labels is not None
        assert [label.end for label in new.step_labels][-1] == len(old.response)
        assert len(new.step_labels) == len(old.response.splitlines())
        content = new.extras["monte_carlo"]
        assert [label.label for label in new.step_labels] == content["soft"]
        assert content["completions"][:-1] == [6] * (len(content["end"]) - 1)
        assert all(
            s <= m <= h
            for s, m, h in zip(content["soft"], content["log-mean-exp"], content["hard"], strict=True)
        )
        assert replace(new, step_labels=None, extras={"level": old.extras["level"]}) == old
    assert result.counts["labelled"] == 15
    assert result.counts["completions"] == 6 * result.counts["distinct_prefixes"]


@pytest.mark.usefixtures("tutor")
def test_the_manifest_states_the_cost_both_ways(graded: Path, tmp_path: Path) -> None:
    result = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    manifest = read_manifest(tmp_path / "out.jsonl")
    assert manifest is not None
    assert manifest["ledger"] == result.shared
    shared, unshared = manifest["ledger"], manifest["ledger_without_sharing"]
    assert 0 < shared["generated_tokens"] < unshared["generated_tokens"]
    assert 0 < shared["prompt_tokens"] < unshared["prompt_tokens"]
    assert "without sharing" in result.to_text()


def test_a_run_that_was_stopped_goes_on(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_math_shepherd, "_PREFIXES_AT_ONCE", 3)
    monkeypatch.setattr(lines, "_SYNC_SECONDS", 0.0)
    _use(monkeypatch, lambda: TutorGenerator(WEAK))
    label_math_shepherd.run(_options(graded, tmp_path / "whole.jsonl"))
    for completions in (20, 50):
        dying = _DiesAfter(completions)
        _use(monkeypatch, lambda dying=dying: dying)  # type: ignore[misc]
        with pytest.raises(_KilledError):
            label_math_shepherd.run(_options(graded, tmp_path / "parts.jsonl"))
        assert not (tmp_path / "parts.jsonl").exists()
    counting = TutorGenerator(WEAK)
    _use(monkeypatch, lambda: counting)
    result = label_math_shepherd.run(_options(graded, tmp_path / "parts.jsonl"))
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert counting.ledger.generated_tokens < result.shared["generated_tokens"]
    whole = read_manifest(tmp_path / "whole.jsonl")
    assert whole is not None
    assert whole["ledger"] == result.shared


@pytest.mark.slow
def test_a_process_that_was_killed_is_the_same_run(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real model, whose draws could depend on what lies beside them in a batch."""
    graded.write_text("".join(graded.read_text().splitlines(keepends=True)[:5]))
    monkeypatch.setattr(label_math_shepherd, "_PREFIXES_AT_ONCE", 5)
    words = ["label", "math-shepherd", str(graded), "--model", str(policy_path("mid")), "--device", "cpu"]
    words += ["--num-completions", "3", "--steps", "newline", "--max-new-tokens", "32"]
    words += ["--grader", "exact", "--answer-pattern", r"#(\d)\s*$", "--adaptive", "0.2"]
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    pieces = {"stepcredit.pipelines.label_math_shepherd._PREFIXES_AT_ONCE": 5}
    run_until_killed([*words, "--out", str(killed)], tmp_path / "log", rows=23, settings=pieces)
    assert partial_rows(killed) == 23
    for out in (killed, whole):
        assert main([*words, "--out", str(out)]) == 0
    assert killed.read_bytes() == whole.read_bytes()
    one, other = (read_manifest(out) for out in (killed, whole))
    assert one is not None
    assert other is not None
    for name in ("ledger", "ledger_without_sharing", "counts", "settings_hash"):
        assert one[name] == other[name], name


@pytest.mark.usefixtures("tutor")
def test_finished_work_is_not_done_again_and_other_work_is_refused(graded: Path, tmp_path: Path) -> None:
    first = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    again = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    assert again == replace(first, already_done=True)
    with pytest.raises(UserError, match="--overwrite"):
        label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl", num_completions=7))


@pytest.mark.usefixtures("tutor")
def test_the_output_may_be_compressed(graded: Path, tmp_path: Path) -> None:
    label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl.gz"))
    label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    assert list(read_rollouts(tmp_path / "out.jsonl.gz")) == list(read_rollouts(tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.glob("*.tmp*")) == []


def test_prefixes_that_fail_are_listed_and_the_others_go_on(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in graded.read_text().splitlines()]
    rows[0]["response"] = "no calculation\n#7"
    graded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _use(monkeypatch, lambda: TutorGenerator(WEAK))
    result = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))
    assert result.counts["failed_prefixes"] == 1
    (failure,) = failures_path(tmp_path / "out.jsonl").read_text().splitlines()
    assert "cannot go on" in json.loads(failure)["reason"]
    first = next(read_rollouts(tmp_path / "out.jsonl"))
    assert first.step_labels is not None
    assert [label.end for label in first.step_labels] == [len(first.response)]


def test_a_generator_that_always_fails_is_an_error(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(FakeGenerator):
        def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
            return (GenerationFailure(request.prompt.id, request.indices, "down") for request in requests)

    _use(monkeypatch, Failing)
    with pytest.raises(UserError, match="prefixes failed"):
        label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))


@pytest.mark.usefixtures("tutor")
def test_ungraded_rollouts_are_an_error_that_says_what_to_do(graded: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) | {"correct": None} for line in graded.read_text().splitlines()]
    graded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="stepcredit grade"):
        label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"num_completions": 0}, "--num-completions"),
        ({"label_beta": 0.0}, "--label-beta"),
        ({"adaptive": 1.5}, "--adaptive"),
    ],
)
def test_options_out_of_range_are_named(tmp_path: Path, changes: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        _options(tmp_path / "graded.jsonl", tmp_path / "out.jsonl", **changes)


@pytest.mark.usefixtures("tutor")
def test_completions_are_graded_by_a_grader_that_reads_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task's own scoring knows the problem from a field of the row, beside fields of its old response."""
    problem = {"task": "chain_sum", "seed": 0, "size": 1, "settings": {}, "index": 0}
    answer = make_task("chain_sum", seed=0, size=1, settings={})[0]["answer"]
    row = {"id": "r", "prompt_id": "p", "prompt": "Add them.", "answer": answer, "correct": False}
    row |= {"response": "The first.\nAll.\n#### -1", "num_generated_tokens": 999, FIELD: problem}
    write_rows(tmp_path / "graded.jsonl", [row])

    def answered(request: GenerationRequest, index: int) -> str:
        return f"{request.response_prefix}#### {answer if index % 2 else -1}"

    _use(monkeypatch, lambda: FakeGenerator(answered))
    out, grading = tmp_path / "labelled.jsonl", GraderOptions(grader="reasoning-gym", num_workers=1)
    label_math_shepherd.run(_options(tmp_path / "graded.jsonl", out, grading=grading, label="soft"))
    (labelled,) = read_rollouts(out)
    assert labelled.step_labels is not None
    assert [label.label for label in labelled.step_labels] == [0.5, 0.5, 0.0]
    assert labelled.extras[FIELD] == problem


def test_results_are_plain_json(graded: Path, tmp_path: Path) -> None:
    result = label_math_shepherd.run(_options(graded, tmp_path / "out.jsonl", label="hard", adaptive=0.2))
    assert isinstance(result, Result)
    assert json.loads(json.dumps(result.to_json()))["counts"]["labelled"] == 15


def test_labels_belong_to_steps_that_are_not_put_together(graded: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--steps thinking:9: step labels need steps that do not depend"):
        label_math_shepherd.run(_options(graded, tmp_path / "labelled.jsonl", steps="thinking:9"))
