from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import CheckpointError, UserError
from stepcredit.generators.fake import FakeGenerator
from stepcredit.generators.openai import OpenAIGenerator
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.generators.transformers import TransformersGenerator


def test_each_kind_is_made_under_the_models_name(
    saved_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    local = make_generator(GeneratorOptions(model=str(saved_pair[0])))
    assert isinstance(local, TransformersGenerator)
    assert local.name == "policy"
    chat = make_generator(GeneratorOptions(model="org/model", generator="openai"))
    assert isinstance(chat, OpenAIGenerator)
    assert chat.name == "org/model"
    completions = GeneratorOptions(
        model="served", generator="openai", api="completions", tokenizer=str(saved_pair[0])
    )
    assert make_generator(completions).name == "served"
    assert isinstance(make_generator(GeneratorOptions(generator="fake")), FakeGenerator)
    named = GeneratorOptions(model=str(saved_pair[0]), policy_name="mine")
    assert make_generator(named).name == "mine"


def test_the_identity_follows_the_contents_not_the_place(
    saved_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    policy, reference = saved_pair
    moved = tmp_path / "elsewhere" / "policy"
    moved.parent.mkdir()
    first = GeneratorOptions(model=str(policy)).identity()
    policy.rename(moved)
    assert GeneratorOptions(model=str(moved)).identity() == first
    other = GeneratorOptions(model=str(reference), policy_name="policy").identity()
    assert other["weights"] != first["weights"]
    assert other["tokenizer"] == first["tokenizer"]


def test_neither_key_nor_address_is_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    options: Any = {"model": "m", "generator": "openai"}
    known = GeneratorOptions(**options, base_url="http://one/v1").identity()
    assert known == GeneratorOptions(**options, base_url="http://two/v1").identity()
    assert "secret" not in str(known)


def test_mistakes_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a model directory"):
        make_generator(GeneratorOptions(model=str(tmp_path / "none")))
    with pytest.raises(UserError, match="--concurrency"):
        GeneratorOptions(model="m", generator="openai", concurrency=0)
