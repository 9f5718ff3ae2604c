"""Sequences that are being drawn together: read, fork, end, join.

Samples of one prompt whose tokens are the same so far are one row of the batch: the model runs once for them,
each then draws with its own random number, and the row forks where they differ. So a prompt is read once for
all its samples, and work is shared for as long as they agree, without any change to what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from stepcredit.generators.drawing import Truncation, draw
from stepcredit.generators.prompts import Opening
from stepcredit.generators.reading import aligned, begin
from stepcredit.generators.runner import Runner
from stepcredit.generators.streams import stream_key, uniforms
from stepcredit.keyvalues.rows import RowCache, States
from stepcredit.keyvalues.shared_prompts import SharedPrompt
from stepcredit.types import FinishReason, GenerationRequest


@dataclass(frozen=True, slots=True)
class Job:
    """A request ready to run.

    Attributes:
        opening: The tokens that its samples continue.
        limit: Most tokens to draw, at least 1.
        shared: Whether the opening's keys and values are held once for all samples.
    """

    request: GenerationRequest
    opening: Opening
    limit: int
    shared: bool

    @property
    def row_tokens(self) -> int:
        """Tokens of the opening that each row holds."""
        return 0 if self.shared else len(self.opening.token_ids)

    @property
    def shared_tokens(self) -> int:
        """Those that are held once."""
        return len(self.opening.token_ids) if self.shared else 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Samples that came out the same and ended.

    Attributes:
        tokens: What was drawn, end-of-turn included.
    """

    job: Job
    indices: tuple[int, ...]
    tokens: tuple[int, ...]
    reason: FinishReason


