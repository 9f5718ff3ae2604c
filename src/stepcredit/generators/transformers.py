"""Sampling from a local transformers model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from stepcredit.checkpoints import context_length
from stepcredit.errors import CheckpointError, DataError
from stepcredit.generators.decoding import Decoder
from stepcredit.generators.drawing import Truncation
from stepcredit.generators.limits import BatchLimits
from stepcredit.generators.prompts import PromptFormat
from stepcredit.generators.reading import read_ahead
from stepcredit.generators.runner import Runner
from stepcredit.generators.running import Batch, Finished, Job
from stepcredit.generators.stopping import StopStrings
from stepcredit.keyvalues import PrefixStore, RowCache
from stepcredit.runs import Ledger
from stepcredit.types import GenerationFailure, GenerationRequest, PromptText, Rollout

_FEW_TOKENS = 4
_WINDOW = 4
"""Batches' worth of requests that are read ahead, to be sorted by length."""


class TransformersGenerator:
    """Draws responses from a causal language model on this machine.

    Batched, with cached keys and values; one prompt's samples share its prefill and everything else for as
    long as they agree; samples that end leave the batch and waiting prompts take their place. On a CPU a
    prompt's keys and values are held once for all samples, where copies would be large and the model's
    attention allows it.

    Sample ``i`` of a prompt draws from its own random stream, keyed by (seed, prompt id, ``i``, response
    prefix). So what is drawn does not depend on which other samples or prompts are asked for, on the order,
    or on :class:`BatchLimits`, but for rounding: a matrix product may differ in its last bits with the shape
    of the batch, and a token changes where the sample's uniform number falls within that rounding of a
    boundary between two tokens. Between batches of 48 and of 2048 samples, 4,000 responses of the lab's
    policy (145,000 tokens) came out the same in float32; in bfloat16, 37 of them differed.

    Args:
        model: A transformers causal language model; it is put in evaluation mode.
        tokenizer: Its tokenizer, with a chat template.
        name: Written to ``Rollout.policy``.
        tokenizer_hash: Hash of the tokenizer, written beside ``response_token_ids``; without it rollouts
            carry no token ids.
        limits: How much runs at once; by default what fits.
        store: Keeps what was read and drawn, so that a request that goes on from there costs its own tokens
            only, and what requests begin with alike is read once. It changes nothing that is drawn, but for
            rounding.

    Attributes:
        ledger: Tokens read and drawn so far.
        limits: How much runs at once.
        context: Tokens of prompt and response that fit; ``None`` where there is no limit.

    Raises:
        CheckpointError: The tokenizer has no chat template or no end-of-turn token, or the model keeps a
            state other than keys and values.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        tokenizer_hash: str | None = None,
        limits: BatchLimits | None = None,
        store: PrefixStore | None = None,
    ) -> None:
        self._format = PromptFormat(tokenizer)
        self.name = name
        self._decoder = Decoder(self._format, name, tokenizer_hash)
        try:
            RowCache(model.config)
        except NotImplementedError as error:
            raise CheckpointError(
                f"the model has {error}, which this generator cannot fork",
                where=name,
                hint="use --generator vllm",
            ) from error
        self.limits = limits or BatchLimits.fitting(model)
        text_config = model.config.get_text_config(decoder=True)
        self._runner = Runner(
            model.eval(),
            _end_tokens(model, self._format, name),
            StopStrings(self._format, text_config.vocab_size),
            store,
        )
        self.context = context_length(model.config)

    @property
    def model(self) -> Any:
        """What draws."""
        return self._runner.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._format.tokenizer

    def opening_ids(self, prompt: PromptText) -> tuple[int, ...]:
        """Tokens of a prompt, as a response continues them.

        Raises:
            DataError: The chat template refuses it.
        """
        return self._format.opening(prompt).token_ids

    @property
    def ledger(self) -> Ledger:
        """Tokens read (each prompt once a request) and drawn (by every sample) so far."""
        return self._runner.ledger

    @property
    def computed_tokens(self) -> int:
        """Tokens that the model was actually run on: samples that agree so far count once."""
        return self._runner.computed_tokens

    def forget(self) -> None:
        """Drop what was kept for requests that go on from it."""
        if self._runner.store is not None:
            self._runner.store.clear()

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts as they finish, and a failure for each request that cannot be run."""
        waiting: deque[Job] = deque()
        source = iter(requests)
        batch: Batch | None = None
        truncation: Truncation | None = None
        while True:
            if not waiting:
                yield from self._read_window(source, waiting)
            if batch is None and not waiting:
                return
            if batch is None:
                truncation = Truncation.of(waiting[0].request.sampling)
            assert truncation is not None
            jobs = self._admit(waiting, batch, truncation)
            read_ahead(self._runner, [job.opening for job in jobs])
            for alike in self._alike(jobs):
                fresh = Batch(self._runner, alike, truncation)
                yield from self._rollouts(fresh.step())
                if batch is None:
                    batch = fresh if fresh.num_samples else None
                elif fresh.num_samples:
                    batch.absorb(fresh)
            if not jobs:
                assert batch is not None
                yield from self._rollouts(batch.step())
                if batch.num_samples == 0:
                    batch = None

    def _read_window(
        self, source: Iterator[GenerationRequest], waiting: deque[Job]
    ) -> Iterator[GenerationFailure]:
        """Fill ``waiting``, longest opening first and requests with the same truncation together."""
        jobs: list[Job] = []
        samples = 0
        while samples < _WINDOW * self.limits.samples and (request := next(source, None)) is not None:
            try:
                job = self._job(request)
            except DataError as error:
                yield GenerationFailure(request.prompt.id, request.indices, str(error))
                continue
            samples += request.num_samples
            jobs += self._split(job)
        jobs.sort(key=lambda job: len(job.opening.token_ids), reverse=True)
        groups: dict[Truncation, list[Job]] = {}
        for job in jobs:
            groups.setdefault(Truncation.of(job.request.sampling), []).append(job)
        for group in groups.values():
            waiting.extend(group)

    def _job(self, request: GenerationRequest) -> Job:
        self._format.check_stop(request.sampling.stop, self._runner.end_tokens)
        opening = self._format.opening_of(request)
        limit = request.sampling.max_new_tokens
        if self.context is not None:
            room = self.context - len(opening.token_ids)
            if room < 1:
                raise DataError(
                    f"the prompt has {len(opening.token_ids)} tokens, "
                    f"but the model's context is only {self.context}"
                )
            limit = min(limit, room)
        return Job(request, opening, limit, self._runner.shares(opening, request.num_samples))

    def _split(self, job: Job) -> Iterator[Job]:
        """Cut a request with more samples than can run at once into several."""
        room = self.limits.cached_tokens - job.shared_tokens
        most = max(1, min(self.limits.samples, room // (job.row_tokens + job.limit)))
        indices = job.request.indices
        for first in range(0, len(indices), most):
            part = replace(job.request, indices=indices[first : first + most])
            yield replace(job, request=part)

    def _admit(self, waiting: deque[Job], batch: Batch | None, truncation: Truncation) -> list[Job]:
        """Take the requests that fit beside what runs; none before half of the room is free."""
        samples = batch.num_samples if batch is not None else 0
        if 2 * samples > self.limits.samples:
            return []
        longest, limit, shared = (
            (batch.columns, batch.longest_limit, batch.shared_tokens) if batch is not None else (0, 0, 0)
        )
        jobs: list[Job] = []
        while waiting and Truncation.of(waiting[0].request.sampling) == truncation:
            job = waiting[0]
            samples += job.request.num_samples
            # Sequences end at one column, so each may come to take as many columns as the longest.
            longest, limit = max(longest, job.row_tokens), max(limit, job.limit)
            shared += job.shared_tokens
            held = shared + samples * (longest + limit)
            fits = samples <= self.limits.samples and held <= self.limits.cached_tokens
            widest = max(len(other.opening.token_ids) for other in [*jobs[:1], job])
            fits = fits and widest * (len(jobs) + 1) <= self.limits.prompt_tokens
            if not fits and (jobs or batch is not None):
                break
            jobs.append(waiting.popleft())
        return jobs

    def _alike(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs that are read together: rows read equally many tokens, so those nearly all held are apart."""
        groups: dict[tuple[bool, bool], list[Job]] = {}
        for job in jobs:
            unread = len(job.opening.token_ids) - self._runner.held(job.opening.token_ids).length
            groups.setdefault((job.shared, unread > _FEW_TOKENS), []).append(job)
        return [groups[key] for key in sorted(groups)]

    def _rollouts(self, finished: Iterable[Finished]) -> Iterator[Rollout]:
        for group in finished:
            job = group.job
            yield from self._decoder.rollouts(
                job.request, group.indices, job.opening, group.tokens, group.reason
            )


def _end_tokens(model: Any, prompt_format: PromptFormat, name: str) -> set[int]:
    """Tokens that end a response: the generation configuration's, the template's and the tokenizer's."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    tokens = prompt_format.end_of_turn_ids() | set(listed if isinstance(listed, list) else [listed]) - {None}
    if not tokens:
        raise CheckpointError(
            "neither the tokenizer nor the generation configuration names an end-of-turn token",
            where=name,
            hint="set eos_token in tokenizer_config.json",
        )
    return tokens
