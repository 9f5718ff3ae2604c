"""What ``stepcredit compare`` found: trials, accuracies and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of a method.

    Attributes:
        accuracy: Best-of-n accuracy on the development problems, by its best aggregate.
    """

    settings: Mapping[str, Any]
    directory: str
    accuracy: float
    aggregate: str
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class MethodCost:
    """Floating-point operations that a method needs, by the ledgers' formula.

    Attributes:
        collection: Sampling the training responses (shared by all methods).
        labelling: Labelling their steps, each distinct prefix once.
        labelling_unshared: The same without sharing prefixes.
        training: Training the chosen model, and those that it starts from.
        search: Training all its trials.
    """

    collection: float = 0.0
    labelling: float = 0.0
    labelling_unshared: float = 0.0
    training: float = 0.0
    search: float = 0.0

    @property
    def total(self) -> float:
        """Data and training of the chosen model."""
        return self.collection + self.labelling + self.training

    @property
    def total_unshared(self) -> float:
        """The same without sharing prefixes."""
        return self.collection + self.labelling_unshared + self.training


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What became of a method.

    Attributes:
        chosen: Which of them, from 0; ``None`` for methods without training.
        aggregate: The score that stands for it, chosen on the development problems.
        accuracy: n to (accuracy, low, high) on the test problems.
    """

    name: str
    trials: tuple[Trial, ...]
    chosen: int | None
    aggregate: str
    accuracy: Mapping[int, tuple[float, float, float]]
    cost: MethodCost


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The comparison.

    Attributes:
        methods: In the recipe's order.
        references: ``pass`` and ``majority``: n to (accuracy, low, high).
        comparisons: Paired differences between methods on the test problems.
        choose_at: Number of responses at which settings were compared.
    """

    out: Path
    methods: tuple[MethodResult, ...]
    references: Mapping[str, Mapping[int, tuple[float, float, float]]]
    comparisons: list[dict[str, Any]]
    budget: int
    choose_at: int

    def to_json(self) -> dict[str, Any]:
        """Everything, with totals and relative costs of the methods; a missing end of an interval is null."""
        from stepcredit.evaluation.results import plain

        content: dict[str, Any] = plain(asdict(self))
        content["out"] = str(self.out)
        unit = self.unit_cost
        for method, values in zip(self.methods, content["methods"], strict=True):
            values["cost"] |= {
                "total": method.cost.total,
                "total_unshared": method.cost.total_unshared,
                "relative": method.cost.total / unit if unit else None,
                "relative_unshared": method.cost.total_unshared / unit if unit else None,
            }
        return content

    @property
    def unit_cost(self) -> float:
        """Cost of the first trained method, which is the unit of the others."""
        return next((method.cost.total for method in self.methods if method.chosen is not None), 0.0)

    def to_text(self) -> str:
        """Accuracy and cost of each method."""
        sizes = sorted({n for method in self.methods for n in method.accuracy})
        width = max(len(name) for name in [*self.references, *(method.name for method in self.methods)])
        lines = [f"{'':<{width}}" + "".join(f"{f'@{n}':>8}" for n in sizes) + "      cost"]
        for name, accuracy in self.references.items():
            lines.append(f"{name:<{width}}" + _columns(accuracy, sizes))
        for method in self.methods:
            relative = (
                method.cost.total / self.unit_cost if self.unit_cost and method.chosen is not None else 0
            )
            cost = f"{relative:>9.2f}x" if relative else f"{'':>10}"
            lines.append(f"{method.name:<{width}}" + _columns(method.accuracy, sizes) + cost)
        lines.append(
            f"{self.budget} settings of each trained method compared at @{self.choose_at} on development"
        )
        return "\n".join([*lines, f"report: {self.out / 'report.html'}"])


def _columns(accuracy: Mapping[int, tuple[float, float, float]], sizes: list[int]) -> str:
    return "".join(f"{accuracy[n][0]:>8.3f}" if n in accuracy else f"{'':>8}" for n in sizes)
