"""The structure of a demo's ``summary.json``: what ``stepcredit demo`` writes and its report reads.

Each class below is one JSON object, each field one key. A field with a default may be left out (or be
null): the report then says that the number is absent. Keys that are not named here are ignored.
:func:`read_summary` checks a file; :func:`summary_to_json` turns objects into what is written.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from stepcredit.errors import DataError
from stepcredit.reports.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One cell of the best-of-n table, as ``eval best-of-n --json`` prints it.

    Attributes:
        method: ``pass`` (any of n right; at n = 1 the accuracy of one response), ``majority``,
            ``best-of-n`` or ``weighted-<kind>``.
        n: Responses chosen from.
        accuracy: Share of problems answered right, in [0, 1].
        low: Lower end of the 95% interval.
        high: Upper end of the 95% interval.
        scorer: For ``best-of-n`` and ``weighted-*``: ``implicit-prm``, ``reference-log-probability``,
            or any other name, which is shown as it is.
        aggregate: ``min``, ``last``, ``mean``, ``sum``, ``product`` or ``reward``.
    """

    method: str
    n: int
    accuracy: float
    low: float | None = None
    high: float | None = None
    scorer: str | None = None
    aggregate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A paired comparison of two methods at one n.

    Attributes:
        n: Responses chosen from.
        first: Method, and scorer and aggregate if any, joined by a slash:
            ``best-of-n/implicit-prm/min``.
        second: Likewise, e.g. ``majority``.
        difference: Accuracy of the first less that of the second, in [-1, 1].
        low: Lower end of the 95% interval.
        high: Upper end of the 95% interval.
    """

    n: int
    first: str
    second: str
    difference: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRewardHistogram:
    """How rewards of right steps (before any error) and of first wrong steps are distributed.

    Attributes:
        edges: Edges of the bins in rising order, one more than there are bins (nats times beta).
        right: Number of right steps in each bin.
        first_wrong: Number of first wrong steps in each bin.
    """

    edges: tuple[float, ...]
    right: tuple[int, ...]
    first_wrong: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """Whether step rewards find the first wrong step, judged by the rule oracle.

    Attributes:
        auc: Area under the ROC curve of step reward, first wrong steps against right steps before any
            error; 1 is perfect, 0.5 is chance.
        auc_low: Lower end of its 95% interval.
        auc_high: Upper end of its 95% interval.
        lowest_is_first_wrong: Share of responses with a wrong step whose lowest reward is at the first
            wrong step.
        lowest_is_first_wrong_low: Lower end of its 95% interval.
        lowest_is_first_wrong_high: Upper end of its 95% interval.
        minimum_is_last: Share of responses whose lowest reward is at the last step.
        minimum_is_last_low: Lower end of its 95% interval.
        minimum_is_last_high: Upper end of its 95% interval.
        reference_auc: The AUC of the reference model's step log-probability on the same steps.
        reference_auc_low: Lower end of its 95% interval.
        reference_auc_high: Upper end of its 95% interval.
        num_right_steps: Right steps before any error.
        num_first_wrong_steps: First wrong steps, which is responses with a wrong step.
        histogram: Distribution of the rewards.
    """

    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    lowest_is_first_wrong: float | None = None
    lowest_is_first_wrong_low: float | None = None
    lowest_is_first_wrong_high: float | None = None
    minimum_is_last: float | None = None
    minimum_is_last_low: float | None = None
    minimum_is_last_high: float | None = None
    reference_auc: float | None = None
    reference_auc_low: float | None = None
    reference_auc_high: float | None = None
    num_right_steps: int | None = None
    num_first_wrong_steps: int | None = None
    histogram: StepRewardHistogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """What was measured on the responses of one policy.

    Attributes:
        num_problems: Held-out problems.
        num_responses: Responses to each problem.
        distinct_mean: Mean number of different responses to a problem.
        results: Best-of-n table.
        differences: Paired comparisons.
        localisation: Step localisation.
    """

    num_problems: int | None = None
    num_responses: int | None = None
    distinct_mean: float | None = None
    results: tuple[Accuracy, ...] = ()
    differences: tuple[Difference, ...] = ()
    localisation: Localisation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSummary:
    """How the reward model was trained.

    Attributes:
        log: Training log, relative to ``summary.json``; see :func:`stepcredit.reports.training.read_log`.
        num_problems: Training problems.
        num_responses: Graded responses trained on.
        correct_share: Share of them with the right final answer.
    """

    log: str = "prm/train_log.jsonl"
    num_problems: int | None = None
    num_responses: int | None = None
    correct_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """The whole file.

    Attributes:
        seed: The run's seed.
        policies: Policy name (``weak``, ``mid``, ``strong``) to what was measured on it.
        settings: Everything that was chosen, by stage: ``{"train": {"beta": 0.5, ...}, ...}``; values
            that are not objects are shown as settings of the whole run.
        training: How the reward model was trained.
        examples: Worked examples, in the order in which they are shown.
        commands: The commands that do the same by hand, one a line.
        versions: Package name to version.
        seconds: Stage to wall-clock seconds.
        files: Path in the demo's directory to one line on what it holds, in the order of the stages.
        git_commit: Commit of the checkout, if it ran from one.
        finished: When the run ended, ISO 8601 in UTC.
    """

    seed: int
    policies: Mapping[str, PolicySummary]
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingSummary | None = None
    examples: tuple[Example, ...] = ()
    commands: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    finished: str | None = None


def read_summary(path: str | Path) -> DemoSummary:
    """Read and check a ``summary.json``.

    Raises:
        DataError: The file is missing, is not JSON, or a field has the wrong type; the message names it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            "cannot be read", where=path, hint="name a directory that `stepcredit demo` wrote"
        ) from error
    except ValueError as error:
        raise DataError(f"is not JSON ({error})", where=path, hint="run `stepcredit demo` again") from error
    return parse_record(DemoSummary, content, where=str(path))


def summary_to_json(summary: DemoSummary) -> dict[str, Any]:
    """The summary as JSON-able values, with every key."""
    return dataclasses.asdict(summary)


Record = TypeVar("Record")


def parse_record(record: type[Record], content: Any, *, where: str) -> Record:
    """Make a dataclass of JSON values, checking every field's type.

    Args:
        record: A dataclass of numbers, strings, tuples, mappings and other such dataclasses.
        content: What JSON gave for it.
        where: Named in errors, with the path of the field.

    Raises:
        DataError: A field is missing or has the wrong type.
    """
    if not isinstance(content, dict):
        raise DataError(f"should be an object, is {type(content).__name__}", where=where)
    hints = typing.get_type_hints(record)
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(typing.cast(Any, record)):
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if content.get(entry.name) is None:
            if required:
                raise DataError(f"lacks {entry.name!r}", where=where)
            continue
        values[entry.name] = _parse(hints[entry.name], content[entry.name], f"{where}: {entry.name}")
    return record(**values)


def _parse(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind``; optional types, tuples, mappings, nested records and scalars are known."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        members = [member for member in arguments if member is not type(None)]
        return None if value is None else _parse(members[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DataError(f"should be a list, is {type(value).__name__}", where=where)
        return tuple(_parse(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise DataError(f"should be an object, is {type(value).__name__}", where=where)
        return {str(key): _parse(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return parse_record(typing.cast(Any, kind), value, where=where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"should be {kind.__name__}, is {value!r:.80}", where=where)
    return value
