"""Formats by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepcredit.data.foreign import math_shepherd, step_benchmarks, training_sets, verl
from stepcredit.data.records import prompt_from_json, prompt_to_json, rollout_from_json, rollout_to_json
from stepcredit.errors import UserError
from stepcredit.types import Prompt, Rollout
from stepcredit.wording import suggestion

Reader = Callable[[Mapping[str, Any], str, int], Iterable[Any]]
Writer = Callable[[Iterable[Any], Counter[str]], Iterator[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFormat:
    """How rows of one format are read and written.

    Attributes:
        name: As the command line names it.
        make_reader: Makes a function of (row, place, position in the file) that yields records.
        write: Turns records into rows and counts what the format has no place for; ``None`` where the
            format is only read.
        id_field: The field that names a row (dots lead into objects), if its ids may repeat: those that do
            become ``{id}/{position}``.
        holds_prompts: The records are prompts, not rollouts.
    """

    name: str
    make_reader: Callable[[], Reader]
    write: Writer | None = None
    id_field: str | None = None
    holds_prompts: bool = False


def _read_prompt(row: Mapping[str, Any], where: str, position: int) -> Iterator[Prompt]:
    yield prompt_from_json(row, where, position)


def _read_rollout(row: Mapping[str, Any], where: str, position: int) -> Iterator[Rollout]:
    yield rollout_from_json(row, where, position)


def _write_prompts(records: Iterable[Prompt | Rollout], lost: Counter[str]) -> Iterator[dict[str, Any]]:
    """Prompts as they are; of rollouts, each prompt once."""
    seen: set[int] = set()
    for record in records:
        if isinstance(record, Prompt):
            yield prompt_to_json(record)
            continue
        lost["responses"] += 1
        if (name := hash(record.prompt_id)) not in seen:
            seen.add(name)
            yield prompt_to_json(Prompt(id=record.prompt_id, prompt=record.prompt, answer=record.answer))


def _write_rollouts(records: Iterable[Rollout], _lost: Counter[str]) -> Iterator[dict[str, Any]]:
    return map(rollout_to_json, records)


def _format(name: str, read: Reader, write: Writer | None = None, **settings: Any) -> ForeignFormat:
    return ForeignFormat(name=name, make_reader=lambda: read, write=write, **settings)


FORMATS = {
    form.name: form
    for form in (
        _format("prompts", _read_prompt, _write_prompts, holds_prompts=True),
        _format("rollouts", _read_rollout, _write_rollouts),
        _format("ultrainteract", training_sets.read_ultrainteract),
        _format("trl-preference", training_sets.read_trl_preference, training_sets.write_trl_preference),
        _format("trl-unpaired", training_sets.read_trl_unpaired, training_sets.write_trl_unpaired),
        _format("trl-stepwise", training_sets.read_trl_stepwise, training_sets.write_trl_stepwise),
        _format(
            "openrlhf-ce", training_sets.read_openrlhf_ce, training_sets.write_openrlhf_ce, id_field="id"
        ),
        _format("ultrafeedback", training_sets.read_ultrafeedback),
        _format("verl", verl.read_verl, verl.write_verl, id_field="extra_info.index", holds_prompts=True),
        _format("prm800k", step_benchmarks.read_prm800k),
        _format("math-shepherd", math_shepherd.read_math_shepherd, math_shepherd.write_math_shepherd),
        _format("processbench", step_benchmarks.read_processbench, id_field="id"),
        _format("prmbench", step_benchmarks.read_prmbench, id_field="idx"),
        _format("bigbench-mistake", step_benchmarks.read_bigbench_mistake),
        ForeignFormat(name="implicitprm-bon", make_reader=step_benchmarks.BestOfNReader, id_field="idx"),
    )
}

ROLLOUT_FORMATS = ", ".join(name for name, form in FORMATS.items() if not form.holds_prompts)
"""For the help of options that name a format of rollouts."""


def named_format(name: str, *, to_write: bool = False) -> ForeignFormat:
    """The format of that name.

    Raises:
        UserError: There is none, or it cannot be written.
    """
    form = FORMATS.get(name)
    if form is None:
        raise UserError(f"there is no format {name!r}", hint=suggestion(name, FORMATS))
    if to_write and form.write is None:
        writable = ", ".join(other.name for other in FORMATS.values() if other.write is not None)
        raise UserError(f"the format {name!r} is only read", where="--to", hint=f"use one of {writable}")
    return form
