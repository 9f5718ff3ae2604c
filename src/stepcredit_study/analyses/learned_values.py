"""Learned values of response prefixes beside the exact ones of the lab."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stepcredit.evaluation.labelled_steps import step_probabilities
from stepcredit.evaluation.score_columns import ScoreColumns
from stepcredit.lab.second.tutor import SecondTutor
from stepcredit.lab.task import ANSWER_MARK, parse_problem
from stepcredit.lab.tutor import Tutor
from stepcredit.lab.values import step_values
from stepcredit.stats import reliability, spearman
from stepcredit.types import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedValues:
    """Distinct prefixes that end with a step.

    Attributes:
        problem: Which problem each belongs to.
        step: Steps that are done, from 1.
        ended: The answer is stated.
        learned: What a model says of the prefix, as a probability: the sigmoid of an implicit value q_t.
        exact: The probability that a tutor who goes on from it answers right.
    """

    problem: Int[np.ndarray, " prefixes"]
    step: Int[np.ndarray, " prefixes"]
    ended: Bool[np.ndarray, " prefixes"]
    learned: Float[np.ndarray, " prefixes"]
    exact: Float[np.ndarray, " prefixes"]

    def where(self, mask: Bool[np.ndarray, " prefixes"]) -> LearnedValues:
        """The prefixes where ``mask`` is true."""
        fields = ("problem", "step", "ended", "learned", "exact")
        return LearnedValues(**{name: getattr(self, name)[mask] for name in fields})

    def at(self, position: str) -> LearnedValues:
        """Prefixes of so many steps without an answer (``"1"``, ``"2"``, ...), or ``"answer"``."""
        return self.where(self.ended if position == "answer" else ~self.ended & (self.step == int(position)))

    def rank_correlation(self) -> float:
        """Spearman's correlation of learned and exact values within a problem, mean over the problems.

        NaN where no problem has prefixes of different values.
        """
        correlations = [spearman(part.learned, part.exact) for part in self._by(self.problem)]
        known = [value for value in correlations if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")

    def order(self) -> float:
        """Goodman and Kruskal's gamma within problems: pairs in the right order minus pairs in the wrong one.

        Only pairs of equally long prefixes of one problem with different exact values count; NaN where
        there is none.
        """
        right = wrong = 0
        for part in self._by(self.problem * (int(self.step.max(initial=0)) + 1) + self.step):
            learned = np.sign(part.learned[:, None] - part.learned)
            exact = np.sign(part.exact[:, None] - part.exact)
            right += int((learned * exact > 0).sum())
            wrong += int((learned * exact < 0).sum())
        return (right - wrong) / (right + wrong) if right + wrong else float("nan")

    def calibration_error(self) -> float:
        """Expected calibration error: distance of mean learned and mean exact value in a bin, over the bins.

        Ten equal bins of [0, 1] hold the learned values; each weighs as much as it holds.
        """
        return reliability(self.learned, self.exact).error

    def distance(self) -> float:
        """Mean absolute difference from the exact values."""
        return float(np.abs(self.learned - self.exact).mean())

    def numbers(self, key: str, positions: Sequence[str]) -> dict[str, float]:
        """Closeness by name, without what a small sample lacks the prefixes for.

        Returns:
            ``KEY/rank-correlation``, ``KEY/calibration-error``, and for each position ``KEY/order/POSITION``,
            ``KEY/calibration-error/POSITION`` and ``KEY/distance/POSITION``.
        """
        measured = {
            f"{key}/rank-correlation": self.rank_correlation(),
            f"{key}/calibration-error": self.calibration_error(),
        }
        for position in positions:
            part = self.at(position)
            if len(part.learned):
                measured[f"{key}/order/{position}"] = part.order()
                measured[f"{key}/calibration-error/{position}"] = part.calibration_error()
                measured[f"{key}/distance/{position}"] = part.distance()
        return {name: value for name, value in measured.items() if np.isfinite(value)}

    def _by(self, key: Int[np.ndarray, " prefixes"]) -> Iterator[LearnedValues]:
        for value in np.unique(key):
            yield self.where(key == value)


def of_scores(
    rollouts: Iterable[Rollout], columns: ScoreColumns, tutor: Tutor | SecondTutor
) -> LearnedValues:
    """Values of a score file beside a tutor's exact ones."""
    places = {identifier: row for row, identifier in enumerate(columns.ids)}

    def values(rollout: Rollout) -> Sequence[float]:
        return columns.step_values[columns.steps_of(places[rollout.id])].tolist()  # type: ignore[no-any-return]

    return _beside_exact(rollouts, values, tutor)


def of_labels(rollouts: Iterable[Rollout], tutor: Tutor | SecondTutor) -> LearnedValues:
    """Step labels, such as Monte-Carlo estimates, beside a tutor's exact values."""
    return _beside_exact(
        rollouts, lambda rollout: [label.label for label in rollout.step_labels or ()], tutor
    )


def _beside_exact(
    rollouts: Iterable[Rollout], values: Callable[[Rollout], Sequence[float]], tutor: Tutor | SecondTutor
) -> LearnedValues:
    problems: dict[str, int] = {}
    seen: set[tuple[int, str]] = set()
    rows: list[tuple[int, int, bool, float, float]] = []
    for rollout in rollouts:
        problem = problems.setdefault(rollout.prompt_id, len(problems))
        exact = step_values(tutor, parse_problem(rollout.prompt), rollout.response)
        lines = rollout.response.splitlines(keepends=True)
        text = ""
        for step, (line, value, truth) in enumerate(zip(lines, values(rollout), exact, strict=False), 1):
            text += line
            if np.isnan(truth) or (problem, text) in seen:
                continue
            seen.add((problem, text))
            rows.append((problem, step, line.startswith(ANSWER_MARK), value, float(truth)))
    columns = list(zip(*rows, strict=True))
    return LearnedValues(
        problem=np.array(columns[0]),
        step=np.array(columns[1]),
        ended=np.array(columns[2]),
        learned=step_probabilities(np.array(columns[3])),
        exact=np.array(columns[4]),
    )
