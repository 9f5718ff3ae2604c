"""Sampling by vLLM's offline engine (extra ``vllm``): prefix caching, tensor and data parallel."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.generators.decoding import Decoder
from stepcredit.generators.prompts import Opening, PromptFormat
from stepcredit.generators.streams import stream_key
from stepcredit.runs import Ledger, warn
from stepcredit.types import FinishReason, GenerationFailure, GenerationRequest, Rollout

_Ask = tuple[tuple[int, ...], dict[str, Any]]
"""Prompt token ids and the arguments of ``SamplingParams``."""
_Result = tuple[tuple[int, ...], str | None]
"""Drawn token ids and vLLM's finish reason."""
_ENDINGS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How vLLM loads and spreads the model.

    Attributes:
        tensor_parallel: Accelerators that share one copy of the model.
        data_parallel: Copies, each in a process of its own with its own accelerators.
        dtype: As vLLM takes it.
        chunk_samples: Samples given to a copy at once. They come back together, so this is also what an
            interrupted run loses at most for each copy.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    dtype: str = "auto"
    trust_remote_code: bool = False
    chunk_samples: int = 4096


@dataclass(frozen=True, slots=True)
class _Abilities:
    """What an engine can do.

    Attributes:
        context: Tokens of prompt and response that fit.
        takes_seeds: Whether a sample may have a seed of its own; on a CPU one ends vLLM's engine.
    """

    context: int
    takes_seeds: bool


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A user's mistake that a copy's process met."""

    text: str


@dataclass(frozen=True, slots=True)
class _Sample:
    request: GenerationRequest
    index: int
    opening: Opening


class _Engine:
    """One copy of the model in this process."""

    def __init__(self, model: str, settings: EngineSettings) -> None:
        try:
            import vllm
        except ImportError as error:
            raise MissingExtraError("vllm", "vllm", needed_for="--generator vllm") from error
        self._vllm = vllm
        self._llm = vllm.LLM(
            model=model,
            tensor_parallel_size=settings.tensor_parallel,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            enable_prefix_caching=True,
        )

    @property
    def abilities(self) -> _Abilities:
        """By its model and the processor that it runs on."""
        from vllm.platforms import current_platform

        return _Abilities(int(self._llm.model_config.max_model_len), not current_platform.is_cpu())

    def run(self, asks: Sequence[_Ask]) -> list[_Result]:
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(ids)} for ids, _ in asks],
            [self._vllm.SamplingParams(**arguments) for _, arguments in asks],
            use_tqdm=False,
        )
        completions = [output.outputs[0] for output in outputs]
        return [(tuple(completion.token_ids), completion.finish_reason) for completion in completions]


class VLLMGenerator:
    """Draws responses with vLLM.

    Every sample is a request of its own with a seed of its own, made from (seed, prompt id, index, response
    prefix), but on a CPU, where vLLM takes none; prefix caching lets one prompt's samples share its prefill.
    How far vLLM draws the same again in other batches is up to vLLM.

    Args:
        tokenizer: The model's transformers tokenizer, with a chat template; prompts go to vLLM as token ids.
        name: Written to ``Rollout.policy``.
        tokenizer_hash: Written beside ``response_token_ids``.

    Attributes:
        ledger: Tokens read (each request's prompt once) and drawn.
        context: Tokens of prompt and response that fit.

    Raises:
        MissingExtraError: vLLM is not installed.
        UserError: There are too few accelerators.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        name: str,
        tokenizer_hash: str | None = None,
        model_parameters: int = 0,
        settings: EngineSettings | None = None,
    ) -> None:
        self._format = PromptFormat(tokenizer)
        self._end_tokens = sorted(self._format.end_of_turn_ids())
        self.name = name
        self._decoder = Decoder(self._format, name, tokenizer_hash)
        self._settings = settings or EngineSettings()
        self.ledger = Ledger(model_parameters=model_parameters)
        self._copies: _Copies | _Engine = (
            _Engine(model, self._settings)
            if self._settings.data_parallel == 1
            else _Copies(model, self._settings)
        )
        self._abilities = self._copies.abilities
        self.context: int | None = self._abilities.context
        if not self._abilities.takes_seeds:
            warn("vLLM takes no seeds on a CPU, so --seed has no effect: another run draws other samples")

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[Rollout | GenerationFailure]:
        """Yield rollouts chunk by chunk, and a failure for each request that does not fit."""
        failures: list[GenerationFailure] = []
        samples = self._samples(requests, failures)
        chunks = iter(lambda: list(islice(samples, self._settings.chunk_samples)), [])
        for chunk, results in self._run(chunks):
            yield from failures
            failures.clear()
            for sample, (tokens, reason) in zip(chunk, results, strict=True):
                request = sample.request
                self.ledger.generated_tokens += len(tokens)
                if reason in _ENDINGS:
                    ending = _ENDINGS[reason]
                    yield from self._decoder.rollouts(
                        request, (sample.index,), sample.opening, tokens, ending
                    )
                else:
                    problem = f"vLLM ended the response for the reason {reason!r}"
                    yield GenerationFailure(request.prompt.id, (sample.index,), problem)
        yield from failures

    def _samples(
        self, requests: Iterable[GenerationRequest], failures: list[GenerationFailure]
    ) -> Iterator[_Sample]:
        for request in requests:
            self._format.check_stop(request.sampling.stop, self._end_tokens)
            try:
                opening = self._format.opening_of(request)
                # vLLM would refuse the whole chunk for one prompt that is too long.
                if len(opening.token_ids) >= self._abilities.context:
                    raise DataError(
                        f"the prompt has {len(opening.token_ids)} tokens, "
                        f"but the model's context is only {self._abilities.context}"
                    )
            except DataError as error:
                failures.append(GenerationFailure(request.prompt.id, request.indices, str(error)))
                continue
            self.ledger.prompt_tokens += len(opening.token_ids)
            for index in request.indices:
                yield _Sample(request, index, opening)

    def _ask(self, sample: _Sample) -> _Ask:
        request, sampling = sample.request, sample.request.sampling
        key = stream_key(sampling.seed, request.prompt.id, sample.index, request.response_prefix)
        room = self._abilities.context - len(sample.opening.token_ids)
        arguments = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "seed": key >> 33 if self._abilities.takes_seeds else None,
            "max_tokens": min(sampling.max_new_tokens, room),
            "stop": list(sampling.stop),
            "include_stop_str_in_output": sampling.keep_stop,
            "stop_token_ids": self._end_tokens,
            "detokenize": bool(sampling.stop),
        }
        return sample.opening.token_ids, arguments

    def _run(self, chunks: Iterator[list[_Sample]]) -> Iterator[tuple[list[_Sample], list[_Result]]]:
        if isinstance(self._copies, _Engine):
            for chunk in chunks:
                yield chunk, self._copies.run([self._ask(sample) for sample in chunk])
            return
        tasks = ((chunk, [self._ask(sample) for sample in chunk]) for chunk in chunks)
        yield from self._copies.run(tasks)


