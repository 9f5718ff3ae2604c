"""The models of a run: what it starts from, and what its reward is relative to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stepcredit.checkpoints import LoadOptions, PRMCard, Reference, adapter_base, resolve, weights_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model by name and place.

    Attributes:
        name: Directory or hub id, as it was given.
        path: Where its files lie.
        revision: Commit of a hub model.
    """

    name: str
    path: Path
    revision: str | None = None

    @classmethod
    def find(cls, name: str | Path, load: LoadOptions, *, revision: str | None = None) -> Source:
        """Look it up, or fetch it from the hub.

        Args:
            name: Directory, GGUF file or hub id.
            load: Decides which kinds of files are fetched.
            revision: Branch, tag or commit of a hub model.

        Raises:
            CheckpointError: There is no such model.
        """
        path = resolve(name, revision=revision, also=load.unsafe_patterns)
        if Path(name).exists():
            return cls(name=str(name), path=path)
        # The hub's cache names a directory after its commit, which a branch's name would not hold on to.
        commit = path.name if path.parent.name == "snapshots" else revision
        return cls(name=str(name), path=path, revision=commit)

    @property
    def weights_hash(self) -> str:
        """Hash of its weight files."""
        return weights_hash(self.path)

    def as_reference(self, prm_directory: Path, *, adapter_off: bool) -> Reference:
        """What ``prm.json`` says of it as the reference."""
        if not Path(self.name).exists():
            return Reference(
                source=self.name,
                revision=self.revision,
                weights_hash=self.weights_hash,
                adapter_off=adapter_off,
            )
        return Reference.local(self.name, prm_directory, self.weights_hash, adapter_off=adapter_off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The models of a run.

    Attributes:
        model: The initial weights.
        other_reference: The reference, where it is neither the initial weights nor their base without
            the adapter.
        base: What an adapter that training starts from sits on; else the initial weights.
    """

    model: Source
    other_reference: Source | None
    base: Source

    @classmethod
    def find(
        cls, model: str, reference: str | Path | None, load: LoadOptions, *, trains_adapter: bool
    ) -> Sources:
        """Look them up.

        Args:
            model: Initial weights.
            reference: As given; ``None`` is that of an initial PRM, else the initial weights.
            load: How models are loaded; its revision is the initial weights'.
            trains_adapter: Whether the base without the adapter is at hand as reference.

        Raises:
            CheckpointError: One of them is not there.
        """
        start = Source.find(model, load, revision=load.revision)
        is_adapter = (start.path / "adapter_config.json").is_file()
        base = Source.find(adapter_base(start.path), load) if is_adapter else start
        other = None
        if reference is not None:
            other = Source.find(reference, load)
        elif PRMCard.exists(start.path):
            recorded = PRMCard.read(start.path).reference
            if recorded is not None and not recorded.adapter_off:
                other = Source.find(recorded.locate(start.path), load, revision=recorded.revision)
            elif recorded is not None and not trains_adapter:
                other = base
        return cls(model=start, other_reference=other, base=base)

    def reference(self, prm_directory: Path, *, trains_adapter: bool) -> Reference:
        """What ``prm.json`` says of the reference."""
        if self.other_reference is not None:
            return self.other_reference.as_reference(prm_directory, adapter_off=False)
        source = self.base if trains_adapter else self.model
        return source.as_reference(prm_directory, adapter_off=trains_adapter)
