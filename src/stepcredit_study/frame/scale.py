"""The same experiments at two scales: models, data, sizes and settings, read from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stepcredit.checkpoints.loading import pick_device
from stepcredit.errors import UserError
from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.grading.options import GraderOptions
from stepcredit.lab.labs import LABS
from stepcredit.logprobs.float32_products import needs_float32
from stepcredit.recipes import read_settings
from stepcredit.training.config import TrainConfig
from stepcredit.typed_values import typed_record
from stepcredit.wording import suggestion

SCALES = ("lab", "lab2", "paper")
RECIPES = Path(__file__).parents[1] / "recipes"
LEAST_TRAIN_RESPONSES = 8
"""The experiments compare up to so many responses to an instruction."""


def fast_precision() -> str:
    """In which a real model is trained: bfloat16 where this machine is fast in it."""
    return "float32" if needs_float32("bfloat16", pick_device("auto")) else "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much data an experiment uses.

    Attributes:
        train_prompts: Instructions to train on.
        train_responses: Responses to each.
        dev_prompts: Instructions on which weights and aggregates are chosen.
        test_prompts: Instructions that results are reported on.
        test_responses: Responses to each, by each generator.
        completions: Completions of a step prefix for Monte-Carlo labels.
    """

    train_prompts: int
    train_responses: int
    dev_prompts: int
    test_prompts: int
    test_responses: int
    completions: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the time of a plan is computed from; tokens and steps (of a response) are means.

    Attributes:
        devices: Accelerators.
        device_flops: Peak operations per second of each.
        utilisation: Share of it that is reached.
    """

    devices: int
    device_flops: float
    utilisation: float
    prompt_tokens: float
    response_tokens: float
    steps: float


@dataclass(frozen=True, kw_only=True)
class OtherKind:
    """Training data of another kind than what is tested.

    Attributes:
        prompts: A file or hub data set, or ``lab:SPLIT/DOMAIN``; the base answers them.
        grader: How answers to them are judged, where it is not as usual.
        graded: Graded rollouts instead, of instructions whose answers no rule can judge.
    """

    prompts: str | None = None
    grader: GraderOptions | None = None
    graded: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A recipe of all experiments.

    Attributes:
        name: ``lab``, ``lab2`` or ``paper``.
        base: Generator whose weights every model starts from, and whose responses it is trained on.
        generators: Name to model: a hub id or directory, or ``lab:POLICY`` (``lab2:POLICY``).
        prompts: ``train``, ``dev`` and ``test`` to a file or hub data set, or ``lab:SPLIT`` (``lab2:SPLIT``).
        other_kinds: Instructions of other kinds.
        similar_prompts: Near-duplicate instructions share this part of their three-character pieces.
        dissimilar_share: About the share of the instructions that is left without near-duplicates.
        n: Responses to choose from.
        seeds: How often everything is drawn and trained anew.
        sampling: How test responses are drawn.
        train_sampling: How training responses are drawn.
        grader: How final answers are judged.
        policy: How generators run: settings of ``GeneratorOptions``, but for the model.
        training: Training settings of all methods.
        methods: Method to training settings of its own.
        verifier: Training settings of AutoPSV's verifier.
        launchers: Command to what starts it, where it is not run in this process.
        parameters: Generator to number of parameters, for plans.
    """

    name: str
    base: str
    generators: Mapping[str, str]
    prompts: Mapping[str, str]
    other_kinds: Mapping[str, OtherKind]
    sizes: Sizes
    similar_prompts: float
    dissimilar_share: float
    n: tuple[int, ...]
    seeds: int
    sampling: SamplingOptions
    train_sampling: SamplingOptions
    grader: GraderOptions
    policy: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    verifier: Mapping[str, Any]
    launchers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)
    machine: Machine | None = None

    @property
    def is_lab(self) -> bool:
        """Whether the truth of every step is known."""
        return self.name in LABS

    @property
    def setting(self) -> str:
        """Where an experiment takes place, as the beginning of what differs from the paper."""
        settings = {"lab": "The lab's world and policies", "lab2": "The second lab's world and policies"}
        return settings.get(self.name, "Models and data of the paper's sizes")

    def config(self, method: str, **changes: Any) -> TrainConfig:
        """Training settings of a method (a key of ``methods``), or of ``verifier``.

        Raises:
            UserError: The recipe does not know the method.
        """
        own = self.verifier if method == "verifier" else self.methods.get(method)
        if own is None:
            raise UserError(
                f"there is no method {method!r}",
                where=f"recipe {self.name}",
                hint=f"use {', '.join(self.methods)}",
            )
        return TrainConfig(**{**self.training, **own, **changes})

    @property
    def largest_n(self) -> int:
        """The largest number of responses to choose from."""
        return max(self.n)

    def devices(self, command: str, policy: GeneratorOptions | None = None) -> int:
        """Accelerators that a command uses.

        What is launched as several processes takes all of the machine's, an engine as many as its
        settings say, the rest one.

        Args:
            policy: What it generates with, if it does.
        """
        if command in self.launchers:
            assert self.machine is not None, "a recipe with launchers says how many devices there are"
            return self.machine.devices
        return 1 if policy is None else policy.tensor_parallel * policy.data_parallel


def read_scale(name: str, *, quick: bool = False) -> Scale:
    """The recipe of a scale: ``lab``, ``lab2`` or ``paper``.

    Raises:
        UserError: There is no such recipe.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no scale {name!r}", where="--scale", hint=suggestion(name, SCALES))
    content = read_settings(path, lambda _: None, SCALES)
    small, few = content.pop("quick"), content.pop("quick_seeds")
    scale = typed_record(Scale, {"name": name, **content}, path.name)
    return replace(resized(scale, small), seeds=few) if quick else scale


def resized(scale: Scale, sizes: Mapping[str, int]) -> Scale:
    """The scale with other sizes, without the numbers of responses to choose from that are then too large.

    Raises:
        UserError: A size is not known, not at least 1, or too small for what the experiments compare.
    """
    known = [field.name for field in fields(Sizes)]
    for name, value in sizes.items():
        if name not in known or value < 1:
            raise UserError(f"{name}={value} is not a size", where="--size", hint=f"use {', '.join(known)}")
    if sizes.get("train_responses", LEAST_TRAIN_RESPONSES) < LEAST_TRAIN_RESPONSES:
        raise UserError(
            f"train_responses={sizes['train_responses']} is too small: the experiments compare "
            f"fewer responses with {LEAST_TRAIN_RESPONSES}",
            where="--size",
            hint=f"leave it at {LEAST_TRAIN_RESPONSES}; train_prompts makes the data smaller",
        )
    changed = replace(scale.sizes, **sizes)
    n = tuple(size for size in scale.n if size <= changed.test_responses)
    if len(n) < 2:
        raise UserError(
            f"test_responses={changed.test_responses} is too small: responses are chosen from "
            f"{', '.join(map(str, scale.n))}, and the experiments need two of these",
            where="--size",
            hint=f"use at least {sorted(scale.n)[1]}",
        )
    return replace(scale, sizes=changed, n=n)
