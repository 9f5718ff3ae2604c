"""A generator and a scorer whose work is spread over a Ray cluster, behind the usual protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.pipelines.generator_options import GeneratorOptions, make_generator
from stepcredit.pipelines.scale_out import RowWorker, over_ray
from stepcredit.runs import Ledger
from stepcredit.scorers.options import ScorerOptions
from stepcredit.types import GenerationFailure, GenerationRequest, ResponseScore, Rollout, Sampling

if TYPE_CHECKING:
    from stepcredit.encoding import EncodingError

_PROMPTS_AT_ONCE = 16
_LEDGER = "ledger of a piece"


class SpreadGenerator:
    """Generates in each of a cluster's workers; a sample is drawn as it would be on one machine.

    Args:
        options: The policy.
        address: The cluster, or ``local``.
        folder: A folder that all machines share.
        num_gpus: GPUs that a worker needs.
    """

    def __init__(
        self, options: GeneratorOptions, *, address: str, folder: Path, num_gpus: float = 0.0
    ) -> None:
        self._options, self._address, self._folder, self._num_gpus = options, address, folder, num_gpus
        self.ledger = Ledger()

    @property
    def name(self) -> str:
        """The policy's name."""
        return self._options.name

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts and failures as the cluster finishes them."""
        from stepcredit.data import rollout_from_json

        for row in over_ray(
            map(_request_to_json, requests),
            partial(_generate_there, self._options),
            address=self._address,
            folder=self._folder,
            num_gpus=self._num_gpus,
            rows_at_once=_PROMPTS_AT_ONCE,
        ):
            if _LEDGER in row:
                self.ledger.add(row[_LEDGER])
            elif "reason" in row and "response" not in row:
                yield GenerationFailure(row["prompt_id"], tuple(row["indices"]), row["reason"])
            else:
                yield rollout_from_json(row)


def _request_to_json(request: GenerationRequest) -> dict[str, Any]:
    from stepcredit.data import prompt_to_json

    return {
        "prompt_id": request.prompt.id,
        "prompt": prompt_to_json(request.prompt),
        "indices": list(request.indices),
        "sampling": asdict(request.sampling),
        "response_prefix": request.response_prefix,
    }


def _request_from_json(row: dict[str, Any]) -> GenerationRequest:
    from stepcredit.data import prompt_from_json

    sampling = row["sampling"]
    return GenerationRequest(
        prompt=prompt_from_json(row["prompt"]),
        indices=tuple(row["indices"]),
        sampling=Sampling(**{**sampling, "stop": tuple(sampling["stop"])}),
        response_prefix=row["response_prefix"],
    )


def _generate_there(options: GeneratorOptions) -> RowWorker:
    """Made in each of the cluster's workers."""
    from stepcredit.data import rollout_to_json

    generator = make_generator(options)
    cost = _cost_of(generator)

    def work(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for result in generator.generate(map(_request_from_json, rows)):
            yield asdict(result) if isinstance(result, GenerationFailure) else rollout_to_json(result)
        yield {_LEDGER: cost()}

    return work


class SpreadScorer:
    """Scores in each of a cluster's workers.

    Args:
        options: The reward model and its conventions.
        steps: The step rule.
        with_tokens: Give token rewards too.
        address: The cluster, or ``local``.
        folder: A folder that all machines share.
        num_gpus: GPUs that a worker needs.

    Attributes:
        name: What produced the scores, known once there are some.
        ledger: Tokens scored so far.
    """

    def __init__(
        self,
        options: ScorerOptions,
        *,
        steps: str,
        with_tokens: bool,
        address: str,
        folder: Path,
        num_gpus: float = 0.0,
    ) -> None:
        self._make_worker = partial(_score_there, options, steps, with_tokens)
        self._address, self._folder, self._num_gpus = address, folder, num_gpus
        self.name = ""
        self.ledger = Ledger()

    def score_all(
        self, rollouts: Iterable[Rollout], *, on_skip: Callable[[EncodingError], None] | None = None
    ) -> Iterator[ResponseScore]:
        """Yield scores as the cluster finishes them.

        Raises:
            UserError: A rollout cannot be encoded and ``on_skip`` is not given.
        """
        from stepcredit.data import rollout_to_json, score_from_json
        from stepcredit.encoding import EncodingError

        for row in over_ray(
            map(rollout_to_json, rollouts),
            self._make_worker,
            address=self._address,
            folder=self._folder,
            num_gpus=self._num_gpus,
        ):
            if _LEDGER in row:
                self.ledger.add(row[_LEDGER])
                continue
            if "skipped" in row:
                error = EncodingError(row["skipped"], row["problem"], where=row["where"])
                if on_skip is None:
                    raise error
                on_skip(error)
                continue
            score = score_from_json(row)
            self.name = score.scorer
            yield score


def _score_there(options: ScorerOptions, steps: str, with_tokens: bool) -> RowWorker:
    """Made in each of the cluster's workers."""
    from stepcredit.data import rollout_from_json, score_to_json

    scorer = options.load_scorer(steps=steps, with_tokens=with_tokens)
    cost = _cost_of(scorer)

    def work(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        skipped: list[EncodingError] = []
        for score in scorer.score_all(map(rollout_from_json, rows), on_skip=skipped.append):
            yield score_to_json(score)
        for error in skipped:
            yield {"skipped": error.kind, "problem": error.problem, "where": error.where}
        yield {_LEDGER: cost()}

    return work


def _cost_of(worker: object) -> Callable[[], dict[str, Any]]:
    """What a worker's ledger gained since the last call."""
    before = Ledger()

    def cost() -> dict[str, Any]:
        nonlocal before
        now: Ledger = getattr(worker, "ledger", None) or Ledger()
        gained = Ledger(
            model_parameters=now.model_parameters,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            generated_tokens=now.generated_tokens - before.generated_tokens,
            scored_tokens=now.scored_tokens - before.scored_tokens,
        )
        before = Ledger()
        before.add(now.to_json())
        return gained.to_json()

    return cost
