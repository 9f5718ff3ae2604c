"""The implicit PRM from checkpoints: what must be there and fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stepcredit.checkpoints import (
    LoadOptions,
    PRMCard,
    check_vocabulary,
    content_hash,
    load_model,
    load_tokenizer,
    pick_device,
    resolve,
    template_hash,
    tokenizer_hash,
    weights_hash,
)
from stepcredit.encoding import make_encoding
from stepcredit.errors import CheckpointError, UserError
from stepcredit.logprobs import CachedTokenLogProbs, DeferredTokenLogProbs, LocalTokenLogProbs
from stepcredit.logprobs.local import CODE_VERSION
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.steps import StepRule
from stepcredit.types import TokenLogProbs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NO_LIMIT = 10**9
_Implicit = TypeVar("_Implicit", bound=ImplicitPRM)


def load_implicit(
    kind: type[_Implicit],
    directory: str | Path,
    *,
    policy: TokenLogProbs | None,
    reference: str | Path | TokenLogProbs | None,
    beta: float | None,
    reference_free: bool,
    reference_floor: float,
    steps: str | None,
    convention: str,
    load: LoadOptions | None,
    cache: str | Path | None,
    window: int,
    with_tokens: bool,
) -> _Implicit:
    """See :meth:`stepcredit.scorers.implicit.ImplicitPRM.from_pretrained`."""
    load = load or LoadOptions()
    path = resolve(directory, revision=load.revision, also=load.unsafe_patterns, weights=policy is None)
    card = PRMCard.read(path) if PRMCard.exists(path) else None
    beta = _check(directory, card, reference, beta, reference_free=reference_free)
    tokenizer = load_tokenizer(path, trust_remote_code=load.trust_remote_code)
    if card is not None:
        card.check(
            path,
            tokenizer_hash=tokenizer_hash(tokenizer),
            template_hash=template_hash(tokenizer),
            also=load.unsafe_patterns,
        )
    weights, model = None, None
    if policy is None:
        weights, model = content_hash(path, also=load.unsafe_patterns), load_model(path, load)
        check_vocabulary(model, tokenizer, directory)
        policy = LocalTokenLogProbs(model, weights_hash=weights)
    limits = [_recorded_limit(path, load) if model is None else context_length(model)]
    has_reference = reference is not None or card is None or card.reference is not None
    if reference_free or not has_reference:
        reference = None
    elif reference is None or isinstance(reference, str | Path):
        reference, limit = _load_reference(path, card, reference, model, tokenizer, load, cache)
        limits.append(limit)
    if cache is not None and reference is not None:
        reference = CachedTokenLogProbs(reference, cache)
    encoding = make_encoding(
        convention,
        tokenizer,
        StepRule.parse(steps or ("auto" if card is None else card.step_rule)),
        max_tokens=min((limit for limit in limits if limit is not None), default=None),
        tokenizer_hash=tokenizer_hash(tokenizer),
    )
    label = model_label(directory, weights)
    if reference is None and reference_floor > 0:
        raise UserError("needs a reference", where="--reference-floor", hint="leave it out")
    scorer = kind(
        policy,
        reference,
        beta,
        encoding,
        reference_floor=reference_floor,
        label=label,
        window=window,
        with_tokens=with_tokens,
    )
    scorer.ledger.model_parameters = 0 if model is None else model.num_parameters()
    return scorer


def _check(
    directory: str | Path, card: PRMCard | None, reference: Any, beta: float | None, *, reference_free: bool
) -> float:
    """Refuse what does not fit together; gives the beta to use."""
    if reference_free and reference is not None:
        raise UserError("a reference-free score has no reference", where="--reference", hint="leave one out")
    if card is not None and card.family != "implicit":
        raise CheckpointError(
            f"is a {card.family} model, not an implicit PRM", where=directory, hint="use load_scorer"
        )
    beta = card.beta if beta is None and card is not None else beta
    if beta is None:
        raise CheckpointError("has no beta of its own", where=directory, hint="pass --beta, e.g. 0.05")
    if not isinstance(beta, int | float):
        raise CheckpointError(
            f"its beta is not a number but {beta!r}", where=directory, hint="pass --beta, e.g. 0.05"
        )
    if not 0 < beta < math.inf:
        raise UserError(f"must be above 0 and finite, got {beta}", where="--beta", hint="pass e.g. 0.05")
    return beta


def _load_reference(
    path: Path,
    card: PRMCard | None,
    reference: str | Path | None,
    policy: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    load: LoadOptions,
    cache: str | Path | None,
) -> tuple[TokenLogProbs, int | None]:
    """The reference's log-probabilities and its context length."""
    recorded = None if card is None else card.reference
    is_adapter = (path / "adapter_config.json").is_file()
    if reference is None and is_adapter and (recorded is None or recorded.adapter_off):
        model = load_model(path, load) if policy is None else policy
        off = LocalTokenLogProbs(
            model, weights_hash=content_hash(path, also=load.unsafe_patterns), adapter_off=True
        )
        return off, context_length(model)
    if reference is None and recorded is None:
        raise CheckpointError(
            "is a plain checkpoint, which names no reference",
            where=path,
            hint="pass --reference, or --reference-free",
        )
    source: str | Path
    if reference is not None:
        source = reference
    else:
        assert recorded is not None
        source = recorded.locate(path)
    revision = None if recorded is None else recorded.revision
    reference_path = _locate(source, path, revision, load.unsafe_patterns)
    # Cards of earlier versions hold the hash of an adapter without its base.
    contents = {None, weights_hash(reference_path), content_hash(reference_path)}
    if recorded is not None and recorded.weights_hash not in contents:
        raise CheckpointError(
            "is not the reference that the PRM was trained with (its weights differ)",
            where=source,
            hint=f"use {recorded.source}",
        )
    theirs = load_tokenizer(reference_path, trust_remote_code=load.trust_remote_code)
    if tokenizer_hash(theirs) != tokenizer_hash(tokenizer):
        raise CheckpointError(
            "its tokenizer differs from the PRM's",
            where=source,
            hint="use the model that the PRM was trained from",
        )
    if cache is None or not (reference_path / "config.json").is_file():
        return _reference_log_probs(reference_path, tokenizer, load)
    # What is in the cache already needs no model.
    identity = {
        "weights": content_hash(reference_path, also=load.unsafe_patterns),
        "load": [load.dtype, pick_device(load.device), load.device_map, load.attention],
        "versions": [CODE_VERSION, version("torch"), version("transformers")],
    }
    deferred = DeferredTokenLogProbs(
        lambda: _reference_log_probs(reference_path, tokenizer, load)[0], identity, cache
    )
    return deferred, _recorded_limit(reference_path, load)


