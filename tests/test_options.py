"""The command line that options were read from can be written again."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from stepcredit.cli.commands import COMMANDS
from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.errors import UserError
from stepcredit.options import arguments_of, check_at_least_one
from stepcredit.pipelines.select import Options as SelectOptions
from stepcredit.settings import Setting, build, settings_of
from stepcredit.training.config import TrainConfig


@cache
def parser_of(options_class: type) -> OneLineParser:
    parser = OneLineParser(allow_abbrev=False)
    add_settings(parser, options_class)
    return parser


def read(options_class: type, words: list[str]) -> Any:
    return build(options_class, vars(parser_of(options_class).parse_intermixed_args(words)))


def words_for(setting: Setting) -> list[list[str]]:
    """Ways to give a setting that its type allows."""
    if setting.kind is bool:
        return [[setting.flag], ["--no-" + setting.flag.removeprefix("--")]]
    many = get_origin(setting.kind) is tuple
    item = get_args(setting.kind)[0] if many else setting.kind
    choices = setting.field.metadata.get("choices")
    if choices is None and get_origin(item) is Literal:
        choices = get_args(item)
    if choices:
        texts = list(choices)
    elif item is int:
        texts = ["3,5"] if many else ["3"]
    elif item is float:
        texts = ["0.5,0.25"] if many else ["0.5", "1e-05", "-0.25", "-1e-05"]
    else:
        texts = ["some text, with 'quotes'", "-begins like a flag"]
    return [[f"{setting.flag}={text}"] for text in texts]


REQUIRED = {"out": "out", "graded": "in", "model": "some/model", "prm": "some/prm"}


def required_words(options_class: type) -> list[str]:
    words = []
    for setting in settings_of(options_class):
        if setting.positional:
            words.append("in")
        elif setting.required:
            choices = setting.field.metadata.get("choices") or [REQUIRED.get(setting.key, "math")]
            words.append(f"{setting.flag}={choices[0]}")
    if any(setting.key == "generator" for setting in settings_of(options_class)):
        words.append("--model=some/model")
    return words


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_options_go_to_the_command_line_and_back(command: Any) -> None:
    options_class = import_module(command.module).Options
    start = required_words(options_class)
    plain = read(options_class, start)
    assert read(options_class, list(arguments_of(plain))) == plain
    tried = 0
    for setting in settings_of(options_class):
        if setting.positional:
            continue
        for words in words_for(setting):
            try:
                options = read(options_class, [*start, *words])
            except ValueError:  # Out of the option's range.
                continue
            assert read(options_class, list(arguments_of(options))) == options, words
            tried += 1
    assert tried > 2


def test_only_what_is_not_the_default_is_written() -> None:
    assert list(arguments_of(TrainConfig())) == []
    config = TrainConfig(beta=0.5, step_rule="newline", keep_best=False)
    assert list(arguments_of(config)) == ["--beta", "0.5", "--steps", "newline", "--no-keep-best"]


def test_what_an_outer_class_takes_as_default_goes_without_saying() -> None:
    from stepcredit.pipelines.label_autopsv import Options

    options = Options(graded=Path("in"), model="m", dev=Path("d"), out=Path("o"))
    assert list(arguments_of(options)) == ["in", "--model", "m", "--dev", "d", "--out", "o"]
    changed = replace(options, config=replace(options.config, beta=0.7))
    assert list(arguments_of(changed))[-2:] == ["--beta", "0.7"]


def test_a_word_that_looks_like_a_flag_stays_a_value() -> None:
    from stepcredit.pipelines.label_autopsv import Options

    options = Options(graded=Path("in"), model="m", dev=Path("d"), out=Path("o"), threshold=-1e-05)
    assert "--threshold=-1e-05" in arguments_of(options)
    # Standing alone it is taken for a flag.
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--threshold")
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--threshold", "-1e-05"])


def test_a_count_below_one_is_refused_by_its_flag() -> None:
    check_at_least_one(SelectOptions(rollouts=(Path("a"),), out=Path("b")), "responses")  # not given
    with pytest.raises(UserError, match=r"^--responses: must be at least 1, got 0$"):
        check_at_least_one(SelectOptions(rollouts=(Path("a"),), out=Path("b"), responses=0), "responses")
