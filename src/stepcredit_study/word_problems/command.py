"""``stepcredit reproduce word-problems`` and ``gsm8k``: run the study, or go on, and say what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.data.sources import check_readable
from stepcredit_study.word_problems.page import page, publish
from stepcredit_study.word_problems.scale import WordScale
from stepcredit_study.word_problems.sources import Gsm8k, ProblemSource, Templates
from stepcredit_study.word_problems.study import RESULTS, run_study


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found so far."""

    out: Path
    results: dict[str, Any]

    def to_json(self) -> Any:
        """The results."""
        return {"out": str(self.out), **self.results}

    def to_text(self) -> str:
        """The page."""
        return f"{page(self.results)}\nresults: {self.out / RESULTS}"


def source_of(data: Path | None) -> ProblemSource:
    """GSM8K's files, or templates.

    Args:
        data: Folder of ``gsm8k_train.jsonl`` and ``gsm8k_test.jsonl``; without one templates.

    Raises:
        DataError: The folder lacks a file.
    """
    if data is None:
        return Templates()
    train, test = (check_readable(data / f"{Gsm8k.name}_{part}.jsonl") for part in ("train", "test"))
    return Gsm8k(train, test)


def reproduce(
    source: ProblemSource,
    model: str,
    out: Path,
    scale: WordScale,
    *,
    minutes: float | None,
    publish_to: Path | None,
) -> Result:
    """Run what is not there yet, as far as there is time, and write the page of what is.

    Args:
        out: Folder of all studies; this one's is named by its source.
        minutes: No stage begins after so long.
        publish_to: Also write page, results, learning curves and heat maps to a folder of its there.
    """
    folder = out / source.name
    study = run_study(source, model, folder, scale, minutes=minutes)
    publish(study, folder / "page")
    if publish_to is not None:
        publish(study, publish_to / source.name)
    return Result(out=folder, results=study.results())
