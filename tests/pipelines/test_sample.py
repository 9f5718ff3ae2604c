from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.processes import kill_when

from stepcredit.checkpoints import load_tokenizer, tokenizer_hash
from stepcredit.data import read_rollouts
from stepcredit.encoding import ChatEncoding
from stepcredit.errors import DataError, UserError
from stepcredit.generators.fake import FakeGenerator
from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.generators.records import failures_path
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.pipelines import sample
from stepcredit.pipelines.sample import Options, SampleResult
from stepcredit.runs import read_manifest
from stepcredit.steps import StepRule
from stepcredit.types import GenerationRequest, Generator

FAKE = GeneratorOptions(generator="fake")
LAB = GeneratorOptions(model=str(policy_path("mid")))


def _run(options: Options) -> SampleResult:
    result = sample.run(options)
    assert isinstance(result, SampleResult)
    return result


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"p{n}", "prompt": f"What is {n} + 1?", "answer": str(n + 1), "level": n} for n in range(5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def lab_prompts(tmp_path: Path) -> Path:
    path = tmp_path / "lab.jsonl"
    problems = make_prompts("train", seed=0, count=60)
    rows = [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in problems]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _generator(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Generator]) -> None:
    monkeypatch.setattr(sample, "make_generator", lambda options: make())


def test_every_sample_is_there_once_in_order_of_prompt_and_index(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE))
    assert (result.num_prompts, result.num_rollouts, result.num_failed) == (5, 15, 0)
    rollouts = list(read_rollouts(out))
    assert [(r.prompt_id, r.index) for r in rollouts] == [(f"p{n}", i) for n in range(5) for i in range(3)]
    assert [r.id for r in rollouts[:3]] == ["p0:0", "p0:1", "p0:2"]
    assert rollouts[3].answer == "2"
    assert rollouts[3].extras["level"] == 1
    assert rollouts[3].policy == "fake"
    assert not list(tmp_path.glob("*.partial*"))


def test_a_complete_output_is_left_alone(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = Options(prompts=prompts, out=out, num_samples=2, policy=FAKE)
    _run(options)
    before = out.stat().st_mtime_ns
    again = _run(options)
    assert again.already_complete
    assert again.num_rollouts == 10
    assert "complete already (10 rollouts)" in again.to_text()
    assert out.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="--overwrite"):
        _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE))


@pytest.mark.parametrize("extension", ["jsonl.gz", "parquet", "csv"])
def test_other_formats_hold_the_same(prompts: Path, tmp_path: Path, extension: str) -> None:
    _run(Options(prompts=prompts, out=tmp_path / "out.jsonl", num_samples=2, policy=FAKE))
    _run(Options(prompts=prompts, out=tmp_path / f"out.{extension}", num_samples=2, policy=FAKE))
    plain, other = (
        [(r.id, r.response, r.sampling) for r in read_rollouts(tmp_path / f"out.{name}")]
        for name in ("jsonl", extension)
    )
    assert plain == other
    assert not list(tmp_path.glob("*.sorted"))


