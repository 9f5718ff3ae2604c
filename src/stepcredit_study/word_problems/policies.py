"""Three strengths of one policy: three lengths of one run of fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.pipelines.driver import Store
from stepcredit_study.frame.measuring import share_right
from stepcredit_study.word_problems import fine_tuning
from stepcredit_study.word_problems.scale import WordScale
from stepcredit_study.word_problems.sources import ProblemSource
from stepcredit_study.word_problems.world import WordWorld


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of fine-tuning, in steps.

    Attributes:
        weak: The longest that was kept of at most half of the middle one; else the shortest.
        middle: The first one with a pass@1 of at least the scale's; the longest where none has.
        strong: The longest.
        pass_at_1: Of each length that was measured, on development problems.
    """

    weak: int
    middle: int
    strong: int
    pass_at_1: Mapping[int, float]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        by_length = {str(length): value for length, value in self.pass_at_1.items()}
        return asdict(self) | {"pass_at_1": by_length}


def find_middle(
    source: ProblemSource,
    model: Path,
    out: Path,
    store: Store,
    scale: WordScale,
    go_on: Callable[[], bool],
) -> Lengths | None:
    """Fine-tune until a length is strong enough to be the middle one.

    Args:
        store: Keeps the responses that pass@1 is measured on.

    Returns:
        The lengths, or ``None`` where time ran out before.

    Raises:
        UserError: The source has too few worked solutions for the scale's steps, the strong policy's length,
            or no length could be measured.
    """
    _check_worked(source, scale)
    measured: dict[int, float] = {}
    lengths = range(scale.measured_every, scale.steps + 1, scale.measured_every)
    for length in lengths:
        if not go_on():
            return None
        if not tune(source, model, out, scale, length):
            continue
        world = WordWorld(source, scale, store, {"middle": policy_at(out, length)})
        measured[length] = share_right(world.dev_set())
        if measured[length] >= scale.least_pass:
            break
    if not measured:
        raise UserError(
            f"the fine-tuning is longer than {scale.steps} steps, and saved no checkpoint in between",
            where=out,
            hint="pass --size steps=N with more steps, or another --size measured_every=N",
        )
    middle = max(measured)
    saved = sorted(int(path.name.removeprefix("step-")) for path in out.glob("step-*"))
    return Lengths(
        weak=max((other for other in saved if other <= middle / 2), default=saved[0]),
        middle=middle,
        strong=lengths[-1],
        pass_at_1=measured,
    )


def _check_worked(source: ProblemSource, scale: WordScale) -> None:
    """Refuse a fine-tuning that would end early, so that its longest policies would be missing."""
    worked, needed = source.num_worked, scale.steps * fine_tuning.Recipe().solutions
    if worked is not None and worked < needed:
        raise UserError(
            f"{scale.steps} steps of fine-tuning take {needed:,} worked solutions, and {source.name} leaves "
            f"{worked:,}",
            where="--size steps",
            hint=f"pass at most {worked // fine_tuning.Recipe().solutions} steps",
        )


def tune(source: ProblemSource, model: Path, out: Path, scale: WordScale, length: int) -> bool:
    """Make the policy of a length, if it is not there.

    Returns:
        Whether it is there now: a run that was longer already may not have kept it.
    """
    if not policy_at(out, length).exists():
        recipe, every = fine_tuning.Recipe(), scale.measured_every
        fine_tuning.run(model, out, recipe, steps=length, policy_every=every, source=source)
    return policy_at(out, length).exists()


def policy_at(out: Path, length: int) -> Path:
    """Where the policy of a length lies."""
    return out / f"step-{length:06d}"
