import itertools
from dataclasses import replace

import numpy as np
import pytest
from tests.evaluation.builders import joined

from stepcredit.evaluation.best_of_n import BestOfNSettings, Method, outcomes
from stepcredit.evaluation.best_of_n_evaluation import evaluate_best_of_n
from stepcredit.evaluation.choices import VOTE_KINDS, Choice, fixed_choice
from stepcredit.evaluation.development import Development
from stepcredit.evaluation.results import comparisons, headline, oracle_choices, plain, results
from stepcredit.evaluation.samples import Joined
from stepcredit.stats import ProblemBootstrap


def random_data(num_problems: int = 12, size: int = 4, seed: int = 0) -> Joined:
    generator = np.random.default_rng(seed)
    rows = []
    for problem in range(num_problems):
        for _ in range(size):
            answer = int(generator.integers(3))
            rewards = {
                "good": (float(answer == 0) + generator.normal(0, 0.3), 0.5),
                "noise": (float(generator.normal()), float(generator.normal())),
            }
            rows.append((f"p{problem}", str(answer), answer == 0, rewards))
    return joined(rows)


def test_every_pair_is_compared_and_corrected_over_the_whole_table() -> None:
    data = random_data()
    choices = {scorer.name: fixed_choice("min") for scorer in data.scorers}
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(1, 2, 4)), choices)
    methods = headline(data.scorers, choices, measured)
    rows = comparisons(measured, methods, ProblemBootstrap(12, num_draws=500))
    kinds = ["best-of-n", *(f"weighted-{kind}" for kind in VOTE_KINDS)]
    assert [method.label for method in methods] == [
        "majority",
        *(f"{kind}/{name}/min" for name in ("good", "noise") for kind in kinds),
    ]
    assert len(rows) == 2 * len(list(itertools.combinations([Method("pass"), *methods], 2)))
    assert {row.n for row in rows} == {2, 4}
    for row in rows:
        assert row.p_holm >= row.p_value
        assert row.low <= row.difference <= row.high
    row = next(r for r in rows if (r.n, r.first, r.second) == (4, "majority", "best-of-n/good/min"))
    size = measured.ns.index(4)
    expected = measured.of(Method("majority"))[size] - measured.of(Method("best-of-n", "good", "min"))[size]
    assert row.difference == pytest.approx(expected.mean())


def test_oracle_choices_are_labelled() -> None:
    data = random_data()
    measured = outcomes(data.samples, data.scorers, BestOfNSettings(ns=(4,)))
    rows = results(measured, ProblemBootstrap(12, num_draws=200))
    best = [row for row in oracle_choices(rows) if row.method == "best-of-n" and row.scorer == "good"]
    assert [row.n for row in best] == [4]
    assert "oracle" in best[0].chosen_on
    mine = [row.accuracy for row in rows if row.method == "best-of-n" and row.scorer == "good"]
    assert best[0].accuracy == max(mine)


def test_choices_made_on_other_problems_are_carried_over_and_named() -> None:
    held_out, reported = random_data(seed=1), random_data(seed=2)
    evaluation = evaluate_best_of_n(
        reported,
        BestOfNSettings(ns=(1, 4)),
        development=Development(joined=held_out, name="dev.jsonl"),
        draws=200,
    )
    choice = evaluation.choices["good"]
    assert choice.chosen_on == "dev.jsonl (12 problems)"
    assert choice.aggregate in ("reward", "min")
    assert set(choice.log_odds) == {"reward", "min", "last"}
    assert choice.log_odds["min"][0] > 0.0
    assert evaluation.num_problems == 12


def test_reward_and_its_equal_aggregate_get_the_same_figures() -> None:
    data = random_data()
    scorer = data.scorers[0]
    scorer.scores["copy"] = scorer.scores["reward"] + 0.0  # type: ignore[index]
    measured = outcomes(data.samples, [scorer], BestOfNSettings(ns=(1, 2)))
    for kind in ("best-of-n", "weighted-sigmoid", "weighted-mean"):
        np.testing.assert_array_equal(
            measured.of(Method(kind, "good", "copy")), measured.of(Method(kind, "good", "reward"))
        )


def test_json_has_null_where_there_is_no_number() -> None:
    assert plain({"a": float("nan"), "b": np.array([1.0, np.inf]), "c": (np.int64(3), None)}) == {
        "a": None,
        "b": [1.0, None],
        "c": [3, None],
    }
    assert plain(Choice(aggregate="min", log_odds={}, chosen_on="x"))["temperature"] == 1.0


def test_development_problems_that_are_reported_too_are_said() -> None:
    data = random_data()
    evaluation = evaluate_best_of_n(
        data, BestOfNSettings(ns=(1,)), development=Development(joined=data, name="dev"), draws=100
    )
    assert any(
        "12 of the problems that choices were made on are also reported" in note for note in evaluation.notes
    )


def test_only_aggregates_of_the_reported_problems_are_chosen() -> None:
    held_out, reported = random_data(seed=1), random_data(seed=2)
    perfect = {**held_out.scorers[0].scores, "oracle": held_out.samples.correct.astype(float)}
    held_out = Joined(held_out.samples, (replace(held_out.scorers[0], scores=perfect),))
    reported = Joined(reported.samples, reported.scorers[:1])
    development = Development(joined=held_out, name="dev")
    evaluation = evaluate_best_of_n(reported, BestOfNSettings(ns=(1, 4)), development=development, draws=100)
    assert evaluation.choices["good"].aggregate in reported.scorers[0].scores


def test_right_answers_that_are_spelled_differently_are_said() -> None:
    rows = [("a", answer, answer != "3", {"prm": (1.0, 0.0)}) for answer in ("1/2", "0.5", "3")]
    evaluation = evaluate_best_of_n(joined(rows), BestOfNSettings(ns=(1,)), draws=100)
    assert any("on 1 problem right responses have different predictions" in note for note in evaluation.notes)