def test_failing_prompts_are_listed_and_the_others_go_on(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _generator(monkeypatch, lambda: FakeGenerator(failures={"p1": "too long", "p3": "refused"}))
    out = tmp_path / "out.jsonl"
    result = _run(Options(prompts=prompts, out=out, num_samples=2, policy=FAKE))
    assert (result.num_rollouts, result.num_failed) == (6, 2)
    assert "2 prompts failed" in result.to_text()
    assert result.failures == failures_path(out)
    assert _rows(failures_path(out)) == [
        {"prompt_id": "p1", "indices": [0, 1], "reason": "too long"},
        {"prompt_id": "p3", "indices": [0, 1], "reason": "refused"},
    ]
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["counts"]["failed_prompts"] == 2


@pytest.mark.parametrize("extension", ["jsonl", "csv", "parquet"])
def test_failed_prompts_can_be_tried_again(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    whole, out = tmp_path / f"whole.{extension}", tmp_path / f"out.{extension}"
    _run(Options(prompts=prompts, out=whole, num_samples=2, policy=FAKE))
    with monkeypatch.context() as patch:
        _generator(patch, lambda: FakeGenerator(failures={"p1": "server busy"}))
        _run(Options(prompts=prompts, out=out, num_samples=2, policy=FAKE))
        again = _run(Options(prompts=prompts, out=out, num_samples=2, policy=FAKE))
    assert again.already_complete
    assert "1 prompt failed; --retry-failed" in again.to_text()
    retried = _run(Options(prompts=prompts, out=out, num_samples=2, policy=FAKE, retry_failed=True))
    assert (retried.num_rollouts, retried.num_failed, retried.failures) == (10, 0, None)
    assert list(read_rollouts(out)) == list(read_rollouts(whole))
    assert not failures_path(out).exists()
    assert not list(tmp_path.glob("*.partial*"))


def test_it_is_an_error_if_every_prompt_fails(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _generator(monkeypatch, lambda: FakeGenerator(failures={f"p{n}": "server down" for n in range(5)}))
    with pytest.raises(UserError, match="all 5 prompts failed, the first because server down"):
        _run(Options(prompts=prompts, out=tmp_path / "out.jsonl", policy=FAKE))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_prompt_that_is_the_only_one_is_not_called_all(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _generator(monkeypatch, lambda: FakeGenerator(failures={"p0": "server down"}))
    with pytest.raises(UserError, match="the only prompt failed because server down"):
        _run(Options(prompts=prompts, out=tmp_path / "out.jsonl", policy=FAKE, limit=1))


class _Dies:
    """Answers like the fake, then breaks down."""

    name = "fake"

    def __init__(self, after: int) -> None:
        self.after = after
        self.asked: list[GenerationRequest] = []

    def generate(self, requests: Any) -> Any:
        self.asked = list(requests)
        for number, result in enumerate(FakeGenerator().generate(self.asked)):
            if number == self.after:
                raise ConnectionError("gone")
            yield result


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_run_that_broke_off_goes_on(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    _run(Options(prompts=prompts, out=whole, num_samples=3, policy=FAKE))
    with monkeypatch.context() as patch:
        _generator(patch, lambda: _Dies(after))
        with pytest.raises(ConnectionError):
            _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE))
    partial = tmp_path / "out.jsonl.partial"
    assert len(_rows(partial)) == after
    with open(partial, "ab") as handle:
        handle.write(b'{"id": "p4:2", "prom')
    resumed = _Dies(99)
    _generator(monkeypatch, lambda: resumed)
    _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE))
    assert sum(request.num_samples for request in resumed.asked) == 15 - after
    assert out.read_bytes() == whole.read_bytes()


def test_other_settings_do_not_go_on_with_a_partial_output(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        _generator(patch, lambda: _Dies(4))
        with pytest.raises(ConnectionError):
            _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE))
    with pytest.raises(UserError, match="other settings"):
        _run(Options(prompts=prompts, out=out, num_samples=3, policy=FAKE, seed=1))


