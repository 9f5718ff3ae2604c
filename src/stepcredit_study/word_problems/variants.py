"""CE and DPO on less data, on other data, and without the reference: the paper's findings 3 to 6 and 8.

Each variant is trained once, with the settings that were chosen for its method, and compared with the
method's first seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stepcredit_study.word_problems.scale import (
    FEW_PROBLEMS,
    FEW_RESPONSES,
    OTHER_KIND,
    OTHER_POLICY,
    REFERENCE_FREE,
    UNREFERENCED,
    WITHOUT,
)
from stepcredit_study.word_problems.world import WordWorld

QUARTER: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What differs from a method's usual model.

    Attributes:
        data: Training responses, where they are not the usual ones.
        scoring: Options of ``stepcredit score`` that differ.
        needs_base: Whether scoring names the reference, which a model trained without one does not.
    """

    data: Callable[[WordWorld], Path] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    scoring: Mapping[str, Any] = field(default_factory=dict)
    needs_base: bool = False

    def model(self, world: WordWorld, method: str, settings: Mapping[str, float]) -> Path:
        """The model, trained if it is not there."""
        data = None if self.data is None else self.data(world)
        return world.train(method, {**settings, **self.training}, data=data)

    def score(self, world: WordWorld, data: Path, model: Path) -> Path:
        """Its scores of some responses."""
        reference = {"reference": str(world.middle)} if self.needs_base else {}
        return world.score(data, model, **self.scoring, **reference)


VARIANTS: Final[Mapping[str, Variant]] = {
    FEW_PROBLEMS: Variant(data=lambda world: world.part_of_train_set(prompts=QUARTER)),
    FEW_RESPONSES: Variant(data=lambda world: world.part_of_train_set(responses=2)),
    UNREFERENCED: Variant(scoring={"reference_free": True}),
    REFERENCE_FREE: Variant(training={"reference_free": True}, needs_base=True),
    WITHOUT: Variant(training={"reference_free": True}, scoring={"reference_free": True}),
    OTHER_POLICY: Variant(data=lambda world: world.train_set_of_two_policies()),
    OTHER_KIND: Variant(data=lambda world: world.train_set_with_arithmetic()),
}
"""By name."""
