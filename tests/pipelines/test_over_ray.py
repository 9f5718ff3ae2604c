from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import MissingExtraError, UserError
from stepcredit.generators.options import GeneratorOptions
from stepcredit.pipelines import sample, score
from stepcredit.pipelines.grade import Options, run
from stepcredit.runs import ResumableLines, read_manifest
from stepcredit.runs.cluster import over_ray

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra 'ray'")


def rollouts(path: Path, count: int, answer: str = "2") -> Path:
    rows = [
        {
            "id": f"p{number // 4}/{number % 4}",
            "prompt_id": f"p{number // 4}",
            "prompt": "1+1=",
            "response": "kill" if number == count // 2 + 1 else str(number % 3),
            "answer": None if number % 50 == 0 else answer,
            "correct": True if number % 70 == 1 else None,
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of this machine, which every test of the module uses."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        # By default its workers give way to everything else that runs, here to all other tests.
        patch.setenv("RAY_worker_niceness", "0")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


def read(path: Path) -> list[dict[str, Any]]:
    return sorted(
        map(json.loads, path.read_text(encoding="utf-8").splitlines()), key=lambda row: str(row["id"])
    )


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: None
) -> None:
    shutil.copy(Path(__file__).parent / "graders_for_ray.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    source = rollouts(tmp_path / "rollouts.jsonl", 1200)
    options = Options(
        rollouts=source,
        grader="python:graders_for_ray:killing_once",
        out=tmp_path / "over-ray.jsonl",
    )
    spread = run(replace(options, ray="local"))
    assert (tmp_path / "killed").exists()
    alone = run(replace(options, out=tmp_path / "alone.jsonl"))
    assert read(spread.out) == read(alone.out)
    assert spread.counts == alone.counts
    assert not list(tmp_path.glob(".*"))


@needs_ray
@pytest.mark.slow
def test_a_cluster_draws_the_samples_that_one_machine_draws(tmp_path: Path, cluster: None) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"p{number}", "prompt": f"{number}+1=", "answer": "2", "extra": [number]}
        for number in range(40)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = sample.Options(
        prompts=prompts,
        out=tmp_path / "over-ray.jsonl",
        num_samples=3,
        policy=GeneratorOptions(generator="fake"),
    )
    sample.run(replace(options, ray="local"))
    sample.run(replace(options, out=tmp_path / "alone.jsonl"))
    assert (tmp_path / "over-ray.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    spread, alone = (read_manifest(tmp_path / f"{name}.jsonl") or {} for name in ("over-ray", "alone"))
    assert spread["ledger"] == alone["ledger"]
    assert spread["counts"] == alone["counts"]


@needs_ray
@pytest.mark.slow
def test_a_cluster_gives_the_scores_that_one_machine_gives(
    tmp_path: Path, saved_pair: tuple[Path, Path], cluster: None
) -> None:
    source = rollouts(tmp_path / "rollouts.jsonl", 12)
    with open(source, "a", encoding="utf-8") as handle:
        handle.write(
            json.dumps({"id": "long", "prompt_id": "p", "prompt": "q", "response": "7 " * 5000}) + "\n"
        )
    options = score.Options(
        input=source,
        prm=str(saved_pair[0]),
        reference=str(saved_pair[1]),
        beta=0.3,
        out=tmp_path / "over-ray.jsonl",
        skip_invalid=True,
    )
    spread = score.run(replace(options, ray="local"))
    alone = score.run(replace(options, out=tmp_path / "alone.jsonl"))
    assert isinstance(spread, score.Result)
    assert isinstance(alone, score.Result)
    assert spread.counts == alone.counts == {"scored": 12, "too-long": 1}
    for row, expected in zip(read(spread.out), read(alone.out), strict=True):
        assert row["id"] == expected["id"]
        assert row["reward"] == pytest.approx(expected["reward"], abs=1e-6)
    manifests = [read_manifest(result.out) or {} for result in (spread, alone)]
    assert manifests[0]["scorer"] == manifests[1]["scorer"]
    assert manifests[0]["ledger"]["scored_tokens"] >= manifests[1]["ledger"]["scored_tokens"] > 0


@needs_ray
@pytest.mark.slow
def test_a_cluster_goes_on_with_the_pieces_that_are_missing(
    tmp_path: Path,
    saved_pair: tuple[Path, Path],
    cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy, reference = map(str, saved_pair)
    options = score.Options(
        input=rollouts(tmp_path / "rollouts.jsonl", 600),
        prm=policy,
        reference=reference,
        beta=0.3,
        out=tmp_path / "whole.jsonl",
        ray="local",
    )
    score.run(options)
    cut = replace(options, out=tmp_path / "cut.jsonl")
    append = ResumableLines.append

    def dying(self: ResumableLines, row: Any) -> None:
        if self.num_rows == 300:  # one piece is whole, and another one not
            raise KeyboardInterrupt
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableLines, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            score.run(cut)
    score.run(cut)
    assert read(tmp_path / "cut.jsonl") == read(tmp_path / "whole.jsonl")
    manifests = [read_manifest(tmp_path / f"{name}.jsonl") or {} for name in ("cut", "whole")]
    assert manifests[0]["ledger"] == manifests[1]["ledger"]
    assert manifests[0]["counts"] == manifests[1]["counts"] == {"scored": 600}


@needs_ray
@pytest.mark.slow
def test_a_partial_file_of_a_cluster_is_begun_anew_without_one(
    tmp_path: Path, saved_pair: tuple[Path, Path], cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, reference = map(str, saved_pair)
    options = score.Options(
        input=rollouts(tmp_path / "rollouts.jsonl", 12),
        prm=policy,
        reference=reference,
        beta=0.3,
        out=tmp_path / "scores.jsonl",
    )
    with monkeypatch.context() as patch:
        patch.setattr(ResumableLines, "commit", lambda *_, **__: sys.exit("killed"))
        with pytest.raises(SystemExit):
            score.run(replace(options, ray="local"))
    score.run(options)
    score.run(replace(options, out=tmp_path / "alone.jsonl"))
    assert (tmp_path / "scores.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


@needs_ray
@pytest.mark.slow
def test_a_mistake_that_shows_in_a_worker_is_told_in_one_line(tmp_path: Path, cluster: None) -> None:
    options = Options(
        rollouts=rollouts(tmp_path / "rollouts.jsonl", 8, answer="pear"),
        grader="numeric",
        out=tmp_path / "graded.jsonl",
        ray="local",
    )
    with pytest.raises(UserError, match=r"^the reference answer 'pear' is not a number"):
        run(options)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_an_error(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UserError, match="no Ray cluster can be reached"):
        list(over_ray([{"id": "a"}], list, address=address, beside=tmp_path / "out"))  # type: ignore[arg-type]


def test_without_ray_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepcredit\[ray\]'"):
        list(over_ray([{"id": "a"}], list, address="local", beside=tmp_path / "out"))  # type: ignore[arg-type]