def test_shards_put_together_are_the_whole(prompts: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    _run(Options(prompts=prompts, out=whole, num_samples=2, policy=FAKE))
    shards = b""
    for number in (1, 2, 3):
        out = tmp_path / f"shard{number}.jsonl"
        _run(Options(prompts=prompts, out=out, num_samples=2, policy=FAKE, shard=f"{number}/3"))
        shards += out.read_bytes()
    assert shards == whole.read_bytes()


@pytest.mark.parametrize("shard", [None, "2/2"])
def test_a_limit_takes_the_first_prompts_and_reads_no_others(
    prompts: Path, tmp_path: Path, shard: str | None
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    _run(Options(prompts=prompts, out=whole, num_samples=2, policy=FAKE))
    prompts.write_text(prompts.read_text(encoding="utf-8") + "not json\n", encoding="utf-8")
    result = _run(Options(prompts=prompts, out=out, num_samples=2, limit=4, shard=shard, policy=FAKE))
    lines = whole.read_bytes().splitlines()[:8]
    wanted = lines if shard is None else lines[4:]
    assert out.read_bytes().splitlines() == wanted
    assert (result.num_prompts, result.num_rollouts) == (len(wanted) // 2, len(wanted))


def test_a_limit_beyond_the_end_takes_all(prompts: Path, tmp_path: Path) -> None:
    result = _run(Options(prompts=prompts, out=tmp_path / "out.jsonl", num_samples=1, limit=9, policy=FAKE))
    assert result.num_prompts == 5


def test_a_limited_run_goes_on_but_not_with_another_limit(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    options = Options(prompts=prompts, out=out, num_samples=3, limit=3, policy=FAKE)
    with monkeypatch.context() as patch:
        _generator(patch, lambda: _Dies(4))
        with pytest.raises(ConnectionError):
            _run(options)
    for other in (2, None):
        with pytest.raises(UserError, match="other settings"):
            _run(replace(options, limit=other))
    assert _run(options).num_rollouts == 9
    assert _run(options).already_complete
    with pytest.raises(UserError, match="--overwrite"):
        _run(replace(options, limit=4))


def test_without_a_limit_the_settings_are_what_they_were(prompts: Path, tmp_path: Path) -> None:
    """An output that was made before there was a limit is still complete."""
    out = tmp_path / "out.jsonl"
    _run(Options(prompts=prompts, out=out, num_samples=1, policy=FAKE))
    assert "limit" not in (read_manifest(out) or {})["settings"]


def test_context_is_part_of_the_rollouts_prompt(prompts: Path, tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    row = {"id": "e", "prompt_id": "e", "prompt": "What is 1 + 1?", "response": "2"}
    examples.write_text(json.dumps(row) + "\n", encoding="utf-8")
    out = tmp_path / "out.jsonl"
    _run(
        Options(
            prompts=prompts, out=out, num_samples=1, policy=FAKE, system_prompt="Be brief.", few_shot=examples
        )
    )
    assert next(read_rollouts(out)).prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "What is 0 + 1?"},
    ]


def test_a_second_system_prompt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1?"}]
    path.write_text(json.dumps({"id": "p", "prompt": turns}) + "\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"prompts\.jsonl: prompt 'p': the prompt already has a system message"
    ):
        _run(Options(prompts=path, out=tmp_path / "out.jsonl", policy=FAKE, system_prompt="Be brief."))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no prompts"),
        ('{"id": "p", "prompt": "1"}\n{"id": "p", "prompt": "2"}\n', "'p' appears twice"),
        ('{"id": "p"}\n', "field 'prompt' is missing"),
        ("not json\n", "prompts.jsonl:1: not valid JSON"),
    ],
)
def test_bad_prompts_are_refused_before_anything_is_drawn(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        _run(Options(prompts=path, out=tmp_path / "out.jsonl", policy=FAKE))
    assert problem in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_malformed_prompts_are_skipped_and_counted_on_request(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "p", "prompt": "1"}\n{"id": "q"}\n', encoding="utf-8")
    result = _run(
        Options(prompts=path, out=tmp_path / "o.jsonl", num_samples=1, policy=FAKE, skip_invalid=True)
    )
    assert (result.num_rollouts, result.num_skipped) == (1, 1)
    assert "1 malformed prompt skipped" in result.to_text()


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: SamplingOptions(temperature=-0.1), "--temperature"),
        (lambda: SamplingOptions(temperature=float("nan")), "--temperature"),
        (lambda: SamplingOptions(top_p=0.0), "--top-p"),
        (lambda: SamplingOptions(top_p=1.1), "--top-p"),
        (lambda: SamplingOptions(top_k=-1), "--top-k"),
        (lambda: SamplingOptions(min_p=2.0), "--min-p"),
        (lambda: SamplingOptions(max_new_tokens=0), "--max-new-tokens"),
        (lambda: SamplingOptions(stop=("",)), "--stop"),
        (lambda: GeneratorOptions(model="m", batch_samples=0), "--batch-samples"),
        (lambda: GeneratorOptions(), "--model"),
        (lambda: Options(prompts=Path("p"), out=Path("o"), policy=FAKE, num_samples=0), "--num-samples"),
        (lambda: Options(prompts=Path("p"), out=Path("o"), policy=FAKE, limit=0), "--limit"),
        (lambda: Options(prompts=Path("p"), out=Path("o"), policy=FAKE, shard="3/2"), "--shard"),
        (lambda: Options(prompts=Path("p"), out=Path("o"), policy=FAKE, shard="0/2"), "--shard"),
        (lambda: Options(prompts=Path("p"), out=Path("o"), policy=FAKE, shard="half"), "--shard"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], where: str) -> None:
    with pytest.raises(UserError, match=where):
        make()


