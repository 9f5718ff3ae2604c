"""``stepcredit reproduce word-problems``: runs the study, or goes on with it, and says what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit_study.word_problems.page import page, publish
from stepcredit_study.word_problems.scale import WordScale
from stepcredit_study.word_problems.study import RESULTS, run_study


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was found so far.

    Attributes:
        out: The study's folder.
        results: As in its file of results.
    """

    out: Path
    results: dict[str, Any]

    def to_json(self) -> Any:
        """The results."""
        return {"out": str(self.out), **self.results}

    def to_text(self) -> str:
        """The page."""
        return f"{page(self.results)}\nresults: {self.out / RESULTS}"


def reproduce_word_problems(
    model: str, out: Path, scale: WordScale, *, minutes: float | None, publish_to: Path | None
) -> Result:
    """Run what is not there yet, as far as there is time, and write the page of what is.

    Args:
        model: Initial weights of the policies.
        out: Folder of everything that is made.
        scale: Sizes.
        minutes: No stage begins after so long.
        publish_to: Also write page, results, learning curves and heat maps to its ``word-problems``.
    """
    study = run_study(model, out, scale, minutes=minutes)
    for folder in (out / "page", None if publish_to is None else publish_to / "word-problems"):
        if folder is not None:
            publish(study, folder)
    return Result(out=out, results=study.results())
