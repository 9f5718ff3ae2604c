from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import CheckpointError, UserError
from stepcredit.generators.fake import FakeGenerator
from stepcredit.generators.limits import BatchLimits
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


@pytest.mark.parametrize(
    ("name", "field", "value", "is_other"),
    [
        ("config.json", "max_position_embeddings", 1024, True),
        ("config.json", "transformers_version", "0.0", False),
        ("generation_config.json", "eos_token_id", [1, 2], True),
        ("tokenizer_config.json", "clean_up_tokenization_spaces", True, True),
        ("tokenizer_config.json", "name_or_path", "elsewhere", False),
    ],
)
def test_the_identity_follows_every_file_that_decides_what_is_drawn(
    saved_pair: tuple[Path, Path], name: str, field: str, value: Any, is_other: bool
) -> None:
    options = GeneratorOptions(model=str(saved_pair[0]))
    before = options.identity()
    path = saved_pair[0] / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    assert (options.identity() != before) == is_other


def test_a_file_that_is_added_or_removed_makes_another_policy(saved_pair: tuple[Path, Path]) -> None:
    options = GeneratorOptions(model=str(saved_pair[0]))
    before = options.identity()
    (saved_pair[0] / "generation_config.json").rename(saved_pair[0] / "kept.json")
    assert options.identity() != before
    (saved_pair[0] / "kept.json").rename(saved_pair[0] / "generation_config.json")
    assert options.identity() == before


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


def test_by_default_no_more_runs_at_once_than_fits(
    tmp_path: Path, make_model: Any, make_tokenizer: Any
) -> None:
    make_model(vocab_size=131_072).save_pretrained(str(tmp_path))
    make_tokenizer().save_pretrained(str(tmp_path))
    fitting = BatchLimits.fitting(make_model(vocab_size=131_072))
    made = make_generator(GeneratorOptions(model=str(tmp_path)))
    assert isinstance(made, TransformersGenerator)
    assert made.limits.samples == fitting.samples < BatchLimits().samples
    assert made.limits.cached_tokens == BatchLimits().cached_tokens < fitting.cached_tokens
    given = make_generator(GeneratorOptions(model=str(tmp_path), batch_samples=3000, batch_tokens=9))
    assert isinstance(given, TransformersGenerator)
    assert (given.limits.samples, given.limits.cached_tokens) == (3000, 9)


def test_what_is_kept_takes_half_of_the_room_for_what_runs(
    saved_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = BatchLimits(cached_tokens=1000)
    monkeypatch.setattr(BatchLimits, "fitting", classmethod(lambda cls, model: fitting))
    options = GeneratorOptions(model=str(saved_pair[0]))
    plain, keeping = (make_generator(options, continues=continues) for continues in (False, True))
    assert isinstance(plain, TransformersGenerator)
    assert isinstance(keeping, TransformersGenerator)
    assert (plain.limits.cached_tokens, keeping.limits.cached_tokens) == (1000, 500)
