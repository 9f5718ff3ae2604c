"""Random numbers of a search that depend on nothing but what they are for."""

from __future__ import annotations

import hashlib


def uniform(seed: int, prompt_id: str, round_index: int, step: int) -> float:
    """One number in (0, 1) for a step of a search of a problem."""
    text = f"{seed}:{len(prompt_id)}:{prompt_id}:{round_index}:{step}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(digest, "little") >> 12) + 0.5) * 2.0**-52
