"""Log-probabilities of scored tokens under a policy or a reference."""

from stepcredit.logprobs.cache import CacheCounts, CachedTokenLogProbs
from stepcredit.logprobs.deferred import DeferredTokenLogProbs
from stepcredit.logprobs.forward import enable_log_probs, inference_log_probs, token_log_probs
from stepcredit.logprobs.local import LocalTokenLogProbs, default_token_budget
from stepcredit.logprobs.packing import TokenBatch, batches_of, pack, pad
from stepcredit.logprobs.support import enable_packing, packing_enabled

__all__ = [
    "CacheCounts",
    "CachedTokenLogProbs",
    "DeferredTokenLogProbs",
    "LocalTokenLogProbs",
    "TokenBatch",
    "batches_of",
    "default_token_budget",
    "enable_log_probs",
    "enable_packing",
    "inference_log_probs",
    "pack",
    "packing_enabled",
    "pad",
    "token_log_probs",
]
