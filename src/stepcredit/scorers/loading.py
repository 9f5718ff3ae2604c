"""Reward models from checkpoints: what must be there and fit together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import (
    LoadOptions,
    PRMCard,
    Reference,
    adapter_base,
    adapter_off_is_base,
    check_reference_tokenizer,
    check_vocabulary,
    content_hash,
    context_length,
    known_configuration,
    load_config,
    load_model,
    load_tokenizer,
    model_hash,
    pick_device,
    resolve,
    settings_hash,
    template_hash,
    tokenizer_hash,
    warn_if_edited,
    weights_hash,
)
from stepcredit.encoding import BestOfNEncoding, ChatEncoding, Encoding, ProcessBenchEncoding
from stepcredit.errors import CheckpointError, UserError
from stepcredit.logprobs import CachedTokenLogProbs, DeferredTokenLogProbs, LocalTokenLogProbs
from stepcredit.logprobs.float32_products import fit_to_processor, needs_float32
from stepcredit.logprobs.local import CODE_VERSION
from stepcredit.runs import warn
from stepcredit.scorers.base import Shared
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.steps import StepRule
from stepcredit.types import TokenLogProbs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Checkpoint:
    """A reward model's files: what every kind reads of them, and checks against its ``prm.json``.

    Args:
        settings: Name the directory, and say how it is loaded.

    Raises:
        CheckpointError: There is no such directory, or its ``prm.json`` cannot be read.
    """

    def __init__(self, settings: ScorerSettings) -> None:
        self.settings = settings
        self.load = settings.load
        self.path = resolve(
            settings.directory,
            revision=self.load.revision,
            also=self.load.unsafe_patterns,
            weights=settings.reads_weights,
        )
        self.card = PRMCard.read(self.path) if PRMCard.exists(self.path) else None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer.

        Raises:
            CheckpointError: It, its chat template or the weights are not those that the card names.
        """
        tokenizer = load_tokenizer(
            self.path, trust_remote_code=self.load.trust_remote_code, chat=self.load.chat
        )
        if self.card is not None:
            self.card.check(
                self.path,
                tokenizer_hash=tokenizer_hash(tokenizer),
                template_hash=template_hash(tokenizer),
                also=self.load.unsafe_patterns,
            )
        return tokenizer

    @cached_property
    def content_hash(self) -> str:
        """Hash of its weights, and of those of an adapter's base."""
        return content_hash(self.path, also=self.load.unsafe_patterns)

    @cached_property
    def model_hash(self) -> str:
        """Hash of that and of the configuration, which names its log-probabilities."""
        return model_hash(self.path, also=self.load.unsafe_patterns)

    def shared(self, model: Any) -> Shared:
        """What every scorer is given; without a model, which another process has, it is known by name."""
        settings, label = self.settings, Path(self.settings.directory).name
        if settings.reads_weights:
            label += f"@{self.content_hash.removeprefix('sha256:')[:8]}"
        return {
            "label": label,
            "window": settings.window,
            "with_tokens": settings.with_tokens,
            "num_parameters": 0 if model is None else model.num_parameters(),
        }

    def step_rule(self, usual: str = "auto") -> StepRule:
        """The rule asked for, else the card's, else what is usual for its kind."""
        own = usual if self.card is None else self.card.step_rule
        return StepRule.parse(self.settings.steps or own)

    @property
    def step_separator(self) -> str | None:
        """The separator asked for, else the card's; ``None`` is that of the format."""
        own = None if self.card is None else self.card.step_separator
        return own if self.settings.step_separator is None else self.settings.step_separator

    def model(self, load_weights: Callable[[Checkpoint], Any] | None = None) -> Any:
        """Its model, with an embedding for all that its tokenizer gives.

        Args:
            load_weights: Loads it where it is not an ordinary language model.
        """
        tokenizer = self.tokenizer
        if load_weights is None:
            model = fit_to_processor(load_model(self.path, self.load))
        else:
            model = load_weights(self)
        check_vocabulary(model, tokenizer, self.settings.directory)
        return model

    def identity(self) -> dict[str, Any]:
        """The models by content: weights (unless another process has them), files, reference and beta."""
        settings, also = self.settings, self.load.unsafe_patterns
        card = self.card or PRMCard()
        reference = None if card.reference is None else card.reference.weights_hash
        edited = {}
        if isinstance(settings.reference, str | Path):
            reference = model_hash(resolve(settings.reference, also=also), also=also)
        elif settings.reference is None and card.reference is not None and not settings.reference_free:
            configuration = self._edited_configuration(card.reference)
            edited = {} if configuration is None else {"reference_configuration": configuration}
        return {
            "prm": self.content_hash if settings.reads_weights else None,
            "files": settings_hash(self.path),
            "reference": reference,
            **edited,
            "beta": card.beta if settings.beta is None else settings.beta,
        }

    def _edited_configuration(self, reference: Reference) -> str | None:
        """Hash of the recorded reference's configuration, where it is another than in training."""
        if reference.adapter_off:
            return None  # It is the adapter's base, whose files are among the PRM's.
        try:
            source = reference.locate(self.path)
            path = resolve(source, revision=reference.revision, weights=False)
        except CheckpointError:
            return None  # Loading says that it is not there.
        now = known_configuration(path)
        return None if now == reference.configuration_hash else now

    def encoding(self, *limits: int | None) -> Encoding:
        """Its chat format, in the convention asked for, with the least of the context lengths.

        Raises:
            UserError: There is no such convention.
        """
        convention = self.settings.convention
        if convention not in CONVENTIONS:
            raise UserError(
                f"no convention {convention!r}", where="--convention", hint=f"use {', '.join(CONVENTIONS)}"
            )
        limit = min((limit for limit in limits if limit is not None), default=None)
        return CONVENTIONS[convention](self.tokenizer, self.step_rule(), limit)


