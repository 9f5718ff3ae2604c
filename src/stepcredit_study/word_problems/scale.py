"""How large the study is: the sizes that were decided beforehand, and a small version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from stepcredit.errors import UserError
from stepcredit.training.config import TrainConfig
from stepcredit_study.frame.scale import fast_precision

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "implicit-ce": {"objective": "ce"},
    "implicit-dpo": {"objective": "dpo"},
    "implicit-kto": {"objective": "kto"},
    "implicit-nca": {"objective": "nca"},
    "outcome-head": {"family": "value-head", "objective": "ce"},
    "math-shepherd": {"family": "value-head", "objective": "step-ce"},
    "autopsv": {"family": "value-head", "objective": "step-ce"},
}
"""Reward models that are trained, in the order in which they are."""
FIRST: Final = ("implicit-ce", "implicit-dpo")
"""Methods that are trained several times, and of which there are variants."""
VERIFIER: Final[Mapping[str, Any]] = {"family": "value-head", "objective": "token-ce"}
FEW_PROBLEMS: Final = "a quarter of the problems"
FEW_RESPONSES: Final = "two of eight responses"
OTHER_KIND: Final = "with sums and products"
OTHER_POLICY: Final = "half from the weak policy"
UNREFERENCED: Final = "scored without the reference"
REFERENCE_FREE: Final = "trained without the reference"
WITHOUT: Final = "trained and scored without the reference"
VARIANTS: Final = (
    FEW_PROBLEMS,
    FEW_RESPONSES,
    UNREFERENCED,
    REFERENCE_FREE,
    WITHOUT,
    OTHER_POLICY,
    OTHER_KIND,
)
"""Of CE and DPO, in the order in which they are run; the last needs problems of another kind."""
TRAINING: Final[Mapping[str, Any]] = {
    "beta": 0.05,
    "batch_size": 32,
    "epochs": 1.0,
    "step_rule": "newline",
    "lora_rank": 32,
    "tokens_per_forward": 2048,
    "group_prompts": True,
}


@dataclass(frozen=True, kw_only=True)
class WordScale:
    """Sizes of the study.

    Attributes:
        name: ``full``, ``tiny`` or ``gsm8k``.
        steps: Of fine-tuning, in all: the length of the strong policy.
        measured_every: Steps between the lengths that are saved and whose pass@1 is measured.
        least_pass: Pass@1 from which a length is the middle policy.
        block: Problems that are answered (and, to test, scored) together: results grow block by block.
        train_problems: Of the reward models.
        train_responses: To each.
        dev_problems: On which everything is chosen.
        dev_responses: To each.
        test_problems: Of known and of new templates each, for the middle policy.
        other_test_problems: The same for each of the other two.
        test_responses: To each.
        completions: Of a step prefix, for Math-Shepherd's labels.
        seeds: Trainings of CE and of DPO; one of the others.
        rates: Learning rates that are tried with the usual beta.
        betas: Tried at the best rate (models without a beta try as many rates more).
        more_rates: Those rates.
        ns: Responses to choose from.
        variants: Of :data:`VARIANTS`, of each of :data:`FIRST` that is a method.
    """

    name: str
    steps: int
    measured_every: int
    least_pass: float = 0.15
    block: int = 20
    train_problems: int
    train_responses: int = 8
    dev_problems: int
    dev_responses: int = 8
    test_problems: int
    other_test_problems: int
    test_responses: int = 64
    completions: int = 4
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: int = 3
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    betas: tuple[float, ...] = (0.2,)
    more_rates: tuple[float, ...] = (3e-3,)
    ns: tuple[int, ...] = (4, 16, 64)
    variants: tuple[str, ...] = VARIANTS
    training: Mapping[str, Any] = field(default_factory=lambda: TRAINING)

    def config(self, method: str, **changes: Any) -> TrainConfig:
        """Training settings of a method, or of ``verifier``."""
        own = VERIFIER if method == "verifier" else METHODS[method]
        return TrainConfig(**{**self.training, **own, **changes})

    def num_seeds(self, method: str) -> int:
        """How often a method is trained."""
        return self.seeds if method in FIRST else 1


FULL: Final = WordScale(
    name="full",
    steps=600,
    measured_every=15,
    train_problems=1000,
    dev_problems=60,
    test_problems=150,
    other_test_problems=100,
)
TINY: Final = WordScale(
    name="tiny",
    steps=40,
    measured_every=20,
    least_pass=0.05,
    block=8,
    train_problems=16,
    dev_problems=6,
    test_problems=8,
    other_test_problems=4,
    test_responses=16,
    completions=2,
    methods=("implicit-ce", "outcome-head"),
    seeds=1,
    rates=(3e-4,),
    betas=(),
    more_rates=(),
    ns=(4, 16),
    variants=(FEW_PROBLEMS,),
)
GSM8K: Final = replace(
    FULL,
    name="gsm8k",
    steps=480,
    measured_every=60,
    train_problems=2000,
    test_problems=300,
    other_test_problems=100,
    test_responses=32,
    methods=("implicit-ce", "implicit-dpo", "outcome-head"),
    seeds=1,
    ns=(4, 16, 32),
    variants=(),
)
"""GSM8K itself; what is left of its training file for policies has worked solutions for 534 steps."""
SCALES: Final = {scale.name: scale for scale in (FULL, TINY, GSM8K)}


def read_word_scale(name: str, sizes: Mapping[str, int]) -> WordScale:
    """A scale, with some of its numbers replaced, trained in bfloat16 where this machine is fast in it.

    Raises:
        UserError: There is no such scale or number, or it is not at least 1.
    """
    if name not in SCALES:
        raise UserError(f"there is no scale {name!r}", where="--scale", hint=f"use {', '.join(SCALES)}")
    known = sorted(item.name for item in fields(WordScale) if item.type == "int")
    for size, value in sizes.items():
        if size not in known or value < 1:
            raise UserError(f"{size}={value} is not a size", where="--size", hint=f"use {', '.join(known)}")
    changes: dict[str, Any] = {"training": {**SCALES[name].training, "precision": fast_precision()}, **sizes}
    scale = replace(SCALES[name], **changes)
    return replace(scale, ns=tuple(n for n in scale.ns if n <= scale.test_responses))


def sizes_changed(scale: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of a written scale that are not those of its name: what ``--size`` was given."""
    usual = SCALES.get(scale["name"])
    return {
        item.name: scale[item.name]
        for item in fields(WordScale)
        if usual is not None and item.type == "int" and scale[item.name] != getattr(usual, item.name)
    }
