from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from stepcredit.errors import UserError
from stepcredit.options import option
from stepcredit.typed_values import typed_fields, typed_record


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UserError("must not be negative", where="weight")


@dataclass(frozen=True, kw_only=True)
class Whole:
    count: int
    parts: tuple[Part, ...] = ()
    best: Part | None = None
    by_name: Mapping[str, Part] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    grids: tuple[Mapping[str, tuple[Any, ...]], ...] = ()
    sizes: tuple[int, ...] = ()
    folder: Path | None = None
    mode: Literal["fast", "slow"] = "fast"
    is_on: bool = False
    pair: tuple[str, float] | None = None
    cells: tuple[Part | str | None, ...] = ()
    rule: str = option("how it is cut", default="auto", flag="--steps", choices=("auto", "line"))


def test_a_record_is_made_of_plain_values() -> None:
    content = {
        "count": "1e3",
        "parts": [{"name": "a", "weight": "1e-4"}, {"name": 7}],
        "best": {"name": "b"},
        "by-name": {"c": {"name": "c", "weight": 2}},
        "shares": {"a": 1},
        "grids": {"rate": [1, "x"]},
        "sizes": "1,4,16",
        "folder": "runs",
        "mode": "slow",
        "is_on": True,
        "pair": ["a", 2],
        "cells": [{"name": "a"}, "x", None],
        "steps": "line",
    }
    assert typed_record(Whole, content, "file") == Whole(
        count=1000,
        parts=(Part(name="a", weight=1e-4), Part(name="7")),
        best=Part(name="b"),
        by_name={"c": Part(name="c", weight=2.0)},
        shares={"a": 1.0},
        grids=({"rate": (1, "x")},),
        sizes=(1, 4, 16),
        folder=Path("runs"),
        mode="slow",
        is_on=True,
        pair=("a", 2.0),
        cells=(Part(name="a"), "x", None),
        rule="line",
    )
    assert typed_record(Whole, {"count": 1, "best": None}, "file") == Whole(count=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"file: must hold 'name: value' lines, not \[\]"),
        ({}, "file: count: is missing"),
        ({"count": None}, "file: count: is missing"),
        ({"count": 1.5}, "file: count: 1.5 is not a whole number"),
        ({"count": True}, "file: count: True is not a whole number"),
        ({"count": float("inf")}, "file: count: inf is not a whole number"),
        ({"count": [1]}, r"file: count: \[1\] is not a whole number"),
        ({"count": 1, "cuont": 2}, "file: there is no setting 'cuont'. Did you mean 'count'"),
        ({"count": 1, "parts": [{"name": "a"}, {}]}, r"file: parts\[1\]: name: is missing"),
        ({"count": 1, "parts": [5]}, r"file: parts\[0\]: must hold 'name: value' lines, not 5"),
        ({"count": 1, "parts": [{"name": "a", "weight": "x"}]}, r"parts\[0\]: weight: 'x' is not a number"),
        ({"count": 1, "parts": [{"name": "a", "weight": "nan"}]}, "weight: 'nan' is not a number"),
        ({"count": 1, "parts": [{"name": "a", "weight": 10**400}]}, "weight: 1000.* is too large"),
        ({"count": 2**63}, "file: count: 9223372036854775808 is too large"),
        ({"count": "-1e30"}, "file: count: '-1e30' is too large"),
        ({"count": 1, "sizes": "1,1e30"}, "file: sizes: '1,1e30' is too large"),
        ({"count": 1, "parts": [{"name": "a", "weight": -1}]}, "weight: must not be negative"),
        ({"count": 1, "by_name": []}, r"by_name: \[\] is not a mapping of names to values"),
        ({"count": 1, "shares": {"a": "b"}}, r"file: shares\.a: 'b' is not a number"),
        ({"count": 1, "grids": {"rate": 3}}, r"grids\.rate: 3 is not a list of values"),
        ({"count": 1, "sizes": "1,x"}, "sizes: '1,x' is not a list such as 1,4,16"),
        ({"count": 1, "mode": "fats"}, "mode: 'fats' is not one of fast, slow"),
        ({"count": 1, "is_on": "yes"}, "is_on: 'yes' is not true or false"),
        ({"count": 1, "folder": {}}, "folder: {} is not a path"),
        ({"count": 1, "pair": ["a"]}, r"pair: \['a'\] is not a list of 2 values"),
        ({"count": 1, "pair": ["a", "b"]}, r"pair\[1\]: 'b' is not a number"),
        ({"count": 1, "cells": [{}]}, r"cells\[0\]: name: is missing"),
        ({"count": 1, "rule": "lines"}, "rule: 'lines' is not one of auto, line. Did you mean 'line'"),
        ({"count": 1, "rule": "line", "steps": "line"}, "file: rule is given twice, also as steps"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        typed_record(Whole, content, "file")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_some_fields_alone_need_not_be_a_whole_record() -> None:
    assert typed_fields(Whole, {"steps": "line", "sizes": [2]}, "file") == {"rule": "line", "sizes": (2,)}