def chat_encoding(tokenizer: PreTrainedTokenizerBase, rule: StepRule, max_tokens: int | None) -> ChatEncoding:
    """The format of what is trained here on a model's own chat template."""
    return ChatEncoding(tokenizer, rule, max_tokens, tokenizer_hash=tokenizer_hash(tokenizer))


CONVENTIONS: Mapping[str, Callable[[Any, StepRule, int | None], Encoding]] = {
    "clean": chat_encoding,
    "processbench": ProcessBenchEncoding,
    "best-of-n": BestOfNEncoding,
}
"""How implicit rewards are divided among steps: our way, and the two published evaluators'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What an implicit PRM is made of.

    Attributes:
        reference: Those of the frozen one; ``None`` scores by the policy alone.
    """

    policy: TokenLogProbs
    reference: TokenLogProbs | None
    beta: float
    encoding: Encoding
    shared: Shared


def load_pair(settings: ScorerSettings) -> Pair:
    """The two models of an implicit PRM, and what else it needs.

    Raises:
        CheckpointError: Tokenizer, chat template or reference are not those it was trained with, or
            something is missing.
        UserError: Settings do not fit together.
    """
    checkpoint = Checkpoint(settings)
    beta = _check(checkpoint)
    policy, model = settings.policy, None
    if policy is None:
        policy_hash, model = checkpoint.model_hash, checkpoint.model()
        policy = LocalTokenLogProbs(model, weights_hash=policy_hash)
    limit = _recorded_limit(checkpoint.path, settings.load) if model is None else context_length(model.config)
    reference, reference_limit = _reference(checkpoint, model)
    if reference is None and settings.reference_floor > 0:
        raise UserError("needs a reference", where="--reference-floor", hint="leave it out")
    if reference is not None and settings.cache is not None:
        reference = CachedTokenLogProbs(reference, settings.cache)
    return Pair(
        policy=policy,
        reference=reference,
        beta=beta,
        encoding=checkpoint.encoding(limit, reference_limit),
        shared=checkpoint.shared(model),
    )


def _check(checkpoint: Checkpoint) -> float:
    """Refuse what does not fit together; gives the beta to use."""
    settings, card, where = checkpoint.settings, checkpoint.card, checkpoint.settings.directory
    if settings.reference_free and settings.reference is not None:
        raise UserError(
            "a reference-free score has no reference",
            where="--reference",
            hint="leave out --reference or --reference-free",
        )
    if card is not None and card.family != "implicit":
        raise CheckpointError(
            f"is a {card.family} model, not an implicit PRM", where=where, hint="use load_scorer"
        )
    beta = card.beta if settings.beta is None and card is not None else settings.beta
    if beta is None:
        raise CheckpointError("has no beta", where=where, hint="pass --beta, e.g. 0.05")
    if not isinstance(beta, int | float):
        raise CheckpointError(
            f"its beta is not a number but {beta!r}", where=where, hint="pass --beta, e.g. 0.05"
        )
    if not 0 < beta < math.inf:
        raise UserError(f"must be above 0 and finite, got {beta}", where="--beta", hint="pass e.g. 0.05")
    return beta


