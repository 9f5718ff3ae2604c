"""How a reward model is trained. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stepcredit.errors import UserError
from stepcredit.options import option, same_option
from stepcredit.scorers.kinds import KINDS, TRAINED
from stepcredit.scorers.options import ScorerOptions
from stepcredit.steps import RULE_NAMES, StepRule

OBJECTIVE_NAMES = (
    "ce",
    "dpo",
    "kto",
    "nca",
    "ipo",
    "bco",
    "bco-pair",
    "pair-margin",
    "ce-prefix",
    "prefix",
    "token-ce",
    "step-ce",
    "label-ce",
)
_IMPLICIT_ONLY = ("kto", "ipo", "ce-prefix", "prefix")
_OF_PREFIXES = ("token-ce", "step-ce", "label-ce")
_READ_BY = {
    "right_weight": ("kto",),
    "wrong_weight": ("kto",),
    "prefix_weight": ("ce-prefix",),
    "prefix_margin": ("ce-prefix", "prefix"),
    "prefix_beta": ("ce-prefix", "prefix"),
    "pair_scale": ("pair-margin",),
    "pair_margin": ("pair-margin",),
}
"""The objectives' constants, and which objectives read them."""
# What changes speed, memory or what is reported, but not the weights beyond rounding.
_NOT_IN_RESULT = (
    "tokens_per_forward",
    "layout",
    "gradient_checkpointing",
    "log_every",
    "save_every",
    "report_to",
)
# What earlier versions did not have; at its default it leaves the name of the work as it was.
_ADDED = ("step_separator", "last_step_only", "max_step_tokens")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run; the defaults of stepcredit train are the paper's (arXiv:2412.01981)."""

    family: str = option(
        "what is trained: the log-ratio to a reference (implicit), a head for the value of a prefix "
        "(value-head) or of a token, whose mean is the reward (token-head: Q-RM), a classifier at the "
        "separator after each step (token-classifier), or label tokens at tags (math-shepherd) or as answers "
        "to each step in the model's own chat format (rlhflow)",
        default="implicit",
        choices=TRAINED,
    )
    objective: str = option("training objective", default="ce", choices=OBJECTIVE_NAMES)
    beta: float = option("scale of the log-ratio (implicit)", default=0.05)
    right_weight: float = option("KTO: weight of right responses", default=1.0)
    wrong_weight: float = option("KTO: weight of wrong responses", default=1.0)
    prefix_weight: float = option("ce-prefix: weight of the prefix term", default=1.0)
    prefix_margin: float = option("prefix terms: margin", default=5.0)
    prefix_beta: float = option("prefix terms: scale of a prefix's mean log-ratio", default=10.0)
    pair_scale: float = option("pair-margin: scale of the difference of two rewards", default=0.2)
    pair_margin: float = option("pair-margin: margin that the scaled difference should exceed", default=2.0)
    balance: str = option(
        "drop responses until there are as many right as wrong ones, over the whole data set or "
        "for each instruction",
        default="none",
        choices=("none", "dataset", "instruction"),
    )
    pairs_per_prompt: int = option("paired objectives: largest number of pairs per prompt", default=16)
    step_rule: str = option(
        f"how responses are split into steps: {RULE_NAMES}", default="auto", flag="--steps", metavar="RULE"
    )
    step_separator: str | None = option(
        "token-classifier: text put after each step, at which it is classified (\\n is a line end); default "
        "is the initial weights' own, else \\n",
        default=None,
        metavar="TEXT",
    )
    last_step_only: bool = option(
        "step objectives: train on the label of each response's last step only", default=False
    )
    max_step_tokens: int | None = same_option(ScorerOptions, "max_step_tokens")
    max_tokens: int | None = option(
        "longest sequence, in tokens; default is the model's context", default=None
    )
    over_long: str = option(
        "what to do with longer sequences: leave them out, or cut them after the last whole step that fits",
        default="drop",
        choices=("drop", "truncate"),
    )
    learning_rate: float = option("highest learning rate", default=5e-7)
    batch_size: int = option("responses (pairs for paired objectives) per optimizer step", default=64)
    group_prompts: bool = option(
        "put the responses to a prompt into the same optimizer step, so that what they share is "
        "computed once",
        default=False,
    )
    epochs: float = option("passes over the data", default=1.0)
    schedule: str = option(
        "learning-rate schedule after warm-up", default="cosine", choices=("cosine", "linear", "constant")
    )
    warmup: float = option("share of the steps over which the learning rate rises", default=0.03)
    final_learning_rate: float = option("cosine: final learning rate, as a share of the highest", default=0.1)
    weight_decay: float = option("AdamW weight decay", default=0.0)
    adam_beta1: float = option("Adam's first decay rate", default=0.9)
    adam_beta2: float = option("Adam's second decay rate", default=0.95)
    max_grad_norm: float = option("gradients are clipped to this norm; 0 is off", default=1.0)
    lora_rank: int = option("train a LoRA adapter of this rank; 0 trains all weights", default=0)
    lora_alpha: int | None = option(
        "LoRA alpha (the scale times the rank); default is twice the rank", default=None
    )
    lora_dropout: float = option("LoRA dropout", default=0.0)
    lora_targets: str = option("modules that get an adapter, comma-separated", default="all-linear")
    precision: str = option(
        "number format of the forward and backward passes (weights and optimizer stay float32)",
        default="float32",
        choices=("float32", "bfloat16"),
    )
    reference_free: bool = option(
        "train on the policy's log-probabilities alone, without a reference", default=False
    )
    live_reference: bool = option(
        "run the reference in each step, instead of once before training", default=False
    )
    tokens_per_forward: int | None = option(
        "largest number of tokens per forward pass; larger batches are split and their gradients "
        "accumulated; default is up to 2048 on a CPU, up to 16384 elsewhere, by the sizes of the model and "
        "of the device's memory; with --group-prompts a prompt's responses together may take more",
        default=None,
    )
    layout: str = option(
        "pad sequences to one length, or pack them into one row in which common prefixes appear "
        "once; auto packs if the model allows it and the sequences are long enough for it to pay",
        default="auto",
        choices=("auto", "padded", "packed"),
    )
    gradient_checkpointing: bool = option("recompute activations to save memory", default=False)
    eval_every: int | None = option(
        "steps between held-out evaluations; default is four evaluations per epoch", default=None
    )
    keep_best: bool = option(
        "keep the weights with the best held-out AUC instead of the last ones", default=True
    )
    patience: int | None = option(
        "stop after this many evaluations in a row without a better AUC", default=None
    )
    save_every: int | None = option(
        "steps between checkpoints; default is ten checkpoints per run", default=None
    )
    log_every: int = option("steps between lines of the training log", default=10)
    report_to: str = option(
        "where else to report the training log; TensorBoard files go to OUT.tensorboard",
        default="none",
        choices=("none", "tensorboard", "wandb", "trackio"),
    )

    def __post_init__(self) -> None:
        positive: tuple[str, ...] = ("beta", "learning_rate", "batch_size", "epochs", "pairs_per_prompt")
        positive += ("tokens_per_forward", "log_every", "prefix_beta", "pair_scale")
        positive += ("eval_every", "save_every", "patience", "max_tokens", "lora_alpha")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"must be above 0, got {value}", where=_flag(name))
        for name in ("warmup", "final_learning_rate", "lora_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"must lie in [0, 1], got {getattr(self, name)}", where=_flag(name))
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"must lie in [0, 1), got {getattr(self, name)}", where=_flag(name))
        for name in ("lora_alpha", "lora_dropout", "lora_targets"):
            if not self.lora_rank and getattr(self, name) != self.__dataclass_fields__[name].default:
                raise UserError(
                    "is of adapters, and none is trained", where=_flag(name), hint="pass --lora-rank too"
                )
        for name in ("lora_rank", "weight_decay", "max_grad_norm", "right_weight", "wrong_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"must not be negative, got {getattr(self, name)}", where=_flag(name))
        for name, allowed in (("family", TRAINED), ("objective", OBJECTIVE_NAMES)):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"there is no {getattr(self, name)!r}",
                    where=_flag(name),
                    hint=f"use {', '.join(allowed)}",
                )
        for name, readers in _READ_BY.items():
            if (
                self.objective not in readers
                and getattr(self, name) != self.__dataclass_fields__[name].default
            ):
                raise UserError(
                    f"does not apply to the objective {self.objective}",
                    where=_flag(name),
                    hint=f"leave it out, or use --objective {' or '.join(readers)}",
                )
        if self.learns != "ratios" and (self.reference_free or self.live_reference):
            raise UserError("only implicit reward models have a reference", where="--family")
        if self.learns != "ratios" and self.objective in _IMPLICIT_ONLY:
            raise UserError(
                f"{self.objective} trains implicit reward models only",
                where="--objective",
                hint="use ce, token-ce or step-ce",
            )
        if self.learns == "tokens" and self.objective in _OF_PREFIXES:
            raise UserError(
                f"{self.objective} needs the value of a prefix, which a token head does not have",
                where="--objective",
                hint="use pair-margin, ce or dpo, or --family value-head",
            )

    @property
    def learns(self) -> str | None:
        """What training gives the kind of reward model; see :class:`stepcredit.scorers.kinds.Line`."""
        return KINDS[self.family].learns

    @property
    def adapted_modules(self) -> tuple[str, ...]:
        """The names in ``lora_targets``."""
        return tuple(name.strip() for name in self.lora_targets.split(",") if name.strip())

    @property
    def has_reference(self) -> bool:
        """Whether rewards are relative to a reference."""
        return self.learns == "ratios" and not self.reference_free

    def token_budget(self, device_type: str) -> int:
        """Most tokens of one forward pass."""
        from stepcredit.logprobs import default_token_budget  # which loads torch

        return self.tokens_per_forward or default_token_budget(device_type)

    def determining(self) -> dict[str, Any]:
        """The settings that decide the resulting weights, JSON-able."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in _NOT_IN_RESULT and not (name in _ADDED and not value)
        }

    @property
    def rule(self) -> StepRule:
        """How responses are split into steps."""
        return StepRule.parse(StepRule.text(self.step_rule, self.max_step_tokens) or "auto")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