def _reference_log_probs(
    path: Path, tokenizer: PreTrainedTokenizerBase, load: LoadOptions
) -> tuple[TokenLogProbs, int | None]:
    model = load_model(path, load)
    check_vocabulary(model, tokenizer, path)
    return LocalTokenLogProbs(
        model, weights_hash=content_hash(path, also=load.unsafe_patterns)
    ), context_length(model)


def _locate(source: str | Path, prm: Path, revision: str | None, also: Sequence[str]) -> Path:
    try:
        return resolve(source, revision=revision, also=also)
    except CheckpointError as error:
        raise CheckpointError(
            f"the reference model {source} is not there",
            where=prm,
            hint="pass --reference with where it is now",
        ) from error


def model_label(source: str | Path, weights: str | None) -> str:
    """What names a model in score files: its last name and the start of its weights' hash, if known."""
    name = Path(source).name
    return name if weights is None else f"{name}@{weights.removeprefix('sha256:')[:8]}"


def context_length(model: Any) -> int | None:
    """Most tokens that the model was made for, ``None`` where there is no limit."""
    return _limit_of(model.config)


def _limit_of(configuration: Any) -> int | None:
    limit = getattr(configuration.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and 0 < limit < _NO_LIMIT else None


def _recorded_limit(path: Path, load: LoadOptions) -> int | None:
    """The context length of a model that is not loaded, by its configuration if it is there."""
    from transformers import AutoConfig

    if not (path / "config.json").is_file():
        return None
    try:
        return _limit_of(AutoConfig.from_pretrained(str(path), trust_remote_code=load.trust_remote_code))
    except Exception as error:
        raise CheckpointError(
            f"its config.json cannot be read ({str(error).splitlines()[0][:200]})",
            where=path,
            hint="restore it, or pass --trust-remote-code if it needs the code that comes with it",
        ) from error