class Batch:
    """Rows that run together, all with one truncation of the next-token distribution.

    Args:
        jobs: Requests to read; their openings are run at once. All of them share their openings, or none.
    """

    def __init__(self, runner: Runner, jobs: Sequence[Job], truncation: Truncation) -> None:
        self._runner, self._truncation, self._jobs = runner, truncation, list(jobs)
        openings = [job.opening.token_ids for job in jobs]
        self._pending, self._padding = aligned(openings)
        counts = [job.request.num_samples for job in jobs]
        # One entry a running sample.
        self._row = np.repeat(np.arange(len(jobs)), counts)
        self._job = self._row.copy()
        self._index = np.asarray([index for job in jobs for index in job.request.indices], dtype=np.int64)
        self._limit = np.repeat(np.asarray([job.limit for job in jobs]), counts)
        self._drawn = np.zeros(len(self._row), dtype=np.int64)
        rows, columns = (len(jobs), 0) if jobs[0].shared else (len(self._row), int(self._limit.max()))
        self._cache = RowCache(runner.model.config, rows, self._pending.shape[1] + columns)
        self._prompts: dict[int, States] = {}
        """Of jobs that share their opening, what they hold of it."""
        self._pending = self._pending[:, begin(runner, self._cache, openings, self._padding) :]
        self._key = np.asarray(
            [
                stream_key(
                    job.request.sampling.seed, job.request.prompt.id, index, job.request.response_prefix
                )
                for job in jobs
                for index in job.request.indices
            ],
            dtype=np.uint64,
        )
        self._tokens = np.zeros((len(self._row), int(self._limit.max())), dtype=np.int32)
        self._any_stop = any(job.request.sampling.stop for job in jobs)
        runner.ledger.prompt_tokens += sum(map(len, openings))

    @property
    def num_samples(self) -> int:
        """Samples still running."""
        return len(self._row)

    @property
    def columns(self) -> int:
        """Cached tokens of the longest row."""
        return self._cache.columns - int(self._padding.min())

    @property
    def shared_tokens(self) -> int:
        """Cached tokens of openings that are held once."""
        return sum(self._jobs[job].shared_tokens for job in self._prompts)

    @property
    def longest_limit(self) -> int:
        """Largest token limit of a running sample."""
        return int(self._limit.max())

    def step(self) -> list[Finished]:
        """Draw one token for each sample and return those that ended."""
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[Finished]:
        logits = self._runner.forward(self._cache, self._pending, self._padding, self._shared_prompts())
        if self._jobs[0].shared and not self._drawn.any():
            self._share()
        drawn = draw(logits, self._row, uniforms(self._key, self._drawn), self._truncation)
        self._tokens[np.arange(len(drawn)), self._drawn] = drawn
        self._drawn += 1
        self._runner.ledger.generated_tokens += len(drawn)
        ended = np.isin(drawn, self._runner.end_tokens)
        over = (self._drawn >= self._limit) | ended
        stopped = self._stopped(drawn, ~ended)
        over |= stopped
        finished: list[Finished] = []
        if over.any():
            finished = self._finished(np.flatnonzero(over), drawn, ended | stopped)
            self._keep(np.flatnonzero(over))
            going = ~over
            drawn = drawn[going]
            for name in ("_row", "_job", "_index", "_limit", "_drawn", "_key", "_tokens"):
                setattr(self, name, getattr(self, name)[going])
            running = set(self._job.tolist())
            self._prompts = {job: states for job, states in self._prompts.items() if job in running}
        if len(drawn):
            self._fork(drawn, logits.shape[-1])
        return finished

    def _share(self) -> None:
        """Hold what was read of each opening once, and nothing in the rows."""
        states = self._cache.take(self._padding, len(self._row), int(self._limit.max()))
        self._prompts = dict(enumerate(states))
        self._padding = np.zeros_like(self._padding)

    def _shared_prompts(self) -> list[SharedPrompt]:
        return [
            SharedPrompt(states, torch.from_numpy(np.unique(self._row[self._job == job])))
            for job, states in self._prompts.items()
        ]

    def absorb(self, other: Batch) -> None:
        """Go on with the samples of ``other`` too; both must have made their first step."""
        offset_rows, offset_jobs = self._cache.rows, len(self._jobs)
        self._padding = np.concatenate(
            [
                self._padding + max(0, other._cache.columns - self._cache.columns),
                other._padding + max(0, self._cache.columns - other._cache.columns),
            ]
        )
        with torch.inference_mode():
            self._cache.absorb(other._cache)
        self._jobs += other._jobs
        self._prompts |= {offset_jobs + job: states for job, states in other._prompts.items()}
        self._any_stop |= other._any_stop
        self._pending = np.concatenate([self._pending, other._pending])
        self._row = np.concatenate([self._row, other._row + offset_rows])
        self._job = np.concatenate([self._job, other._job + offset_jobs])
        for name in ("_index", "_limit", "_drawn", "_key"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))
        tokens = np.zeros(
            (len(self._row), max(self._tokens.shape[1], other._tokens.shape[1])), dtype=np.int32
        )
        tokens[: len(self._tokens), : self._tokens.shape[1]] = self._tokens
        tokens[len(self._tokens) :, : other._tokens.shape[1]] = other._tokens
        self._tokens = tokens

    def _stopped(
        self, drawn: Int64[np.ndarray, " samples"], candidates: np.ndarray[Any, np.dtype[np.bool_]]
    ) -> np.ndarray[Any, np.dtype[np.bool_]]:
        stopped = np.zeros(len(drawn), dtype=np.bool_)
        if not self._any_stop:
            return stopped
        for sample in np.flatnonzero(candidates):
            job = self._jobs[self._job[sample]]
            if stop := job.request.sampling.stop:
                text_so_far = self._tokens[sample, : self._drawn[sample]]
                stopped[sample] = self._runner.stop_strings.complete(text_so_far, job.opening, stop)
        return stopped

    def _finished(
        self,
        samples: Int64[np.ndarray, " finished"],
        drawn: Int64[np.ndarray, " samples"],
        stopped: np.ndarray[Any, np.dtype[np.bool_]],
    ) -> list[Finished]:
        """Samples of one row that drew the same token are one result."""
        same: dict[tuple[int, int, bool], list[int]] = {}
        for sample in samples.tolist():
            same.setdefault((int(self._row[sample]), int(drawn[sample]), bool(stopped[sample])), []).append(
                sample
            )
        return [
            Finished(
                job=self._jobs[self._job[group[0]]],
                indices=tuple(self._index[group].tolist()),
                tokens=tuple(self._tokens[group[0], : self._drawn[group[0]]].tolist()),
                reason="stop" if stop else "length",
            )
            for (_, _, stop), group in same.items()
        ]

    def _keep(self, samples: Int64[np.ndarray, " finished"]) -> None:
        """Hold what the rows of samples that ended have read; the token drawn last is not read yet."""
        if self._runner.store is None:
            return
        for row in np.unique(self._row[samples]).tolist():
            sample = samples[self._row[samples] == row][0]
            drawn = self._tokens[sample, : self._drawn[sample] - 1].tolist()
            tokens = (*self._jobs[self._job[sample]].opening.token_ids, *drawn)
            self._runner.store.keep(tokens, partial(self._read_row, row, int(self._job[sample])))

    def _read_row(self, row: int, job: int, first: int, last: int) -> States:
        own = int(self._padding[row])
        if job not in self._prompts:
            return self._cache.read(row, own + first, own + last)
        prompt, length = self._prompts[job], self._jobs[job].shared_tokens
        drawn = self._cache.read(row, own + max(0, first - length), own + max(0, last - length))
        return tuple(
            (
                torch.cat([keys[:, first:last], own_keys], dim=1),
                torch.cat([values[:, first:last], own_values], dim=1),
            )
            for (keys, values), (own_keys, own_values) in zip(prompt, drawn, strict=True)
        )

    def _fork(self, drawn: Int64[np.ndarray, " samples"], vocabulary: int) -> None:
        """Give each distinct continuation a row; all but the first of a row are copied to free places."""
        continuations, which = np.unique(self._row * vocabulary + drawn, return_inverse=True)
        parents, tokens = np.divmod(continuations, vocabulary)
        rows = len(parents)
        stays = np.ones(rows, dtype=np.bool_)
        stays[1:] = parents[1:] != parents[:-1]
        stays &= parents < rows
        free = np.ones(rows, dtype=np.bool_)
        free[parents[stays]] = False
        place = parents.copy()
        place[~stays] = np.flatnonzero(free)
        device = self._runner.device
        self._cache.copy_rows(
            torch.from_numpy(parents[~stays]).to(device), torch.from_numpy(place[~stays]).to(device), rows
        )
        padding = np.empty(rows, dtype=np.int64)
        padding[place] = self._padding[parents]
        self._padding = padding
        self._pending = np.empty((rows, 1), dtype=np.int64)
        self._pending[place, 0] = tokens
        self._row = place[which]
        unused = int(self._padding.min())
        if unused > max(32, self._cache.columns // 2):
            self._cache.drop_columns(unused)
            self._padding -= unused
