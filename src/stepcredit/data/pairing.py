"""Which responses are trained on together: balancing, pairs within an instruction, mismatched prompts.

Everything is decided from labels, prompt ids and a seed alone, before the data is divided among
processes, so every process and every cache agrees.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import DataError

Balance = Literal["none", "dataset", "instruction"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of a right and a wrong response to one prompt.

    Attributes:
        indices: (chosen, rejected) indices into the responses.
        num_prompts: Number of prompts that gave at least one pair.
        only_right: Number of prompts whose responses are all right.
        only_wrong: Number of prompts whose responses are all wrong.
        identical: Number of pairs left out because both responses are the same.
        not_used: Number of pairs left out by the limit.
    """

    indices: tuple[tuple[int, int], ...]
    num_prompts: int
    only_right: int
    only_wrong: int
    identical: int
    not_used: int


def _by_prompt(prompt_ids: Sequence[str]) -> Mapping[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, prompt_id in enumerate(prompt_ids):
        groups.setdefault(prompt_id, []).append(index)
    return groups


def pair_responses(
    prompt_ids: Sequence[str],
    right: Sequence[bool],
    contents: Sequence[Hashable] | None = None,
    *,
    limit: int | None = 16,
    seed: int = 0,
) -> Pairs:
    """All right x all wrong responses of each prompt, at most ``limit`` pairs per prompt.

    Where there are more, a seeded random subset is kept (arXiv:2412.01981 uses 16). A response with both
    verdicts says nothing about what is right, so pairs that do not differ are left out.

    Args:
        contents: What each response is, to tell pairs that do not differ; by default all differ.
        limit: Most pairs per prompt, at least 1; ``None`` keeps all.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    generator = np.random.default_rng([seed, 1])
    pairs: list[tuple[int, int]] = []
    num_prompts = only_right = only_wrong = identical = not_used = 0
    for members in _by_prompt(prompt_ids).values():
        chosen = [index for index in members if right[index]]
        rejected = [index for index in members if not right[index]]
        if not rejected:
            only_right += 1
        elif not chosen:
            only_wrong += 1
        else:
            product = [
                (a, b) for a in chosen for b in rejected if contents is None or contents[a] != contents[b]
            ]
            identical += len(chosen) * len(rejected) - len(product)
            num_prompts += bool(product)
            if limit is not None and len(product) > limit:
                kept = np.sort(generator.choice(len(product), size=limit, replace=False))
                not_used += len(product) - limit
                product = [product[int(position)] for position in kept]
            pairs.extend(product)
    return Pairs(tuple(pairs), num_prompts, only_right, only_wrong, identical, not_used)


def balance_responses(
    prompt_ids: Sequence[str], right: Sequence[bool], how: Balance, *, seed: int = 0
) -> NDArray[np.int64]:
    """Indices that remain when responses of the larger class are dropped at random.

    Args:
        how: ``dataset``: the classes become equal over the whole set; ``instruction``: within each
            prompt, so prompts with one class disappear; ``none`` keeps all.

    Returns:
        Ascending indices.
    """
    labels = np.asarray(right, dtype=bool)
    everything = np.arange(len(labels))
    if how == "none":
        return everything
    groups = [everything] if how == "dataset" else [np.array(g) for g in _by_prompt(prompt_ids).values()]
    generator = np.random.default_rng([seed, 2])
    kept = []
    for group in groups:
        classes = [group[labels[group]], group[~labels[group]]]
        size = min(len(members) for members in classes)
        kept += [generator.choice(members, size=size, replace=False) for members in classes]
    return np.sort(np.concatenate(kept)) if kept else everything


def mismatch_responses(prompt_ids: Sequence[str], *, seed: int = 0) -> NDArray[np.int64]:
    """A permutation that gives each prompt a response which answers another prompt (KTO's KL estimate).

    Row ``i`` keeps its prompt and takes the response of row ``result[i]``; each response is used once.

    Raises:
        DataError: One prompt has more than half of the responses, so there is no such permutation.
    """
    groups = [np.array(group) for group in _by_prompt(prompt_ids).values()]
    largest = max((len(group) for group in groups), default=0)
    if 2 * largest > len(prompt_ids):
        raise DataError(
            "KTO needs responses to other prompts, but one prompt has more than half of all responses",
            hint="add responses to other prompts, or use another objective",
        )
    generator = np.random.default_rng([seed, 3])
    order = np.concatenate(
        [generator.permutation(groups[int(position)]) for position in generator.permutation(len(groups))]
    )
    # Groups lie side by side and none is longer than the shift, which is at most half of the whole.
    result = np.empty(len(order), dtype=np.int64)
    result[order] = np.roll(order, -largest)
    return result
