from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from stepcredit.training import reference
from stepcredit.training.reference import StoredReference
from stepcredit.types import Encoded

PROMPTS = {prompt: tuple(range(prompt, prompt + 20)) for prompt in (100, 200, 300)}
SEQUENCES = [
    Encoded((*PROMPTS[prompt], *range(number, number + length)), 20)
    for number, length in enumerate((3, 9, 5, 14))
    for prompt in PROMPTS
]


@dataclass
class Recorder:
    """Gives each token its own id; keeps what it was asked for together."""

    fingerprint: str = ""
    asked: list[list[Encoded]] = field(default_factory=list)

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        self.asked.append(list(encoded))
        return [np.array(item.scored_ids, np.float32) for item in encoded]


def test_responses_to_a_prompt_are_asked_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_BLOCK", 4)
    source = Recorder()
    stored = StoredReference(source, [*SEQUENCES, *SEQUENCES[:3]])
    prompts = [{item.token_ids[0] for item in block} for block in source.asked]
    assert prompts == [{100}, {200}, {300}]
    for item, values in zip(SEQUENCES, stored(SEQUENCES), strict=True):
        assert tuple(values.tolist()) == item.scored_ids


def test_processes_divide_the_sequences_by_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[list[Encoded]] = []
    monkeypatch.setattr(reference, "gather_object", lambda rows: rows)
    for process in range(3):
        source = Recorder()
        StoredReference(source, SEQUENCES, process=process, num_processes=3)
        together += source.asked
    assert [len({item.token_ids[0] for item in block}) for block in together] == [1, 1, 1]
    assert sorted((item for block in together for item in block), key=repr) == sorted(SEQUENCES, key=repr)
