"""The table of kinds of reward model: a new kind is one file in this room and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepcredit.checkpoints import PRMCard, resolve
from stepcredit.checkpoints.json_files import read_object
from stepcredit.errors import CheckpointError, UserError
from stepcredit.scorers.settings import ScorerSettings, takes_settings

if TYPE_CHECKING:
    from stepcredit.scorers.base import ResponseScorer
    from stepcredit.scorers.kind import Kind


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        record: File of this room and name of the :class:`~stepcredit.scorers.kind.Kind` in it, which is
            imported when it is used: ``--help`` must not wait for torch.
        learns: What training gives it: log-``ratios`` to a reference, whose sums are values of prefixes;
            ``values`` of prefixes; values of single ``tokens``. ``None``: it is not trained here.
    """

    record: str
    learns: Literal["ratios", "values", "tokens"] | None = None


KINDS: Mapping[str, Line] = {
    "implicit": Line("implicit:IMPLICIT", learns="ratios"),
    "log-probability": Line("log_probability:LOG_PROBABILITY"),
    "value-head": Line("heads:VALUE_HEAD", learns="values"),
    "token-head": Line("heads:TOKEN_HEAD", learns="tokens"),
    "math-shepherd": Line("label_tokens:MATH_SHEPHERD", learns="values"),
    "rlhflow": Line("label_tokens:RLHFLOW", learns="values"),
    "qwen-prm": Line("published_heads:QWEN_PRM"),
    "skywork-prm": Line("published_heads:SKYWORK_PRM"),
    "token-classifier": Line("token_classifier:TOKEN_CLASSIFIER", learns="values"),
    "generative": Line("generative:GENERATIVE"),
    "orm": Line("sequence_classifier:ORM"),
    "remote": Line("remote:REMOTE"),
}
FAMILIES = ("auto", *KINDS)
"""Names of kinds; ``auto`` asks the checkpoint."""

TRAINED = tuple(name for name, line in KINDS.items() if line.learns is not None)
"""Names of the kinds that are trained here."""


def get_kind(name: str) -> Kind:
    """The record of a kind.

    Raises:
        UserError: There is no such kind.
    """
    if name not in KINDS:
        raise UserError(f"no family {name!r}", where="--family", hint=f"use {', '.join(FAMILIES)}")
    file, _, record = KINDS[name].record.partition(":")
    kind: Kind = getattr(import_module(f"stepcredit.scorers.{file}"), record)
    return kind


def family_of(path: Path, *, implicit: bool = False) -> str:
    """Which kind a checkpoint is, by its ``prm.json`` or its architecture.

    Args:
        implicit: Whether the caller has what makes an implicit PRM of a plain language model.

    Raises:
        CheckpointError: It does not say.
    """
    if PRMCard.exists(path):
        return PRMCard.read(path).family
    configuration = _read_configuration(path)
    for name in KINDS:
        if get_kind(name).recognises(configuration):
            return name
    if implicit:
        return "implicit"
    raise CheckpointError(
        "does not say which kind of reward model it is",
        where=path,
        hint="pass --reference and --beta for an implicit PRM, or --family",
    )


def _read_configuration(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        return {}
    return read_object(file)


def kind_of(settings: ScorerSettings) -> Kind:
    """The kind asked for, else the one that the checkpoint is.

    Raises:
        CheckpointError: It does not say.
        UserError: There is no such kind.
    """
    is_address = str(settings.directory).startswith(("http://", "https://"))
    if settings.family != "auto" or is_address:
        return get_kind("remote" if is_address and settings.family == "auto" else settings.family)
    load, weights = settings.load, settings.reads_weights
    path = resolve(settings.directory, revision=load.revision, also=load.unsafe_patterns, weights=weights)
    given = (settings.policy, settings.reference, settings.beta)
    is_implicit = settings.reference_free or any(value is not None for value in given)
    return get_kind(family_of(path, implicit=is_implicit))


@takes_settings
def load_scorer(settings: ScorerSettings) -> ResponseScorer:
    """The scorer of a checkpoint, whichever kind of reward model it is.

    Its arguments are the fields of :class:`~stepcredit.scorers.settings.ScorerSettings`.

    Raises:
        CheckpointError: The checkpoint cannot be used as asked.
        UserError: A setting does not belong to the kind.
    """
    kind = kind_of(settings)
    kind.check(settings)
    return kind.load(settings)
