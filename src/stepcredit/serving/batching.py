"""Requests of many clients scored together: one worker thread, one batch after another.

A batch takes waiting responses in the order of their requests up to a number of tokens, so a large request
shares batches with small ones and none waits for all of another. The model is used by this thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stepcredit.conversations import plain_text
from stepcredit.encoding import EncodingError
from stepcredit.errors import DataError
from stepcredit.scorers.base import ResponseScorer
from stepcredit.types import ResponseScore, Rollout

_STOP = None


class QueueFullError(Exception):
    """More waits than the server takes.

    Args:
        retry_after: Seconds after which there should be room.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full; retry in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Item:
    """A response that waits.

    Attributes:
        rollout: Its id is its own in the whole process, and its prompt's id that of the request.
        size: About how many tokens it costs.
    """

    rollout: Rollout
    size: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[ResponseScore]


@dataclass
class BatchCounts:
    """What the worker has done, for the metrics."""

    batches: int = 0
    responses: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Batcher:
    """Scores responses of concurrent requests in shared batches.

    Args:
        scorer: Used by the worker thread alone; its scores hold token rewards where it can give them.
        batch_tokens: Most tokens of a batch; a response that is larger goes alone.
        queue_tokens: Most tokens that wait.
        exact: Whether a batch is one request, whatever its size: then no digit of a score depends on what
            others ask, and a large request is waited for.
    """

    def __init__(
        self, scorer: ResponseScorer, *, batch_tokens: int, queue_tokens: int, exact: bool = False
    ) -> None:
        scorer.with_tokens = True
        self.scorer = scorer
        self.counts = BatchCounts()
        self._batch_tokens, self._queue_tokens, self._exact = batch_tokens, queue_tokens, exact
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting_tokens = 0
        self._next_id = 0
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._thread.start()

    @property
    def step_rule(self) -> str:
        """How the model's responses are cut; ``auto`` where its format cuts by no rule."""
        cuts = self.scorer.encoding or self.scorer
        return str(getattr(cuts, "step_rule", "auto"))

    @property
    def waiting_tokens(self) -> int:
        """Tokens, about, of what waits or is being scored."""
        return self._waiting_tokens

    async def score(self, rollouts: Sequence[Rollout]) -> list[ResponseScore]:
        """Score responses to one prompt, in order; their ids are kept.

        Raises:
            QueueFullError: Too much is waiting.
            DataError: A response cannot be scored; ``where`` is its id.
        """
        loop = asyncio.get_running_loop()
        sizes = [self._size(rollout) for rollout in rollouts]
        with self._lock:
            if self._waiting_tokens and self._waiting_tokens + sum(sizes) > self._queue_tokens:
                raise QueueFullError(self._seconds_left())
            self._waiting_tokens += sum(sizes)
            number, self._next_id = self._next_id, self._next_id + 1
        items = [
            _Item(
                replace(rollout, id=f"{number}:{place}", prompt_id=str(number)),
                size,
                loop,
                loop.create_future(),
            )
            for place, (rollout, size) in enumerate(zip(rollouts, sizes, strict=True))
        ]
        self._queue.put(items)  # As one, so that the worker never sees a part of a request.
        try:
            scores = await asyncio.gather(*(item.future for item in items))
        except DataError as error:
            # Whoever asked knows a response by the id that it gave it.
            own = {item.rollout.id: rollout.id for item, rollout in zip(items, rollouts, strict=True)}
            where = own.get(str(error.where), error.where)
            if isinstance(error, EncodingError):
                raise EncodingError(error.kind, error.problem, where=where) from error
            raise DataError(error.problem, where=where, hint=error.hint) from error
        finally:
            # What nobody waits for any more is passed over by the worker.
            for item in items:
                item.future.cancel()
        return [
            replace(score, id=rollout.id, prompt_id=rollout.prompt_id)
            for score, rollout in zip(scores, rollouts, strict=True)
        ]

    def close(self) -> None:
        """Finish what waits, then end the worker."""
        self._queue.put(_STOP)
        self._thread.join()

    def _size(self, rollout: Rollout) -> int:
        """About how many tokens: bytes over three, which no common tokenizer exceeds much for text."""
        return 1 + (len(plain_text(rollout.prompt).encode()) + len(rollout.response.encode())) // 3

    def _seconds_left(self) -> int:
        """How long what waits should take, at the rate so far."""
        rate = self.counts.tokens / self.counts.seconds if self.counts.seconds else 1000.0
        return max(1, min(600, round(self._waiting_tokens / max(rate, 1.0))))

    def _work(self) -> None:
        waiting: deque[_Item] = deque()
        is_open = True
        while is_open or waiting:
            is_open = is_open and self._receive(waiting)
            if waiting:
                self._score(self._next_batch(waiting))

    def _receive(self, waiting: deque[_Item]) -> bool:
        """Add what has come, waiting for it where there is nothing else to do; whether more may come."""
        with contextlib.suppress(queue.Empty):
            while (request := self._queue.get(block=not waiting)) is not _STOP:
                waiting.extend(request)
            return False
        return True

    def _next_batch(self, waiting: deque[_Item]) -> list[_Item]:
        first = waiting.popleft()
        batch, tokens = [first], first.size
        while waiting and self._fits(waiting[0], first, tokens):
            batch.append(waiting.popleft())
            tokens += batch[-1].size
        return batch

    def _fits(self, item: _Item, first: _Item, tokens: int) -> bool:
        if self._exact:
            return item.rollout.prompt_id == first.rollout.prompt_id
        return tokens + item.size <= self._batch_tokens

    def _score(self, batch: Sequence[_Item]) -> None:
        wanted = [item for item in batch if not item.future.cancelled()]
        started = time.monotonic()
        results = self._results([item.rollout for item in wanted])
        self.counts.batches += 1
        self.counts.responses += len(wanted)
        self.counts.tokens += sum(item.size for item in wanted)
        self.counts.seconds += time.monotonic() - started
        with self._lock:
            self._waiting_tokens -= sum(item.size for item in batch)
        for item in wanted:
            with contextlib.suppress(RuntimeError):  # The loop has ended: nobody waits any more.
                item.loop.call_soon_threadsafe(_settle, item.future, results[item.rollout.id])

    def _results(self, rollouts: Sequence[Rollout]) -> dict[str, ResponseScore | Exception]:
        """Each response's score, or what is wrong with it."""
        results: dict[str, ResponseScore | Exception] = {}

        def note(error: EncodingError) -> None:
            results[str(error.where)] = error

        try:
            for score in self.scorer.score_all(rollouts, on_skip=note):
                results[score.id] = score
        except Exception as error:  # Whatever it is, those who wait must hear of it.
            left = [rollout for rollout in rollouts if rollout.id not in results]
            if len(left) == 1:
                return results | {left[0].id: error}
            # One client's response must not cost the others theirs.
            for rollout in left:
                results |= self._results([rollout])
        return results


def _settle(future: asyncio.Future[ResponseScore], result: ResponseScore | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
