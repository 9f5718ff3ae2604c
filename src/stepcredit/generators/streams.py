"""One random stream a sample: counter-based, so that no draw depends on what else is in the batch."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float64, Int64, UInt64

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)
_SPACING = 2.0**-52


def stream_key(seed: int, prompt_id: str, index: int, response_prefix: str = "") -> int:
    """The 64-bit start of the stream that sample ``index`` of a prompt draws from.

    A continuation draws from a stream of its own for each prefix, so continuations of two prefixes are
    independent.
    """
    parts = (str(seed), prompt_id, str(index), response_prefix)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniforms(
    keys: UInt64[np.ndarray, " samples"], positions: Int64[np.ndarray, " samples"]
) -> Float64[np.ndarray, " samples"]:
    """Number ``positions[i]`` (from 0) of the stream ``keys[i]``, uniform in the open interval (0, 1).

    SplitMix64 (Steele, Lea and Flood 2014) with direct access: output ``t`` mixes ``key + (t + 1) * gamma``.
    The 52 high bits are used and half a step is added, so that neither 0 nor 1 comes up.
    """
    with np.errstate(over="ignore"):
        state = keys + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN_GAMMA
        state = (state ^ (state >> np.uint64(30))) * _FIRST_MULTIPLIER
        state = (state ^ (state >> np.uint64(27))) * _SECOND_MULTIPLIER
        state = state ^ (state >> np.uint64(31))
    fractions: Float64[np.ndarray, " samples"] = (
        (state >> np.uint64(12)).astype(np.float64) + 0.5
    ) * _SPACING
    return fractions
