from __future__ import annotations

from pathlib import Path

import pytest
from tests.stepcredit_study.made_up import check_of, made_up, planned, run_twice, verdicts

from stepcredit_study.claims.main import EXPERIMENT, METHODS, PAPER_AVERAGES, conclude
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.world import World


def numbers(name: str) -> float:
    """The paper's averages, everywhere."""
    method = name.split("/")[1] if name.count("/") > 1 else name.rpartition("/")[2]
    return float(PAPER_AVERAGES.get(method, "44.0")) / 100


def test_the_papers_averages_give_the_papers_verdicts(tiny_scale: Scale) -> None:
    finding = conclude(made_up(numbers), tiny_scale)
    assert verdicts(finding) == ["holds"] * 8
    assert "minus math-shepherd +2.6" in finding.checks[0].here


def test_the_objective_that_is_compared_is_chosen_on_development_problems(tiny_scale: Scale) -> None:
    """CE is best on test problems, and DPO where one may choose."""
    better = {"average/implicit-ce": 0.9, "development/implicit-dpo": 0.8}
    finding = conclude(made_up(lambda name: better.get(name, numbers(name))), tiny_scale)
    assert "minus math-shepherd +2.6" in finding.checks[0].here


@pytest.mark.parametrize(
    ("method", "accuracy", "claim"),
    [
        ("autopsv", 0.6, "beats step models"),
        ("implicit-dpo", 0.3, "Implicit PRMs trained by DPO and NCA"),
        ("implicit-kto", 0.6, "Implicit PRMs trained by CE and KTO"),
        ("autopsv", 0.6, "pick worse than plain voting"),
        ("implicit-nca", 0.6, "DPO makes the best"),
        ("implicit-kto", 0.6, "KTO makes the weakest"),
        ("implicit-ce-dataset-balanced", 0.6, "helps CE a little"),
        ("implicit-ce-instruction-balanced", 0.4, "helps CE a little"),
        ("log-probability", 0.6, "cannot replace an implicit PRM"),
    ],
)
def test_each_claim_can_fail(tiny_scale: Scale, method: str, accuracy: float, claim: str) -> None:
    seeds = made_up(lambda name: accuracy if name == f"average/{method}" else numbers(name))
    assert check_of(conclude(seeds, tiny_scale), claim).verdict == "does not hold"


def test_what_qualifies_a_claim_stands_beside_it(tiny_scale: Scale) -> None:
    """Heads that learn little, a vote that adds nothing, a z that is 0."""
    known = {"average/outcome-head": 0.44, "average/majority": 0.43, "mid/pass@1": 0.43, "kto/z is 0": 0.9}
    seeds = made_up(lambda name: known.get(name, numbers(name)), listed=("mid/pass@1",))
    finding = conclude(seeds, tiny_scale)
    assert "outcome-head +1.0" in check_of(finding, "beats step models").why
    assert "KTO's z was 0 in 92.0" in check_of(finding, "KTO makes the weakest").why
    assert "says little about voting" in check_of(finding, "DPO and NCA").why
    useful = made_up(lambda name: {"mid/pass@1": 0.3}.get(name, numbers(name)), listed=("mid/pass@1",))
    assert "says little" not in check_of(conclude(useful, tiny_scale), "DPO and NCA").why


def test_every_method_has_a_row_with_each_generator_beside_the_papers_average(tiny_scale: Scale) -> None:
    table = conclude(made_up(numbers), tiny_scale).tables[0]
    assert [name for name, _ in table.rows] == ["majority", *METHODS, "oracle"]
    assert table.columns[:4] == ("weak @2", "weak @4", "mid @2", "mid @4")
    assert dict(table.rows)["implicit-dpo"][-1] == "50.4"


def test_the_papers_cells_stand_beside_ours(tiny_scale: Scale) -> None:
    published = conclude(made_up(numbers), tiny_scale).tables[1]
    assert len(published.columns) == 3 * 3 + 1
    rows = dict(published.rows)
    for method, name in {"implicit-dpo": "implicit PRM, DPO", "autopsv": "AutoPSV (same data)"}.items():
        cells = [float(str(cell)) for cell in rows[name]]
        assert cells[-1] == float(PAPER_AVERAGES[method]) == pytest.approx(sum(cells[:-1]) / 9, abs=0.051)


def test_the_papers_scale_is_planned(tmp_path: Path) -> None:
    commands = planned(EXPERIMENT, tmp_path)
    # Four objectives, two balances, and a head for outcomes, two kinds of Monte-Carlo labels and AutoPSV.
    assert commands.count("train") == 10
    assert commands.count("label math-shepherd") == commands.count("label autopsv") == 1
    assert commands.count("sample") == 5  # train, dev and three generators


@pytest.mark.slow
def test_on_a_tiny_lab(tiny_world: World) -> None:
    measured, _ = run_twice(EXPERIMENT, tiny_world)
    for policy in ("weak", "mid"):
        once = measured[f"{policy}/pass@1"]
        for n in (2, 4):
            best = measured[f"{policy}/oracle/{n}"]
            assert once <= best
            for method in METHODS:
                assert 0 <= measured[f"{policy}/{method}/{n}"] <= best + 1e-9
        assert measured[f"{policy}/random/4"] == pytest.approx(once, abs=0.35)
