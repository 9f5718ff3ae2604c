"""A generator whose work is spread over a Ray cluster, behind the usual protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit.data import prompt_from_json, prompt_to_json, rollout_from_json, rollout_to_json
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.runs import Ledger
from stepcredit.runs.cluster import LEDGER, RowWorker, cost_of, over_ray
from stepcredit.types import GenerationFailure, GenerationRequest, Rollout, Sampling

_PROMPTS_AT_ONCE = 16


class SpreadGenerator:
    """Generates in each of a cluster's workers; a sample is drawn as it would be on one machine.

    Args:
        address: The cluster, or ``local``.
        beside: The output; its folder is one that all machines share.
    """

    def __init__(
        self, options: GeneratorOptions, *, address: str, beside: Path, num_gpus: float = 0.0
    ) -> None:
        self._options, self._address, self._beside, self._num_gpus = options, address, beside, num_gpus
        self.name = options.name
        self.ledger = Ledger()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts and failures as the cluster finishes them."""
        pieces = over_ray(
            map(_request_to_json, requests),
            partial(_generate_there, self._options),
            address=self._address,
            beside=self._beside,
            num_gpus=self._num_gpus,
            rows_at_once=_PROMPTS_AT_ONCE,
        )
        for _, piece in pieces:
            for row in piece:
                if LEDGER in row:
                    self.ledger.add(row[LEDGER])
                elif "reason" in row and "response" not in row:
                    yield GenerationFailure(row["prompt_id"], tuple(row["indices"]), row["reason"])
                else:
                    yield rollout_from_json(row)


def _request_to_json(request: GenerationRequest) -> dict[str, Any]:
    return {
        "prompt_id": request.prompt.id,
        "prompt": prompt_to_json(request.prompt),
        "indices": list(request.indices),
        "sampling": asdict(request.sampling),
        "response_prefix": request.response_prefix,
        "response_prefix_ids": request.response_prefix_ids,
    }


def _request_from_json(row: dict[str, Any]) -> GenerationRequest:
    sampling, prefix_ids = row["sampling"], row["response_prefix_ids"]
    return GenerationRequest(
        prompt=prompt_from_json(row["prompt"]),
        indices=tuple(row["indices"]),
        sampling=Sampling(**{**sampling, "stop": tuple(sampling["stop"])}),
        response_prefix=row["response_prefix"],
        response_prefix_ids=None if prefix_ids is None else tuple(prefix_ids),
    )


def _generate_there(options: GeneratorOptions) -> RowWorker:
    """Made in each of the cluster's workers."""
    generator = make_generator(options)
    cost = cost_of(generator)

    def work(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for result in generator.generate(map(_request_from_json, rows)):
            yield asdict(result) if isinstance(result, GenerationFailure) else rollout_to_json(result)
        yield {LEDGER: cost()}

    return work
