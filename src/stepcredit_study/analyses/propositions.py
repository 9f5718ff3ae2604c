"""Propositions 3.1 and 3.2 (arXiv:2412.01981) on checkpoints: by enumeration, and by sampling.

Proposition 3.1 holds for the part of a response as for the whole: if every continuation is cut off after
some tokens and r is the log-ratio of what is left, then q_t = beta log E exp(r / beta) over those. So a tree
of a few tokens, which can be enumerated, tests trained models exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stepcredit.checkpoints import load_model, load_tokenizer
from stepcredit.encoding import ChatEncoding
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.lab.enumeration import (
    Completions,
    ExactValue,
    NextLogProbs,
    enumerate_completions,
    exact_value,
    next_log_probs_of,
    sequence_log_probs,
)
from stepcredit.steps import StepRule
from stepcredit.types import GenerationRequest, Prompt, Rollout, Sampling
from stepcredit_study.frame.measuring import beta_of


@dataclass(frozen=True, slots=True)
class ResponsePrefix:
    """The start of a response."""

    prompt: str
    text: str

    def rollout(self, identifier: str) -> Rollout:
        """The start as a response that was cut off there, so that no end-of-turn is scored."""
        return Rollout(
            id=identifier,
            prompt_id=identifier,
            prompt=self.prompt,
            response=self.text,
            finish_reason="length",
        )


@dataclass(frozen=True, slots=True)
class Tree:
    """A prefix and all continuations of a few tokens.

    Attributes:
        completions: Under the reference.
        rewards: r of prefix and continuation, in nats times beta.
        beta: Of the reward model.
        value: The implicit value q_t of the prefix, in nats times beta.
    """

    completions: Completions
    rewards: Float[np.ndarray, " completions"]
    beta: float
    value: float

    def exact(self, beta: float | None = None) -> ExactValue:
        """Its value under r, which is held fixed whatever ``beta`` is."""
        return exact_value(self.completions, self.rewards, beta=beta or self.beta)


def trees(
    models: Mapping[str, Path], reference: Path, prefixes: Sequence[ResponsePrefix], *, depth: int
) -> dict[str, list[Tree]]:
    """Enumerate, in double precision, what follows each prefix.

    Args:
        prefixes: Not empty ones.
        depth: Tokens after the prefix; there are vocabulary ** depth continuations.

    Returns:
        The trees of each model, in the order of the prefixes.
    """
    encoding = ChatEncoding(load_tokenizer(reference), StepRule.parse("newline"))
    encoded = [encoding.encode(start.rollout(str(number))).encoded for number, start in enumerate(prefixes)]
    of_reference = _double(reference)
    known = [
        enumerate_completions(
            of_reference,
            sequence.token_ids,
            end_token=encoding.end_of_turn_id,
            max_length=len(sequence.token_ids) + depth,
        )
        for sequence in encoded
    ]
    by_model: dict[str, list[Tree]] = {}
    for name, path in models.items():
        policy, beta = _double(path), beta_of(path)
        for sequence, completions in zip(encoded, known, strict=True):
            start, prefix = sequence.scored_start, sequence.token_ids
            value = beta * float(
                sequence_log_probs(policy, [prefix], start=start)[0]
                - sequence_log_probs(of_reference, [prefix], start=start)[0]
            )
            following = sequence_log_probs(policy, completions.sequences, start=len(prefix))
            rewards = value + beta * (following - completions.log_probs)
            by_model.setdefault(name, []).append(Tree(completions, rewards, beta, value))
    return by_model


def tree_numbers(name: str, trees: Sequence[Tree], betas: Sequence[float]) -> dict[str, float]:
    """How far the implicit value is from the exact one, and where it lies between its bounds.

    Returns:
        ``exact/NAME/error`` in nats times beta, the largest; ``exact/NAME/continuations``;
        ``bounds/NAME/BETA``, the mean place between the mean of r (0) and its maximum (1), and
        ``bounds/NAME/outside``, how far it is beyond one of them, in nats times beta.
    """
    numbers = {
        f"exact/{name}/error": max(abs(tree.value - tree.exact().log_mean_exp) for tree in trees),
        f"exact/{name}/continuations": float(sum(len(tree.rewards) for tree in trees)),
        f"bounds/{name}/outside": 0.0,
    }
    for beta in betas:
        values = [tree.exact(beta) for tree in trees]
        beyond = [max(v.mean - v.log_mean_exp, v.log_mean_exp - v.maximum) for v in values]
        numbers[f"bounds/{name}/outside"] = max(numbers[f"bounds/{name}/outside"], *beyond)
        numbers[f"bounds/{name}/{beta:g}"] = float(np.mean([_place(value) for value in values]))
    return numbers


def _place(value: ExactValue) -> float:
    """Between the mean (0) and the maximum (1); 0 where r does not vary."""
    width = value.maximum - value.mean
    return (value.log_mean_exp - value.mean) / width if width > 0 else 0.0


def _double(path: Path) -> NextLogProbs:
    return next_log_probs_of(load_model(path, device="cpu").double())


def log_weights(
    models: Mapping[str, Path],
    reference: Path,
    prefixes: Sequence[ResponsePrefix],
    *,
    num_samples: int,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Float[np.ndarray, "prefixes samples"]]:
    """``(r(y) - q_t) / beta`` of continuations that the reference writes.

    Proposition 3.1 says that the mean of their exponentials is 1, so the logarithm of a sample's mean is
    the error, in nats, of the sampled estimate of ``q_t / beta``.

    Args:
        reference: Their reference, which is sampled at temperature 1.
        prefixes: Where continuations start: the start of the response, where q is 0, or the end of a token.
        max_new_tokens: Where a continuation is cut off.
    """
    from stepcredit import ImplicitPRM

    sampling = Sampling(max_new_tokens=max_new_tokens, seed=seed)
    requests = [
        GenerationRequest(
            prompt=Prompt(id=str(number), prompt=start.prompt),
            indices=tuple(range(num_samples)),
            sampling=sampling,
            response_prefix=start.text,
        )
        for number, start in enumerate(prefixes)
    ]
    generator = make_generator(GeneratorOptions(model=str(reference)))
    rollouts = [rollout for rollout in generator.generate(requests) if isinstance(rollout, Rollout)]
    rollouts.sort(key=lambda rollout: (int(rollout.prompt_id), rollout.index))
    # A response need not have a step that ends with its prefix: a blank line that follows belongs to the
    # prefix's last step, and so does the end-of-turn of a response that ends at once. The prefix has.
    starts = [start.rollout(str(number)) for number, start in enumerate(prefixes) if start.text]
    by_model = {}
    for name, path in models.items():
        prm = ImplicitPRM.from_pretrained(path)
        value = {score.prompt_id: score.reward for score in prm.score_all(starts)}
        weights = [
            (score.reward - value.get(score.prompt_id, 0.0)) / prm.beta for score in prm.score_all(rollouts)
        ]
        by_model[name] = np.array(weights).reshape(len(prefixes), num_samples)
    return by_model


def weight_numbers(
    name: str, weights: Float[np.ndarray, "prefixes samples"], sizes: Sequence[int]
) -> dict[str, float]:
    """How near sampled estimates come.

    Returns:
        Root mean square errors of estimates from K samples, ``sampled/NAME/K`` of ``q_t / beta`` in nats and
        ``sampled/NAME/relative/K`` of ``exp(q_t / beta)`` relative to itself; and at the largest K
        ``sampled/NAME/mean`` error in nats, ``.../effective`` share and ``.../largest`` weight.
    """
    numbers: dict[str, float] = {}
    for size in sizes:
        errors = estimation_errors(weights, size)
        numbers[f"sampled/{name}/{size}"] = float(np.sqrt((errors**2).mean()))
        numbers[f"sampled/{name}/relative/{size}"] = float(np.sqrt((np.expm1(errors) ** 2).mean()))
    numbers[f"sampled/{name}/mean"] = float(estimation_errors(weights, max(sizes)).mean())
    numbers[f"sampled/{name}/effective"] = effective_share(weights)
    numbers[f"sampled/{name}/largest"] = largest_weight(weights)
    return numbers


def estimation_errors(
    weights: Float[np.ndarray, "prefixes samples"], size: int
) -> Float[np.ndarray, " errors"]:
    """Errors, in nats, of estimates of ``q_t / beta`` from disjoint groups of ``size`` samples each."""
    groups = weights[:, : weights.shape[1] // size * size].reshape(-1, size)
    return np.asarray(np.logaddexp.reduce(groups, axis=1) - np.log(size))


def effective_share(weights: Float[np.ndarray, "prefixes samples"]) -> float:
    """Effective part of the samples, ``(sum w)^2 / (K sum w^2)``, mean over prefixes; at most 1."""
    ours = weights - weights.max(axis=1, keepdims=True)
    shares = np.exp(ours).sum(axis=1) ** 2 / (weights.shape[1] * np.exp(2 * ours).sum(axis=1))
    return float(shares.mean())


def largest_weight(weights: Float[np.ndarray, "prefixes samples"]) -> float:
    """Share of the heaviest sample in a prefix's estimate, mean over prefixes."""
    return float(np.exp(weights.max(axis=1) - np.logaddexp.reduce(weights, axis=1)).mean())
