"""Log-probabilities of scored tokens under a policy or a reference."""

from stepcredit.logprobs.cache import CacheCounts, CachedTokenLogProbs
from stepcredit.logprobs.forward import enable_log_probs, inference_log_probs, token_log_probs
from stepcredit.logprobs.local import LocalTokenLogProbs
from stepcredit.logprobs.packing import TokenBatch, batches_by_length, pad

__all__ = [
    "CacheCounts",
    "CachedTokenLogProbs",
    "LocalTokenLogProbs",
    "TokenBatch",
    "batches_by_length",
    "enable_log_probs",
    "inference_log_probs",
    "pad",
    "token_log_probs",
]
