"""The models of a run: what it starts from, and what its reward is relative to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepcredit.checkpoints import (
    LoadOptions,
    PRMCard,
    Reference,
    adapter_base,
    check_reference_tokenizer,
    content_hash,
    known_configuration,
    load_tokenizer,
    model_hash,
    resolve,
    warn_if_edited,
    weights_hash,
)
from stepcredit.errors import CheckpointError, UserError
from stepcredit.runs import warn
from stepcredit.training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model by name and place.

    Attributes:
        name: Directory or hub id, as it was given.
        revision: Commit of a hub model.
        also: Further kinds of files that may be fetched for the base of an adapter.
    """

    name: str
    path: Path
    revision: str | None = None
    also: tuple[str, ...] = ()

    @classmethod
    def find(cls, name: str | Path, load: LoadOptions, *, revision: str | None = None) -> Source:
        """Look it up, or fetch it from the hub.

        Args:
            name: Directory, GGUF file or hub id.
            revision: Branch, tag or commit of a hub model.

        Raises:
            CheckpointError: There is no such model.
        """
        path = resolve(name, revision=revision, also=load.unsafe_patterns)
        if Path(name).exists():
            return cls(name=str(name), path=path, also=load.unsafe_patterns)
        # The hub's cache names a directory after its commit, which a branch's name would not hold on to.
        commit = path.name if path.parent.name == "snapshots" else revision
        return cls(name=str(name), path=path, revision=commit, also=load.unsafe_patterns)

    @property
    def weights_hash(self) -> str:
        """Hash of its weights; of an adapter, together with its base's."""
        return content_hash(self.path, also=self.also)

    @property
    def model_hash(self) -> str:
        """Hash of its weights and configuration."""
        return model_hash(self.path, also=self.also)

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter, which names its base."""
        return (self.path / "adapter_config.json").is_file()

    def as_reference(self, prm_directory: Path, *, adapter_off: bool) -> Reference:
        """What ``prm.json`` says of it as the reference."""
        if not Path(self.name).exists():
            return Reference(
                source=self.name,
                revision=self.revision,
                weights_hash=self.weights_hash,
                configuration_hash=known_configuration(self.path),
                adapter_off=adapter_off,
            )
        return Reference.local(self.name, prm_directory, self.weights_hash, adapter_off=adapter_off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The models of a run.

    Attributes:
        other_reference: The reference, where the policy does not hold it: it is neither the whole initial
            weights nor a base that gets its first adapter. An adapter that is trained further is
            its own reference as it was, so it is loaded a second time.
        base: What an adapter that training starts from sits on; else the initial weights.
    """

    model: Source
    other_reference: Source | None
    base: Source

    @classmethod
    def find(
        cls, model: str | Path, reference: str | Path | None, config: TrainConfig, load: LoadOptions
    ) -> Sources:
        """Look them up.

        Args:
            reference: As given; ``None`` is that of an initial PRM, else the initial weights.
            config: Whether an adapter is trained, and whether there is a reference at all.
            load: How models are loaded; its revision is the initial weights'.

        Raises:
            CheckpointError: One of them is not there, or is not what an initial PRM was trained with; or the
                reference's tokenizer is another than the policy's.
            UserError: A reference is given for a kind of reward model that has none.
        """
        start = Source.find(model, load, revision=load.revision)
        base = Source.find(adapter_base(start.path), load) if start.is_adapter else start
        card = PRMCard.read(start.path) if PRMCard.exists(start.path) else None
        if card is not None:
            card.check(start.path, also=load.unsafe_patterns)
            if config.learns == "ratios" and card.beta not in (None, config.beta):
                warn(
                    f"--beta is {config.beta}, but the PRM that training starts from has {card.beta}: its "
                    "rewards are scaled by the ratio of the two"
                )
        if not config.has_reference:
            if reference is not None:
                raise UserError(
                    "only implicit reward models with a reference use one",
                    where="--reference",
                    hint="leave it out",
                )
            return cls(model=start, other_reference=None, base=base)
        recorded = None if card is None else card.reference
        other = None
        if reference is not None:
            other = Source.find(reference, load)
        elif recorded is not None and not recorded.adapter_off:
            other = Source.find(recorded.locate(start.path), load, revision=recorded.revision)
            _check_reference(other, recorded)
        elif recorded is not None and not config.lora_rank:
            other = base
        elif recorded is None and start.is_adapter and config.lora_rank:
            # Switching this adapter off would give what came before the initial weights.
            other = start
        if other is not None:
            trusted = load.trust_remote_code
            tokenizer = load_tokenizer(start.path, trust_remote_code=trusted)
            check_reference_tokenizer(other.path, tokenizer, other.name, trust_remote_code=trusted)
        return cls(model=start, other_reference=other, base=base)

    def reference(self, prm_directory: Path, config: TrainConfig) -> Reference | None:
        """What ``prm.json`` says of the reference; ``None`` where there is none."""
        if not config.has_reference:
            return None
        if self.other_reference is not None:
            return self.other_reference.as_reference(prm_directory, adapter_off=False)
        source = self.base if config.lora_rank else self.model
        return source.as_reference(prm_directory, adapter_off=bool(config.lora_rank))


def _check_reference(source: Source, recorded: Reference) -> None:
    """Refuse a reference that is not the one that the initial PRM was trained with."""
    # Cards of earlier versions hold the hash of an adapter without its base.
    if recorded.weights_hash not in (None, source.weights_hash, weights_hash(source.path)):
        raise CheckpointError(
            "is not the reference that the PRM was trained with (its weights differ)",
            where=source.name,
            hint="restore it, or name another with --reference",
        )
    warn_if_edited(recorded.configuration_hash, source.path, where=source.name)
