from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.errors import UserError
from stepcredit.options import argument, option
from stepcredit.settings import build


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Inner things."""

    rate: float = option("a rate", default=0.5)
    size: int | None = option("a size; default is the machine's", default=None)
    most: int = option("the largest size", default=9, flag="--max-size")


@dataclass(frozen=True, kw_only=True)
class Options:
    source: Path = argument("what to read")
    numbers: tuple[int, ...] = option("how many", default=(1, 4), flag="--n")
    names: tuple[str, ...] = option("who", default=())
    fast: bool = option("hurry", default=False)
    limit: int | None = option("at most", default=None)
    kind: str = option("which", default="a", choices=("a", "b"))
    inner: Inner = Inner()


def parse(*words: str, config: Path | None = None) -> Any:
    parser = OneLineParser()
    add_settings(parser, Options)
    return build(Options, vars(parser.parse_args(list(words))), config)


def test_defaults_hold_where_nothing_is_given() -> None:
    assert parse("in.jsonl") == Options(source=Path("in.jsonl"))


def test_every_kind_of_value_is_read_from_the_command_line() -> None:
    words = "in --n 1,16,64 --names x --names y,z --fast --limit 1e3 --kind b --rate 1e-4 --size 7"
    options = parse(*words.split())
    assert options == Options(
        source=Path("in"),
        numbers=(1, 16, 64),
        names=("x", "y,z"),
        fast=True,
        limit=1000,
        kind="b",
        inner=Inner(rate=1e-4, size=7),
    )


def test_the_command_line_overrides_the_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("source: from-file\nnumbers: [2, 8]\ninner:\n  rate: 0.25\nlimit: 5\n")
    options = parse("--limit", "6", config=config)
    assert (options.source, options.numbers, options.inner.rate, options.limit) == (
        Path("from-file"),
        (2, 8),
        0.25,
        6,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "SOURCE is missing"),
        (("in", "--limit", "many"), "--limit: 'many' is not a whole number"),
        (("in", "--limit", "1.5"), "--limit: '1.5' is not a whole number"),
        (("in", "--kind", "c"), "--kind: 'c' is not one of a, b"),
        (("in", "--bogus"), "unrecognized arguments: --bogus"),
        (("in", "--limits", "3"), "unrecognized arguments: --limits 3. Did you mean '--limit'?"),
        (("in", "--sise=3"), "Did you mean '--size'?"),
        (("in", "--rate", "nan"), "--rate: 'nan' is not a number. A rate"),
        (("in", "--n", "1,x"), "--n: '1,x' is not a list such as 1,4,16"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError) as error:
        parse(*words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sise: 3", "unknown option 'sise'. Did you mean 'size'?"),
        ("quickness: 3", "unknown option 'quickness'. See --help for the options"),
        ("numbers: [1]\nn: [2]", "numbers is given twice"),
        ("inner:\n  size: 1\nsize: 2", "size is given twice"),
        ("inner:\n  seize: 1", "Did you mean 'size'?"),
        ("rate: .nan", "c.yaml: rate: nan is not a number"),
        ("- 1", "must hold 'name: value' lines"),
        ("fast: 'yes please'", "c.yaml: fast"),
        ("limit: [1]", "c.yaml: limit"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_configuration_file_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml") as error:
        parse("in", config=config)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["numbers: [2, 8]", "n: [2, 8]", "n: 2,8"])
@pytest.mark.parametrize("most", ["most: 4", "max-size: 4", "max_size: 4", "inner: {max-size: 4}"])
def test_a_configuration_file_takes_the_names_of_flags_and_of_fields(
    tmp_path: Path, text: str, most: str
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"{text}\n{most}\n")
    options = parse("in", config=config)
    assert (options.numbers, options.inner.most) == ((2, 8), 4)


def test_a_recipe_that_is_not_there_is_met_with_the_one_that_was_meant() -> None:
    with pytest.raises(UserError, match=r"smal: cannot be read. Did you mean 'small'\?"):
        parse("in", config=Path("smal"))
    with pytest.raises(UserError, match=r"use one that ships: code, lab, paper, small"):
        parse("in", config=Path("qwertyuiop"))


def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read"):
        parse("in", config=tmp_path / "nowhere.yaml")


def test_a_configuration_file_that_is_not_utf_8_says_so(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes("n: [2]  # für später".encode("latin-1"))
    with pytest.raises(UserError, match=r"c\.yaml: is not valid UTF-8. Save it as UTF-8"):
        parse("in", config=tmp_path / "c.yaml")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(rate=9.0, size=8))


def test_the_outer_default_of_a_nested_dataclass_counts_and_is_shown() -> None:
    assert build(Outer, {}) == Outer(inner=Inner(rate=9.0, size=8))
    assert build(Outer, {"size": "5"}) == Outer(inner=Inner(rate=9.0, size=5))
    parser = OneLineParser()
    add_settings(parser, Outer)
    assert "(default: 9.0)" in parser.format_help()


@dataclass(frozen=True, kw_only=True)
class Fixed:
    inner: Inner = field(default_factory=Inner, metadata={"hidden": ("rate",)})


def test_what_an_outer_field_hides_is_taken_but_not_shown() -> None:
    parser = OneLineParser()
    add_settings(parser, Fixed)
    assert "--rate" not in parser.format_help()
    assert "--size" in parser.format_help()
    assert build(Fixed, vars(parser.parse_args(["--rate", "2"]))).inner.rate == 2


@dataclass(frozen=True, kw_only=True)
class Values:
    count: int = option("how many", default=1)
    speed: float = option("operations per second", default=989e12)
    folder: Path | None = option("where", default=None)
    cache: Path | None = option("where too", default=None, metavar="DIR")
    name: str = option("who", default="x")


def test_help_names_the_kind_of_a_value_and_shows_large_defaults_in_short() -> None:
    parser = OneLineParser()
    add_settings(parser, Values)
    shown = parser.format_help()
    assert "[--count N] [--speed X]" in shown
    assert "[--folder PATH]" in shown
    assert "[--cache DIR]" in shown
    assert "[--name NAME]" in shown
    assert "(default: 9.89e14)" in shown


def test_only_one_default_is_shown() -> None:
    parser = OneLineParser()
    add_settings(parser, Outer)
    assert "a size (default: 8)" in " ".join(parser.format_help().split())
