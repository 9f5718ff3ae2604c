"""The keywords that editors and type checkers know are the options of the commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Required, get_args, get_origin, get_type_hints

import pytest

import stepcredit
from stepcredit.api import keywords
from stepcredit.api.calling import name_of
from stepcredit.api.sources import PathText
from stepcredit.pipelines import eval_best_of_n, eval_steps, grade, sample, score, search, train
from stepcredit.settings import Setting, settings_of

MODELS = ("model", "prm", "reference")
FUNCTIONS = {
    "sample": (sample, keywords.SampleKeywords),
    "grade": (grade, keywords.GradeKeywords),
    "train": (train, keywords.TrainKeywords),
    "score": (score, keywords.ScoreKeywords),
    "search": (search, keywords.SearchKeywords),
    "evaluate_best_of_n": (eval_best_of_n, keywords.BestOfNKeywords),
    "evaluate_steps": (eval_steps, keywords.StepKeywords),
}
LISTS: dict[type, Any] = {str: str | Sequence[str], int: int | Sequence[int], float: float | Sequence[float]}
RENAMED = {"score": {"input"}}
"""Positions of a command that the function has under a better name."""


def type_of(setting: Setting) -> Any:
    """What a caller may pass: paths also as text, one item in the place of a list."""
    kind, choices = setting.kind, setting.field.metadata.get("choices")
    if kind is Path or (kind is str and setting.key in MODELS):
        kind = PathText
    elif choices:
        kind = Literal[tuple(choices)]
    elif get_origin(kind) is tuple:
        kind = LISTS[get_args(kind)[0]]
    if type(None) in get_args(get_type_hints(setting.group)[setting.field.name]):
        kind = kind | None
    return Required[kind] if setting.required else kind


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_is_a_keyword_of_its_type(name: str) -> None:
    command, known = FUNCTIONS[name]
    function = getattr(stepcredit, name)
    source = inspect.unwrap(function)
    own = {*source.__annotations__, *RENAMED.get(name, ())}
    options = {
        name_of(setting): type_of(setting)
        for setting in settings_of(command.Options)
        if name_of(setting) not in own
    }
    assert get_type_hints(known, include_extras=True) == options


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_and_signature_list_the_options(name: str) -> None:
    function = getattr(stepcredit, name)
    command, known = FUNCTIONS[name]
    signature = inspect.signature(function)
    for setting in settings_of(command.Options):
        keyword = name_of(setting)
        if keyword in get_type_hints(known):
            assert f"        {keyword}: " in function.__doc__
            assert signature.parameters[keyword].kind is inspect.Parameter.KEYWORD_ONLY
            assert setting.required or signature.parameters[keyword].default == setting.default
        assert not re.search(rf"{setting.flag}(?![\w-])", function.__doc__), "keywords, not flags"
