"""Step-labelled data by name, each part with what scorers say of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stepcredit.data.formats import read_rollouts_as
from stepcredit.errors import DataError, UserError
from stepcredit.evaluation.labelled_steps import LabelledSteps, join_labels, on_one_scale
from stepcredit.evaluation.results import plain
from stepcredit.evaluation.score_columns import ScoreColumns, lacks_scores, read_many_score_columns
from stepcredit.evaluation.step_failures import diagnose_steps
from stepcredit.types import Rollout

_NOT_SHARED = "responses that another scorer lacks"


@dataclass(frozen=True, slots=True)
class LabelledPart:
    """A part of the data.

    Attributes:
        steps: Scorer to the labelled steps with its scores.
    """

    name: str
    rollouts: Sequence[Rollout]
    scores: Mapping[str, ScoreColumns]
    steps: Mapping[str, LabelledSteps]

    def diagnostics(self) -> dict[str, Any]:
        """What else the rewards follow and where they fail, ``PART/SCORER`` to JSON-able values."""
        return {
            f"{self.name}/{scorer}": plain(diagnose_steps(self.rollouts, self.scores[scorer], steps))
            for scorer, steps in self.steps.items()
        }


@dataclass(frozen=True, slots=True)
class LabelledParts:
    """Labelled and scored data.

    Attributes:
        development: Each scorer's steps of the data that thresholds are tuned on, if there is any.
        development_source: Where that is from.
        excluded: What was left out on the way, by reason.
    """

    reported: tuple[LabelledPart, ...]
    development: Mapping[str, LabelledSteps] = field(default_factory=dict)
    development_source: str = ""
    excluded: Mapping[str, int] = field(default_factory=dict)

    def left_out(self) -> dict[str, int]:
        """What was left out, also where labels and scores were joined."""
        joined = {
            f"{reason} ({part.name}, {scorer})": count
            for part in self.reported
            for scorer, steps in part.steps.items()
            for reason, count in steps.excluded.items()
        }
        return {**self.excluded, **joined}

    def on_one_scale(self) -> LabelledParts:
        """The same, each scorer's scores read as logits or as probabilities in all parts alike.

        A threshold tuned on one part would else be applied to another scale.
        """
        reported: list[dict[str, LabelledSteps]] = [dict(part.steps) for part in self.reported]
        development = dict(self.development)
        for scorer in {scorer: None for steps in (*reported, development) for scorer in steps}:
            holders = [steps for steps in (*reported, development) if scorer in steps]
            for steps, scaled in zip(holders, on_one_scale([s[scorer] for s in holders]), strict=True):
                steps[scorer] = scaled
        parts = (replace(part, steps=steps) for part, steps in zip(self.reported, reported, strict=True))
        return replace(self, reported=tuple(parts), development=development)


def named_sources(data: Sequence[str]) -> dict[str, str]:
    """Split ``[NAME=]SOURCE``; a bare source is named by its file or its data set's split.

    Raises:
        UserError: A name appears twice, or is missing.
    """
    if not data:
        raise UserError("DATA is missing", hint="name at least one file or hub:DATASET[:SPLIT]")
    sources: dict[str, str] = {}
    for text in data:
        name, separator, source = text.partition("=")
        if not separator or "/" in name:
            name, source = Path(text).name.split(".")[0].split(":")[-1], text
        if name in sources:
            raise UserError(f"the name {name!r} appears twice", where="DATA", hint="write NAME=FILE")
        if not name or not source:
            raise UserError(f"{text!r} is not [NAME=]FILE", where="DATA")
        sources[name] = source
    return sources


def read_labelled(
    sources: Mapping[str, str], format_name: str, *, skip_invalid: bool
) -> tuple[dict[str, list[Rollout]], dict[str, int]]:
    """Read the rollouts of each source.

    Returns:
        Them by name, and what was left out, by reason.

    Raises:
        DataError: A source cannot be read, holds nothing, or nothing with step labels.
    """
    excluded: dict[str, int] = {}
    data = {}
    for name, source in sources.items():
        records = read_rollouts_as(source, format_name, skip_invalid=skip_invalid)
        data[name] = list(records)
        if records.num_skipped:
            excluded[f"invalid rows of {name}"] = records.num_skipped
        if not data[name]:
            raise DataError("holds no rows", where=source)
        if not any(rollout.step_labels for rollout in data[name]):
            raise DataError(
                "no response has step labels",
                where=source,
                hint="name data with labels for steps, and its format with --format",
            )
    return data, excluded


def score_files(scores: Sequence[str], parts: Sequence[str]) -> Iterator[tuple[str, list[str], Path]]:
    """Split ``SCORER[/PART]=FILE`` into the scorer, the parts that the file covers, and the file.

    Raises:
        UserError: One is malformed, or names a part that is not there.
    """
    for text in scores:
        name, separator, path = text.partition("=")
        scorer, _, part = name.partition("/")
        if not separator or not scorer or not path:
            raise UserError(f"{text!r} is not SCORER=FILE", where="--scores")
        if part and part not in parts:
            raise UserError(
                f"there is no data named {part!r}", where="--scores", hint=f"use {', '.join(parts)}"
            )
        yield scorer, [part] if part else list(parts), Path(path)


def read_scores(
    scores: Sequence[str], parts: Sequence[str], *, skip_invalid: bool
) -> dict[str, dict[str, ScoreColumns]]:
    """Read score files: part to scorer to scores.

    Raises:
        UserError: Names do not fit, or are there twice.
        DataError: A file cannot be read.
    """
    named = list(score_files(scores, parts))
    columns = read_many_score_columns([path for *_, path in named], skip_invalid=skip_invalid)
    by_part: dict[str, dict[str, ScoreColumns]] = {part: {} for part in parts}
    for (scorer, covered, path), content in zip(named, columns, strict=True):
        for part in covered:
            if scorer in by_part[part]:
                raise UserError(
                    f"the scores of {scorer!r} for {part!r} are given twice ({path})",
                    where="--scores",
                    hint="write SCORER/NAME=FILE, one for each part of the data",
                )
            by_part[part][scorer] = content
    return by_part


def labelled_part(
    name: str, rollouts: Sequence[Rollout], scores: Mapping[str, ScoreColumns], *, skip_invalid: bool = False
) -> LabelledPart:
    """Join the labels of a part with its scores, and keep the responses that every scorer has.

    Args:
        skip_invalid: Leave out, and count, responses that some scorer does not score, instead of raising.

    Raises:
        DataError: Scores are missing, or nothing can be evaluated.
    """
    labelled = [rollout.id for rollout in rollouts if rollout.step_labels]
    for columns in scores.values():
        scored = {*columns.ids}
        missing = [identifier for identifier in labelled if identifier not in scored]
        # Without any, joining says so.
        if len(missing) < len(labelled) and missing and not skip_invalid:
            raise lacks_scores(missing, name, columns)
    steps = {
        scorer: join_labels(rollouts, columns, source=f"{name} by {scorer}")
        for scorer, columns in scores.items()
    }
    return LabelledPart(name, rollouts, scores, _common(steps, name))


def _common(steps: Mapping[str, LabelledSteps], source: str) -> dict[str, LabelledSteps]:
    """The responses that all scorers have, so that figures of the same part are of the same responses."""
    if not steps:
        return {}
    shared = set.intersection(*({*scored.ids} for scored in steps.values()))
    if not shared:
        raise DataError(
            "no response can be evaluated for every scorer",
            where=source,
            hint="pass scores of the same responses, or evaluate the scorers one by one",
        )
    common = {}
    for scorer, scored in steps.items():
        kept = np.array([identifier in shared for identifier in scored.ids])
        excluded = {**scored.excluded, _NOT_SHARED: int((~kept).sum())}
        common[scorer] = scored if kept.all() else replace(scored.select(kept), excluded=excluded)
    return common
