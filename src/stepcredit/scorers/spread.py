"""A scorer whose work is spread over a Ray cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit.data import rollout_from_json, rollout_to_json, score_from_json, score_to_json
from stepcredit.encoding import EncodingError
from stepcredit.runs import Ledger
from stepcredit.runs.cluster import LEDGER, RowWorker, cost_of, over_ray
from stepcredit.scorers.options import ScorerOptions
from stepcredit.types import ResponseScore, Rollout


class SpreadScorer:
    """Scores in each of a cluster's workers.

    Attributes:
        name: What produced the scores, known once there are some.
        ledger: Tokens scored so far.
        window: ``None``: how many responses are scored together is up to :func:`over_ray`.
    """

    window: None = None

    def __init__(
        self,
        options: ScorerOptions,
        *,
        steps: str,
        with_tokens: bool,
        address: str,
        beside: Path,
        num_gpus: float = 0.0,
    ) -> None:
        self._make_worker = partial(_score_there, options, steps, with_tokens)
        self._address, self._beside, self._num_gpus = address, beside, num_gpus
        self.name = ""
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()

    def score_pieces(
        self,
        rollouts: Iterable[Rollout],
        *,
        done: Container[int] = frozenset(),
        on_skip: Callable[[EncodingError], None] | None = None,
    ) -> Iterator[tuple[int, Iterator[ResponseScore]]]:
        """Yield number and scores of each piece as the cluster finishes it.

        Args:
            rollouts: All of them, whatever is done: pieces are the same in every run.

        Raises:
            UserError: A rollout cannot be encoded and ``on_skip`` is not given.
        """
        pieces = over_ray(
            map(rollout_to_json, rollouts),
            self._make_worker,
            address=self._address,
            beside=self._beside,
            num_gpus=self._num_gpus,
            done=done,
        )
        for number, piece in pieces:
            scores = []
            for row in piece:
                if LEDGER in row:
                    self.ledger.add(row[LEDGER])
                    self.counts.update(row.get("counts", {}))
                elif "skipped" in row:
                    error = EncodingError(row["skipped"], row["problem"], where=row["where"])
                    if on_skip is None:
                        raise error
                    on_skip(error)
                else:
                    scores.append(score_from_json(row))
            self.name = scores[-1].scorer if scores else self.name
            yield number, iter(scores)


def _score_there(options: ScorerOptions, steps: str, with_tokens: bool) -> RowWorker:
    """Made in each of the cluster's workers."""
    scorer = options.load_scorer(steps=steps, with_tokens=with_tokens)
    cost = cost_of(scorer)

    def work(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        skipped: list[EncodingError] = []
        scorer.counts.clear()
        for score in scorer.score_all(map(rollout_from_json, rows), on_skip=skipped.append):
            yield score_to_json(score)
        for error in skipped:
            yield {"skipped": error.kind, "problem": error.problem, "where": error.where}
        yield {LEDGER: cost(), "counts": dict(scorer.counts)}

    return work