class _Copies:
    """Copies of the model in processes of their own.

    ``LLM(data_parallel_size=N)`` refuses to run in a single process, and copies that share nothing need no
    coordination: each sees only its own accelerators and takes the next chunk when it is done with one.
    """

    def __init__(self, model: str, settings: EngineSettings) -> None:
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        # Processes that may start others cannot be daemons, so a closed pipe is their sign to end.
        atexit.register(self._close)
        for visible in _accelerators(settings):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, model, settings, visible), daemon=False)
            process.start()
            theirs.close()
            self._pipes.append(ours)
        abilities: list[_Abilities] = [self._receive(pipe) for pipe in self._pipes]
        self.abilities = abilities[0]

    def run(
        self, tasks: Iterator[tuple[list[_Sample], list[_Ask]]]
    ) -> Iterator[tuple[list[_Sample], list[_Result]]]:
        """Yield each chunk with its results, in the order in which they are done."""
        busy: dict[Connection, list[_Sample]] = {}
        idle = list(self._pipes)
        while True:
            while idle and (task := next(tasks, None)) is not None:
                pipe = idle.pop()
                busy[pipe] = task[0]
                pipe.send(task[1])
            if not busy:
                return
            for pipe in [pipe for pipe in wait(list(busy)) if isinstance(pipe, Connection)]:
                results = self._receive(pipe)
                idle.append(pipe)
                yield busy.pop(pipe), results

    @staticmethod
    def _receive(pipe: Connection) -> Any:
        try:
            answer = pipe.recv()
        except EOFError as error:
            raise UserError(
                "a vLLM process ended (see its messages above)", hint="the same command continues from here"
            ) from error
        if isinstance(answer, _Trouble):
            raise UserError(answer.text)
        return answer

    def _close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


def _accelerators(settings: EngineSettings) -> list[str]:
    """The accelerators that each copy may see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    needed = settings.tensor_parallel * settings.data_parallel
    numbers = visible.split(",") if visible else [str(number) for number in range(needed)]
    if len(numbers) < needed:
        raise UserError(
            f"{settings.data_parallel} copies on {settings.tensor_parallel} accelerators each need {needed}, "
            f"but CUDA_VISIBLE_DEVICES names {len(numbers)}",
            where="--data-parallel",
        )
    width = settings.tensor_parallel
    return [",".join(numbers[first : first + width]) for first in range(0, needed, width)]


def _serve(pipe: Connection, model: str, settings: EngineSettings, visible: str) -> None:
    """A copy's process: say what it can do, then answer chunks until the pipe is closed."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    try:
        engine = _Engine(model, settings)
    except UserError as error:
        pipe.send(_Trouble(str(error)))
        return
    pipe.send(engine.abilities)
    while True:
        try:
            asks = pipe.recv()
        except EOFError:
            return
        pipe.send(engine.run(asks))
