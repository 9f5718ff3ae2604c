from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.data import read_prompts
from stepcredit.lab.labs import LABS
from stepcredit.lab.task import parse_problem
from stepcredit.pipelines.driver import Store
from stepcredit_study.frame.scale import read_scale
from stepcredit_study.frame.world import World, lab_source

MODULI = {"lab": {10}, "lab2": {130}}
OTHER_MODULI = {"lab": {10, 5}, "lab2": {130, 50}}


def world(name: str, folder: Path) -> World:
    return World(read_scale(name), Store(folder), seed=0)


def moduli(path: Path) -> set[int]:
    return {parse_problem(prompt.prompt).modulus for prompt in read_prompts(path)}


@pytest.mark.parametrize("name", LABS)
def test_a_lab_has_its_own_problems_of_every_kind(name: str, tmp_path: Path) -> None:
    here = world(name, tmp_path)
    for split in ("train", "dev", "test"):
        assert moduli(here.prompts(split, 12)) == MODULI[name]
    kinds = [here.prompts("train", 12, kind=kind) for kind in here.scale.other_kinds]
    assert {modulus for path in kinds for modulus in moduli(path)} == OTHER_MODULI[name]


def test_two_labs_may_share_a_store(tmp_path: Path) -> None:
    paths = {name: world(name, tmp_path).prompts("test", 5) for name in LABS}
    assert len(set(paths.values())) == len(LABS)
    bases = {name: world(name, tmp_path).base for name in LABS}
    assert len(set(bases.values())) == len(LABS)


@pytest.mark.parametrize("name", LABS)
def test_the_base_imitates_a_tutor_of_its_lab(name: str, tmp_path: Path) -> None:
    assert world(name, tmp_path).tutor is LABS[name].tutors["mid"]
    other = replace(read_scale(name), base="weak")
    assert World(other, Store(tmp_path), seed=0).tutor is LABS[name].tutors["weak"]


@pytest.mark.parametrize(
    ("source", "lab"),
    [("lab:mid", "lab"), ("lab2:train/lab2-base50", "lab2"), ("org/model", None), ("hub:lab2", None)],
)
def test_sources_in_a_lab_are_distinguished_from_others(source: str, lab: str | None) -> None:
    known = lab_source(source)
    assert (known and (known[0].name, known[1])) == (lab and (lab, source.partition(":")[2]))