def test_the_lab_policy_is_sampled_with_token_ids_and_a_ledger(lab_prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    draw = SamplingOptions(max_new_tokens=64, top_p=0.95)
    result = _run(Options(prompts=lab_prompts, out=out, num_samples=4, policy=LAB, draw=draw))
    rollouts = list(read_rollouts(out))
    assert result.num_rollouts == len(rollouts) == 240
    assert all(r.policy == "mid" and r.finish_reason == "stop" for r in rollouts)
    assert sum(f"#{r.answer}" in r.response for r in rollouts) > 60
    manifest = read_manifest(out)
    assert manifest is not None
    ledger = manifest["ledger"]
    assert all(r.response_token_ids is not None for r in rollouts)
    assert ledger["generated_tokens"] == sum(len(r.response_token_ids or ()) for r in rollouts)
    assert 300_000 < ledger["model_parameters"] < 400_000
    tokens = ledger["prompt_tokens"] + ledger["generated_tokens"]
    assert ledger["flops"] == 2 * ledger["model_parameters"] * tokens
    assert manifest["settings"]["policy"]["weights"].startswith("sha256:")


def test_what_was_drawn_is_what_is_scored(lab_prompts: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(LAB.model))
    known = tokenizer_hash(tokenizer)
    draw = SamplingOptions(max_new_tokens=30)
    _run(Options(prompts=lab_prompts, out=tmp_path / "out.jsonl", num_samples=2, policy=LAB, draw=draw))
    rollouts = list(read_rollouts(tmp_path / "out.jsonl"))
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    recorded = ChatEncoding(tokenizer, StepRule.parse("newline"), tokenizer_hash=known)
    retokenised = ChatEncoding(tokenizer, StepRule.parse("newline"))
    for rollout in rollouts:
        assert rollout.tokenizer == known
        drawn = recorded.prompt_ids(rollout.prompt) + (rollout.response_token_ids or ())
        assert recorded.encode(rollout).encoded.token_ids == drawn
        assert retokenised.encode(rollout).encoded.token_ids == drawn


@pytest.mark.slow
def test_a_process_killed_at_work_draws_the_same_when_run_again(lab_prompts: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    settings = ["--num-samples", "8", "--max-new-tokens", "64", "--model", str(LAB.model)]
    words = ["sample", str(lab_prompts), *settings, "--out", str(out), "--batch-samples", "4"]
    partial = tmp_path / "out.jsonl.partial"
    kill_when(words, tmp_path / "log", lambda: partial.exists() and partial.stat().st_size > 10_000)
    assert not out.exists()
    with open(partial, "rb+") as handle:  # Wherever the kill fell, cut the last line in its middle.
        handle.truncate(partial.stat().st_size - 25)
    drawn_before = partial.read_bytes().count(b"\n")
    options = {
        "prompts": lab_prompts,
        "num_samples": 8,
        "policy": LAB,
        "draw": SamplingOptions(max_new_tokens=64),
    }
    _run(Options(**options, out=out))  # type: ignore[arg-type]
    _run(Options(**options, out=whole))  # type: ignore[arg-type]
    assert 0 < drawn_before < 480
    assert out.read_bytes() == whole.read_bytes()
    assert len(_rows(out)) == 480


def test_columns_of_a_table_are_mapped_to_the_fields_of_a_prompt(tmp_path: Path) -> None:
    table = tmp_path / "problems.csv"
    table.write_text("question,solution\n3+4=,7\n5+1=,6\n", encoding="utf-8")
    out = tmp_path / "rollouts.jsonl"
    sample.run(
        Options(
            prompts=table,
            out=out,
            num_samples=2,
            column=("prompt=question", "answer=solution"),
            policy=GeneratorOptions(generator="fake"),
        )
    )
    rollouts = list(read_rollouts(out))
    assert [(rollout.prompt, rollout.answer) for rollout in rollouts] == [("3+4=", "7")] * 2 + [
        ("5+1=", "6")
    ] * 2