def _reference(
    checkpoint: Checkpoint, policy: PreTrainedModel | None
) -> tuple[TokenLogProbs | None, int | None]:
    """The reference's log-probabilities, if there is one, and its context length."""
    settings, card = checkpoint.settings, checkpoint.card
    if settings.reference_free:
        return None, None
    if settings.reference is not None and not isinstance(settings.reference, str | Path):
        return settings.reference, None
    if settings.reference is not None or card is None or card.reference is not None:
        return _load_reference(checkpoint, settings.reference, policy)
    if not card.settings.get("reference_free"):
        warn(
            f"{settings.directory}: prm.json names no reference and does not say that the model was trained "
            "without one; it is scored by its log-probabilities alone; pass --reference or --reference-free"
        )
    return None, None


def _load_reference(
    checkpoint: Checkpoint, given: str | Path | None, policy: PreTrainedModel | None
) -> tuple[TokenLogProbs, int | None]:
    load, cache = checkpoint.load, checkpoint.settings.cache
    recorded = None if checkpoint.card is None else checkpoint.card.reference
    is_adapter = (checkpoint.path / "adapter_config.json").is_file()
    if given is None and is_adapter and (recorded is None or recorded.adapter_off):
        if adapter_off_is_base(checkpoint.path):
            model = fit_to_processor(load_model(checkpoint.path, load)) if policy is None else policy
            # Named by its base alone, so that what a cache holds serves all adapters on it.
            base = resolve(adapter_base(checkpoint.path), also=load.unsafe_patterns)
            base_hash = model_hash(base, also=load.unsafe_patterns)
            off = LocalTokenLogProbs(model, weights_hash=base_hash, adapter_off=True)
            return off, context_length(model.config)
        given = adapter_base(checkpoint.path)
    source, path = _locate_reference(checkpoint, given)
    check_reference_tokenizer(path, checkpoint.tokenizer, source, trust_remote_code=load.trust_remote_code)

    def log_probs() -> LocalTokenLogProbs:
        model = fit_to_processor(load_model(path, load))
        check_vocabulary(model, checkpoint.tokenizer, path)
        return LocalTokenLogProbs(model, weights_hash=model_hash(path, also=load.unsafe_patterns))

    if cache is None or not (path / "config.json").is_file():
        loaded = log_probs()
        return loaded, context_length(loaded.model.config)
    # What is in the cache already needs no model.
    device = pick_device(load.device)
    identity = {
        "model": model_hash(path, also=load.unsafe_patterns),
        "load": [load.dtype, device, load.device_map, load.attention],
        **({"products": "float32"} if needs_float32(load.dtype, device) else {}),
        "versions": [CODE_VERSION, version("torch"), version("transformers")],
    }
    return DeferredTokenLogProbs(log_probs, identity, cache), _recorded_limit(path, load)


def _locate_reference(checkpoint: Checkpoint, given: str | Path | None) -> tuple[str | Path, Path]:
    """The reference's name and its directory here; it is the one that the PRM was trained with."""
    recorded = None if checkpoint.card is None else checkpoint.card.reference
    if given is None and recorded is None:
        raise CheckpointError(
            "is a plain checkpoint, which names no reference",
            where=checkpoint.path,
            hint="pass --reference, or --reference-free",
        )
    source = recorded.locate(checkpoint.path) if given is None and recorded is not None else given
    assert source is not None
    revision = None if recorded is None else recorded.revision
    try:
        path = resolve(source, revision=revision, also=checkpoint.load.unsafe_patterns)
    except CheckpointError as error:
        raise CheckpointError(
            f"the reference model {source} is not there",
            where=checkpoint.path,
            hint="pass --reference with where it is now",
        ) from error
    # Cards of earlier versions hold the hash of an adapter without its base.
    contents = {None, weights_hash(path), content_hash(path, also=checkpoint.load.unsafe_patterns)}
    if recorded is not None and recorded.weights_hash is None:
        warn(
            f"{checkpoint.path}: prm.json has no weights_hash of the reference, so it cannot be checked "
            f"whether {source} is the one that it was trained with"
        )
    if recorded is not None and recorded.weights_hash not in contents:
        raise CheckpointError(
            "is not the reference that the PRM was trained with (its weights differ)",
            where=source,
            hint=f"use {recorded.source}",
        )
    if recorded is not None:
        warn_if_edited(recorded.configuration_hash, path, where=source)
    return source, path


def _recorded_limit(path: Path, load: LoadOptions) -> int | None:
    """The context length of a model that is not loaded, by its configuration if it is there."""
    return context_length(load_config(path, load)) if (path / "config.json").is_file() else None
