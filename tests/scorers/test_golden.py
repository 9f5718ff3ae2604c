"""The compatibility conventions against what the published evaluators gave (needs ../shared/golden)."""

import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli import main
from stepcredit.data import read_scores
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.types import Rollout

GOLDEN = Path(__file__).parents[2] / "../shared/golden"
TEMPLATES = ("chatml", "llama3")
BETA = 0.001

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not here")


def load(template: str, name: str) -> Any:
    return json.loads((GOLDEN / template / name).read_text(encoding="utf-8"))


def scorer(template: str, convention: str, *, reference_free: bool = False) -> ImplicitPRM:
    folder = GOLDEN / template
    return ImplicitPRM.from_pretrained(
        folder / "policy",
        reference=None if reference_free else folder / "reference",
        beta=BETA,
        reference_free=reference_free,
        convention=convention,
    )


@pytest.mark.parametrize("template", TEMPLATES)
def test_processbench_values_are_the_published_rewards(template: str) -> None:
    expected = load(template, "processbench_expected.json")
    rollouts = [
        Rollout(
            id=item["id"],
            prompt_id=item["id"],
            prompt=item["problem"],
            response="\n\n".join(item["steps"]),
            extras={"steps": item["steps"]},
        )
        for item in load(template, "processbench_items.json")
    ]
    assert expected["coef"] == BETA
    scores = scorer(template, "processbench").score_all(rollouts)
    for score, rewards in zip(scores, expected["rewards"], strict=True):
        assert [step.value for step in score.steps] == pytest.approx(rewards, abs=1e-5)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("with_reference", [True, False])
def test_best_of_n_aggregates_are_the_published_ones(template: str, with_reference: bool) -> None:
    items = load(template, "bon_items.json")
    rollouts = [
        Rollout(id=str(i), prompt_id=str(item["idx"]), prompt=item["prompt"], response=item["response"])
        for i, item in enumerate(items)
    ]
    scores = scorer(template, "best-of-n", reference_free=not with_reference).score_all(rollouts)
    for score, row in zip(scores, load(template, "bon_expected.json"), strict=True):
        expected = row["w/ ref" if with_reference else "w/o ref"][f"constant+coef-{BETA}"]
        assert score.aggregates["min"] == pytest.approx(expected["single"]["min"], abs=1e-5)
        assert score.aggregates["sum"] == pytest.approx(expected["single"]["sum"], abs=1e-5)
        assert score.aggregates["cumulative_min"] == pytest.approx(expected["accumulative"]["min"], abs=1e-5)
        assert score.aggregates["cumulative_sum"] == pytest.approx(expected["accumulative"]["sum"], abs=1e-5)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = GOLDEN / "llama3"
    models = ["--prm", str(folder / "policy"), "--reference", str(folder / "reference"), "--beta", str(BETA)]
    for format_name, convention, items in (
        ("processbench", "processbench", "processbench_items.json"),
        ("implicitprm-bon", "best-of-n", "bon_items.json"),
    ):
        out = tmp_path / f"{convention}.jsonl"
        source = [str(folder / items), "--format", format_name, "--convention", convention]
        assert main(["score", *source, *models, "--out", str(out)]) == 0
    capsys.readouterr()
    by_step = list(read_scores(tmp_path / "processbench.jsonl"))
    expected = load("llama3", "processbench_expected.json")["rewards"]
    for score, rewards in zip(by_step, expected, strict=True):
        assert [step.value for step in score.steps] == pytest.approx(rewards, abs=1e-5)
    by_response = list(read_scores(tmp_path / "best-of-n.jsonl"))
    assert [score.id for score in by_response[:2]] == ["0/0", "0/1"]
    for score, row in zip(by_response, load("llama3", "bon_expected.json"), strict=True):
        figures = row["w/ ref"][f"constant+coef-{BETA}"]
        assert score.aggregates["min"] == pytest.approx(figures["single"]["min"], abs=1e-5)
        assert score.aggregates["cumulative_sum"] == pytest.approx(figures["accumulative"]["sum"], abs=1e-5)
