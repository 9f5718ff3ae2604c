"""Log-probabilities by vLLM in this process (extra ``vllm``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError, MissingExtraError
from stepcredit.logprobs.checking import check_log_probs
from stepcredit.runs import hash_json
from stepcredit.types import Encoded


class VLLMTokenLogProbs:
    """A policy or a reference that a vLLM engine holds.

    Versions with ``prompt_logprob_token_ids`` gather just the scored tokens, from
    ``prompt_logprob_start`` on; older ones are asked for ``prompt_logprobs``.

    Args:
        engine: A ``vllm.LLM``.
        weights_hash: Content hash of its weights, for the fingerprint.
        gather: Whether to ask for scored tokens only; by default if this version can. It needs vLLM's
            second model runner (``VLLM_USE_V2_MODEL_RUNNER=1``).

    Raises:
        MissingExtraError: vLLM is not installed.
    """

    def __init__(self, engine: Any, *, weights_hash: str, gather: bool | None = None) -> None:
        try:
            import vllm
        except ImportError as error:
            raise MissingExtraError("vllm", "vllm", needed_for="scoring by vLLM") from error
        self.engine = engine
        self.weights_hash = weights_hash
        self._sampling_params = vllm.SamplingParams
        self._version = str(vllm.__version__)
        can_gather = hasattr(vllm.SamplingParams, "prompt_logprob_token_ids")
        self._gathers = can_gather if gather is None else gather

    @property
    def fingerprint(self) -> str:
        """Hash of weights, dtype and vLLM's version."""
        dtype = str(self.engine.llm_engine.model_config.dtype)
        return hash_json({"vllm": self._version, "weights": self.weights_hash, "dtype": dtype})

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of each sequence's scored tokens, in input order, in nats.

        Raises:
            DataError: The engine gave no values.
            TokenError: It gave a token something that is no log-probability.
        """
        prompts = [{"prompt_token_ids": list(item.token_ids)} for item in encoded]
        outputs = self.engine.generate(prompts, [self._parameters(item) for item in encoded], use_tqdm=False)
        return [self._values(output, item) for output, item in zip(outputs, encoded, strict=True)]

    def _parameters(self, item: Encoded) -> Any:
        if not self._gathers:
            return self._sampling_params(max_tokens=1, prompt_logprobs=1, detokenize=False)
        return self._sampling_params(
            max_tokens=1,
            prompt_logprob_token_ids=np.array(item.token_ids[item.scored_start :], np.int32)[:, None],
            prompt_logprob_start=item.scored_start - 1,
        )

    def _values(self, output: Any, item: Encoded) -> NDArray[np.float32]:
        if self._gathers and output.prompt_token_id_logprobs is not None:
            after_start = np.asarray(output.prompt_token_id_logprobs, np.float32)[:, 0]
            values = after_start[np.array(item.scored_places, np.int64) - item.scored_start]
        elif not self._gathers and output.prompt_logprobs is not None:
            rows, ids = output.prompt_logprobs, item.token_ids
            values = np.array([rows[place][ids[place]].logprob for place in item.scored_places], np.float32)
        else:
            raise DataError(
                "vLLM gave no log-probabilities of the prompt", hint="switch its prefix cache off"
            )
        return check_log_probs(values, item, source="vLLM")
