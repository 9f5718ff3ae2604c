"""``prm.json``: what a saved implicit PRM says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepcredit.chat_templates import DEFAULT_DATE, Boundary, ChatSettings
from stepcredit.checkpoints.hashes import configuration_hash, weights_hash
from stepcredit.checkpoints.json_files import read_object
from stepcredit.checkpoints.sources import adapter_base, resolve
from stepcredit.errors import CheckpointError, UserError
from stepcredit.runs import warn, write_json
from stepcredit.typed_values import typed_record

FILE_NAME = "prm.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The frozen model that the reward is relative to.

    Attributes:
        source: Path or hub id, as it was given.
        relative_path: Path from the PRM's directory, for local references; looked at first, so that a
            directory that holds both can be moved.
        revision: Commit of a hub model.
        configuration_hash: Of its configuration; earlier versions did not note it.
        adapter_off: The reference is the PRM's own base with the adapter switched off.
    """

    source: str
    relative_path: str | None = None
    revision: str | None = None
    weights_hash: str | None = None
    configuration_hash: str | None = None
    adapter_off: bool = False

    @classmethod
    def local(
        cls, source: str | Path, prm_directory: str | Path, weights_hash: str, *, adapter_off: bool = False
    ) -> Reference:
        """A reference in a local directory."""
        relative = os.path.relpath(Path(source).resolve(), Path(prm_directory).resolve())
        return cls(
            source=str(source),
            relative_path=relative,
            weights_hash=weights_hash,
            configuration_hash=known_configuration(source),
            adapter_off=adapter_off,
        )

    def locate(self, prm_directory: str | Path) -> str:
        """Where to load it from: beside the PRM if it is there, else as it was given."""
        if self.relative_path is not None:
            beside = Path(prm_directory) / self.relative_path
            if beside.exists():
                return str(beside)
        return self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class PRMCard:
    """Everything needed to use a trained PRM as it was trained.

    Attributes:
        family: ``implicit``, or the kind of head that was trained.
        reference: The reference model; ``None`` for reference-free models and other families.
        beta: Scale of the log-ratio.
        objective: Training objective, with its variant.
        step_rule: How responses are split into steps.
        step_separator: What follows each step in the format, where the format has a choice.
        template_date: What a template that reads the clock was given; ``None`` for other templates.
        configuration_hash: Of the configuration, and of that of an adapter's base; earlier versions did not
            note it.
        boundary: How prompt and response were tokenised, ``together`` or ``apart``.
        training_data_hash: Hash of the training file's contents.
        versions: Package versions that trained it.
        settings: The resolved training configuration.
        results: Held-out results of the run, if it had development data.
    """

    family: str = "implicit"
    reference: Reference | None = None
    beta: float | None = None
    objective: str | None = None
    step_rule: str = "auto"
    step_separator: str | None = None
    tokenizer_hash: str | None = None
    template_hash: str | None = None
    weights_hash: str | None = None
    configuration_hash: str | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    template_date: str | None = None
    boundary: Boundary = "together"
    training_data_hash: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: str | Path) -> PRMCard:
        """Read ``prm.json`` of a directory.

        Raises:
            CheckpointError: It is missing or does not say what it must.
        """
        path = Path(directory) / FILE_NAME
        try:
            content = read_object(path)
        except FileNotFoundError as error:
            raise CheckpointError(
                "is not a trained PRM (it has no prm.json)",
                where=directory,
                hint="pass --reference and --beta to use a plain checkpoint as an implicit PRM",
            ) from error
        return cls._from_json(content, path)

    @classmethod
    def exists(cls, directory: str | Path) -> bool:
        """Whether ``directory`` holds a ``prm.json``."""
        return (Path(directory) / FILE_NAME).is_file()

    @classmethod
    def _from_json(cls, content: dict[str, Any], path: Path) -> PRMCard:
        if content.pop("format", None) != _FORMAT:
            raise CheckpointError(
                f"is not a prm.json of format {_FORMAT}",
                where=path,
                hint="use a matching version of stepcredit",
            )
        try:
            return typed_record(cls, content, str(path))
        except UserError as error:
            raise CheckpointError(error.problem, where=error.where, hint=error.hint) from error

    def write(self, directory: str | Path) -> None:
        """Write ``prm.json`` into ``directory``."""
        write_json(Path(directory) / FILE_NAME, {"format": _FORMAT, **asdict(self)})

    def check(
        self,
        directory: str | Path,
        *,
        tokenizer_hash: str | None = None,
        template_hash: str | None = None,
        also: Sequence[str] = (),
    ) -> None:
        """Compare what is loaded with what the PRM was trained with.

        It warns of what the card does not say, and of an edited configuration.

        Args:
            directory: Its weights, and the base that an adapter names, are compared where they are there.
            tokenizer_hash: Of the tokenizer that was loaded.
            also: Further files to fetch of an adapter's base (:attr:`LoadOptions.unsafe_patterns`).

        Raises:
            CheckpointError: Naming each thing that differs.
        """
        compared = {
            "weights": (self.weights_hash, _weights_hash(directory)),
            "adapter's base": self._base_hashes(Path(directory), also),
            "tokenizer": (self.tokenizer_hash, tokenizer_hash),
            "chat template": (self.template_hash, template_hash),
        }
        here = {name: pair for name, pair in compared.items() if pair[1] is not None}
        unknown = [name for name, (trained, _) in here.items() if trained is None]
        if unknown:
            warn(
                f"{directory}: {FILE_NAME} does not say which {' and '.join(unknown)} it was trained with, "
                "so it cannot be checked against what is here"
            )
        differing = [name for name, (trained, now) in here.items() if trained not in (None, now)]
        if differing:
            verb = "differ" if len(differing) > 1 or "weights" in differing else "differs"
            raise CheckpointError(
                f"the {' and the '.join(differing)} {verb} from what it was trained with",
                where=directory,
                hint="restore the files that were saved with the PRM",
            )
        warn_if_edited(self.configuration_hash, directory, where=directory)

    @property
    def chat(self) -> ChatSettings:
        """How conversations became tokens in training."""
        return ChatSettings(
            arguments=self.template_arguments, date=self.template_date or DEFAULT_DATE, boundary=self.boundary
        )

    def _base_hashes(self, directory: Path, also: Sequence[str]) -> tuple[str | None, str | None]:
        """Hashes of an adapter's base: as recorded where the base is the reference, and as it is."""
        if self.reference is None or not self.reference.adapter_off:
            return None, None
        try:
            return self.reference.weights_hash, _weights_hash(resolve(adapter_base(directory), also=also))
        except (CheckpointError, OSError):
            return None, None  # Loading says what is not there.


def _weights_hash(directory: str | Path) -> str | None:
    """Hash of the weights that are there; ``None`` where there are none, as for a remote policy."""
    try:
        return weights_hash(directory)
    except CheckpointError:
        return None


def known_configuration(path: str | Path) -> str | None:
    """Hash of the configuration that is there; ``None`` where it, or that of an adapter's base, is not."""
    if not any((Path(path) / name).is_file() for name in ("config.json", "adapter_config.json")):
        return None
    try:
        return configuration_hash(path)
    except (CheckpointError, OSError):
        return None  # Loading says what is not there.


def warn_if_edited(recorded: str | None, path: str | Path, *, where: str | Path) -> None:
    """Warn of a configuration that is not the one of training.

    It is no error: an editor or another version of transformers may have written the same in other words.

    Args:
        recorded: As ``prm.json`` has it.
        where: The model's name.
    """
    if recorded is not None and known_configuration(path) not in (None, recorded):
        warn(
            f"{where}: its configuration (config.json or adapter_config.json) was edited after the PRM was "
            "trained, so rewards may not be those of training; restore it unless that is meant"
        )
