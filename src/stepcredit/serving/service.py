"""The models behind one server: which one is meant, and scoring within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from stepcredit.encoding import EncodingError
from stepcredit.errors import UserError
from stepcredit.serving.batching import Batcher, QueueFullError
from stepcredit.serving.errors import RequestError
from stepcredit.serving.metrics import Metrics
from stepcredit.serving.options import ServerOptions
from stepcredit.types import ResponseScore, Rollout


class Service:
    """The models behind one server, each with its own batches.

    Args:
        batchers: By the model's name; the first is the default.
    """

    def __init__(self, batchers: Mapping[str, Batcher], options: ServerOptions) -> None:
        self.batchers, self.options = dict(batchers), options
        self.metrics = Metrics(self.batchers)
        self.closing = False

    def pick(self, model: str | None) -> tuple[str, Batcher]:
        """The model asked for.

        Raises:
            RequestError: There is none of that name.
        """
        name = next(iter(self.batchers)) if model is None else model
        if name not in self.batchers:
            raise RequestError(404, f"there is no model {name!r} here; see /v1/models", "model")
        return name, self.batchers[name]

    async def score(self, batcher: Batcher, rollouts: Sequence[Rollout], field: str) -> list[ResponseScore]:
        """Score within the limits.

        Raises:
            RequestError: A response cannot be scored, there are too many, or it took too long.
        """
        if len(rollouts) > self.options.max_responses:
            raise RequestError(
                422,
                f"has {len(rollouts)}, more than the limit of {self.options.max_responses}; "
                "send several requests",
                field,
            )
        try:
            async with asyncio.timeout(self.options.request_timeout):
                return await batcher.score(rollouts)
        except TimeoutError as error:
            raise RequestError(503, f"not done within {self.options.request_timeout:g} s", None) from error
        except QueueFullError as error:
            raise RequestError(429, str(error), None, retry_after=error.retry_after) from error
        except EncodingError as error:
            raise RequestError(422, f"{error.problem} ({error.kind})", f"{field}.{error.where}") from error
        except UserError as error:
            if error.where in {rollout.id for rollout in rollouts}:
                raise RequestError(422, error.problem, f"{field}.{error.where}") from error
            raise RequestError(422, str(error), field) from error

    def close(self) -> None:
        """Finish what was accepted."""
        self.closing = True
        for batcher in self.batchers.values():
            batcher.close()
