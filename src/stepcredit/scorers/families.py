"""Every kind of reward model from a directory: which family it is, and its scorer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import (
    LoadOptions,
    PRMCard,
    check_vocabulary,
    content_hash,
    load_model,
    load_tokenizer,
    resolve,
    template_hash,
    tokenizer_hash,
)
from stepcredit.encoding import (
    ChatEncoding,
    ConversationEncoding,
    MathShepherdEncoding,
    QwenPRMEncoding,
    RLHFlowEncoding,
    SkyworkPRMEncoding,
    StepwiseEncoding,
    make_encoding,
)
from stepcredit.errors import CheckpointError, UserError
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.scorers.base import DEFAULT_WINDOW, WindowedScorer
from stepcredit.scorers.headed import load_headed
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.loading import context_length, model_label
from stepcredit.scorers.log_probability import LogProbabilityScorer
from stepcredit.scorers.readers import (
    HeadReader,
    LabelTokenReader,
    SequenceReader,
    StepReader,
    TokenValueReader,
)
from stepcredit.scorers.step_models import TOKEN_MEAN, StepModelScorer, TokenHeadScorer
from stepcredit.steps import StepRule
from stepcredit.types import TokenLogProbs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MakeEncoding = Callable[["PreTrainedTokenizerBase", StepRule, int | None], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFamily:
    """How a kind of step model is loaded and read.

    Attributes:
        encoding: Makes its format from (tokenizer, step rule, context length).
        read: ``label`` tokens, a ``head``, a head at all ``tokens``, a ``backbone`` with a head, or a
            ``sequence`` classifier.
        step_rule: What it was trained on.
        response_aggregate: What its response's reward is unless another is asked for.
    """

    encoding: MakeEncoding
    read: str
    step_rule: str = "auto"
    response_aggregate: str = "min"


STEP_FAMILIES = {
    "math-shepherd": StepFamily(
        encoding=lambda tokenizer, rule, limit: MathShepherdEncoding(tokenizer, rule, max_tokens=limit),
        read="label",
    ),
    "rlhflow": StepFamily(
        encoding=lambda tokenizer, rule, limit: RLHFlowEncoding(tokenizer, rule, max_tokens=limit),
        read="label",
    ),
    "qwen-prm": StepFamily(
        encoding=lambda tokenizer, rule, limit: QwenPRMEncoding(tokenizer, rule, max_tokens=limit),
        read="backbone",
        step_rule="blank-line",
    ),
    "skywork-prm": StepFamily(
        encoding=lambda tokenizer, rule, limit: SkyworkPRMEncoding(tokenizer, rule, max_tokens=limit),
        read="backbone",
        step_rule="newline",
    ),
    "trl-prm": StepFamily(
        encoding=lambda tokenizer, rule, limit: StepwiseEncoding(tokenizer, rule, max_tokens=limit),
        read="head",
    ),
    "value-head": StepFamily(
        encoding=lambda tokenizer, rule, limit: ChatEncoding(
            tokenizer, rule, max_tokens=limit, tokenizer_hash=tokenizer_hash(tokenizer)
        ),
        read="head",
        response_aggregate="last",
    ),
    "token-head": StepFamily(
        encoding=lambda tokenizer, rule, limit: ChatEncoding(
            tokenizer, rule, max_tokens=limit, tokenizer_hash=tokenizer_hash(tokenizer)
        ),
        read="tokens",
        response_aggregate=TOKEN_MEAN,
    ),
    "orm": StepFamily(
        encoding=lambda tokenizer, rule, limit: ConversationEncoding(tokenizer, rule, limit),
        read="sequence",
        response_aggregate="last",
    ),
}
FAMILIES = ("auto", "implicit", "log-probability", *STEP_FAMILIES)
"""Kinds of reward model; ``auto`` asks the checkpoint."""


def family_of(path: Path, *, implicit: bool = False) -> str:
    """Which of :data:`FAMILIES` a checkpoint is, by its ``prm.json`` or its architecture.

    Args:
        path: The checkpoint.
        implicit: Whether the caller has what makes an implicit PRM of a plain language model.

    Raises:
        CheckpointError: It does not tell.
    """
    if PRMCard.exists(path):
        return PRMCard.read(path).family
    configuration = _read_configuration(path)
    architecture = str(next(iter(configuration.get("architectures") or []), ""))
    by_ending = {
        "ForProcessRewardModel": "qwen-prm",
        "ForPrmModel": "skywork-prm",
        "ForSequenceClassification": "orm",
    }
    for ending, family in by_ending.items():
        if architecture.endswith(ending):
            return family
    if architecture.endswith("ForTokenClassification"):
        num_labels = len(configuration.get("id2label") or {0: "", 1: ""})
        return "value-head" if num_labels == 1 else "trl-prm"
    if implicit:
        return "implicit"
    raise CheckpointError(
        "does not tell which kind of reward model it is",
        where=path,
        hint="pass --reference and --beta for an implicit PRM, or --family",
    )


def _read_configuration(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"is not JSON ({error})", where=file, hint="restore it") from error
    if not isinstance(content, dict):
        raise CheckpointError("must be a JSON object", where=file, hint="restore it")
    return content


def step_rule_of(path: Path, family: str) -> str:
    """The step rule that a reward model was trained with, as far as it is known."""
    if PRMCard.exists(path):
        return PRMCard.read(path).step_rule
    return STEP_FAMILIES[family].step_rule if family in STEP_FAMILIES else "auto"


def load_scorer(
    directory: str | Path,
    *,
    family: str = "auto",
    policy: TokenLogProbs | None = None,
    reference: str | Path | TokenLogProbs | None = None,
    beta: float | None = None,
    reference_free: bool = False,
    reference_floor: float = 0.0,
    steps: str | None = None,
    convention: str = "clean",
    response_aggregate: str | None = None,
    load: LoadOptions | None = None,
    cache: str | Path | None = None,
    window: int = DEFAULT_WINDOW,
    with_tokens: bool = False,
) -> WindowedScorer:
    """The scorer of a checkpoint, whichever kind of reward model it is.

    Args:
        directory: The checkpoint: a directory or hub id.
        family: One of :data:`FAMILIES`.
        policy: Implicit PRMs: see :meth:`ImplicitPRM.from_pretrained`.
        reference: Implicit PRMs: likewise.
        beta: Implicit PRMs: scale of the reward.
        reference_free: Implicit PRMs: score by the policy alone.
        reference_floor: Implicit PRMs: least probability that the reference is taken to give a token.
        steps: Step rule; by default the model's own.
        convention: Implicit PRMs and log-probabilities: how rewards are laid on steps.
        response_aggregate: Other models: which aggregate of the step scores is the response's reward.
        load: How models are loaded.
        cache: Directory that keeps a reference's log-probabilities.
        window: Most rollouts held in memory.
        with_tokens: Whether scores hold token rewards, where the model gives such.

    Raises:
        CheckpointError: The checkpoint cannot be used as asked.
        UserError: An option does not belong to the family.
    """
    load = load or LoadOptions()
    path = resolve(directory, revision=load.revision, also=load.unsafe_patterns, weights=policy is None)
    if family not in FAMILIES:
        raise UserError(f"no family {family!r}", where="--family", hint=f"use {', '.join(FAMILIES)}")
    if family == "auto":
        is_implicit = policy is not None or reference is not None or beta is not None or reference_free
        family = family_of(path, implicit=is_implicit)
    if family == "implicit":
        if response_aggregate is not None:
            raise UserError("the reward of an implicit PRM is the sum of its steps", where="--aggregate")
        return ImplicitPRM.from_pretrained(
            directory,
            policy=policy,
            reference=reference,
            beta=beta,
            reference_free=reference_free,
            reference_floor=reference_floor,
            steps=steps,
            convention=convention,
            load=load,
            cache=cache,
            window=window,
            with_tokens=with_tokens,
        )
    given = {
        "--policy-server": policy,
        "--reference": reference,
        "--beta": beta,
        "--reference-free": reference_free or None,
        "--reference-floor": reference_floor or None,
        "--cache": cache,
    }
    for flag, value in given.items():
        if value is not None:
            raise UserError(f"has no meaning for a {family} model", where=flag, hint="leave it out")
    rule = StepRule.parse(steps or step_rule_of(path, family))
    if family == "log-probability":
        return _load_log_probability(
            directory, path, rule, convention, response_aggregate or "sum", load, window, with_tokens
        )
    if convention != "clean":
        raise UserError(f"has no meaning for a {family} model", where="--convention", hint="leave it out")
    return _load_step_model(directory, path, family, rule, response_aggregate, load, window, with_tokens)


def _load_log_probability(
    directory: str | Path,
    path: Path,
    rule: StepRule,
    convention: str,
    response_reward: str,
    load: LoadOptions,
    window: int,
    with_tokens: bool,
) -> WindowedScorer:
    tokenizer = load_tokenizer(path, trust_remote_code=load.trust_remote_code)
    model = load_model(path, load)
    check_vocabulary(model, tokenizer, directory)
    encoding = make_encoding(
        convention,
        tokenizer,
        rule,
        max_tokens=context_length(model),
        tokenizer_hash=tokenizer_hash(tokenizer),
    )
    weights = content_hash(path, also=load.unsafe_patterns)
    scorer = LogProbabilityScorer(
        LocalTokenLogProbs(model, weights_hash=weights),
        encoding,
        label=model_label(directory, weights),
        response_reward=response_reward,
        window=window,
        with_tokens=with_tokens,
    )
    scorer.ledger.model_parameters = model.num_parameters()
    return scorer


def _load_step_model(
    directory: str | Path,
    path: Path,
    name: str,
    rule: StepRule,
    response_aggregate: str | None,
    load: LoadOptions,
    window: int,
    with_tokens: bool,
) -> WindowedScorer:
    family = STEP_FAMILIES[name]
    tokenizer = load_tokenizer(path, trust_remote_code=load.trust_remote_code)
    if PRMCard.exists(path):
        PRMCard.read(path).check(
            path,
            tokenizer_hash=tokenizer_hash(tokenizer),
            template_hash=template_hash(tokenizer),
            also=load.unsafe_patterns,
        )
    model = _load_step_weights(path, family, load)
    check_vocabulary(model, tokenizer, directory)
    encoding = family.encoding(tokenizer, rule, context_length(model))
    kind = TokenHeadScorer if family.read == "tokens" else StepModelScorer
    scorer = kind(
        _make_reader(model, encoding, family),
        encoding,
        family=name,
        label=model_label(directory, content_hash(path, also=load.unsafe_patterns)),
        response_aggregate=response_aggregate or family.response_aggregate,
        window=window,
        with_tokens=with_tokens,
    )
    scorer.ledger.model_parameters = model.num_parameters()
    return scorer


def _load_step_weights(path: Path, family: StepFamily, load: LoadOptions) -> Any:
    import transformers

    if family.read == "backbone":
        return load_headed(path, load)
    model_class = {
        "label": transformers.AutoModelForCausalLM,
        "head": transformers.AutoModelForTokenClassification,
        "tokens": transformers.AutoModelForTokenClassification,
        "sequence": transformers.AutoModelForSequenceClassification,
    }[family.read]
    return load_model(path, load, model_class=model_class)


def _make_reader(model: Any, encoding: Any, family: StepFamily) -> StepReader:
    if family.read == "label":
        return LabelTokenReader(model, encoding.label_ids)
    if family.read == "tokens":
        return TokenValueReader(model)
    if family.read == "sequence":
        return SequenceReader(model)
    return HeadReader(model)
