"""The part of vLLM's offline interface that the adapter relies on, with an engine that draws at random.

Names, kinds and defaults of the arguments are those of vLLM's sources (``vllm/entrypoints/llm.py`` at commit
10fdb8f0, ``vllm/sampling_params.py`` at 00388f65, ``vllm/outputs.py`` at 003d3ee2). What vLLM refuses, this
refuses.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

_ENGINE_ARGUMENTS = {"enable_prefix_caching", "max_model_len", "data_parallel_size", "max_num_seqs"}
CONTEXT = 64
ABORTED = 7
"""A prompt whose last character has this id is broken off."""


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < -1 or not 0 <= self.min_p <= 1:
            raise ValueError("out of range")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True")


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: Any
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: Any
    outputs: list[CompletionOutput]
    finished: bool


class LLM:
    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        quantization: str | None = None,
        revision: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = kwargs.keys() - _ENGINE_ARGUMENTS
        if unknown:
            raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument {unknown.pop()!r}")
        if kwargs.get("data_parallel_size", 1) > 1:
            raise ValueError("LLM(data_parallel_size=N) is not supported for single-process usage")
        if "broken" in model:
            os._exit(3)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
        if tensor_parallel_size > len(visible):
            raise ValueError("too few devices")
        self.model_config = SimpleNamespace(max_model_len=CONTEXT)

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        priority: list[int] | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        assert isinstance(sampling_params, list)
        if len(sampling_params) != len(prompts):
            raise ValueError("The lengths of prompts and sampling_params must be the same.")
        pairs = zip(prompts, sampling_params, strict=True)
        return [_answer(number, prompt, settings) for number, (prompt, settings) in enumerate(pairs)]


def _answer(number: int, prompt: dict[str, Any], settings: SamplingParams) -> RequestOutput:
    """Draws characters of the tests' tokenizer (ids 5 to 20) until a stop token comes up."""
    ids = prompt["prompt_token_ids"]
    assert settings.max_tokens is not None
    assert settings.stop_token_ids
    if len(ids) + settings.max_tokens > CONTEXT:
        raise ValueError("The decoder prompt is longer than the maximum model length")
    draw = random.Random(f"{ids}{settings.seed}")
    tokens: list[int] = []
    while len(tokens) < settings.max_tokens and (not tokens or tokens[-1] not in settings.stop_token_ids):
        tokens.append(draw.choice([*range(5, 21), settings.stop_token_ids[0]]))
    ended = tokens[-1] in settings.stop_token_ids
    reason = "abort" if ids[-3] == ABORTED else ("stop" if ended else "length")
    completion = CompletionOutput(0, "", tokens, None, None, None, reason, None)
    return RequestOutput(str(number), None, list(ids), None, [completion], True)
