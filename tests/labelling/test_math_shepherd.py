"""Completions by the tutor itself, whose exact values are known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.tutor_generator import TutorGenerator
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.errors import DataError
from stepcredit.lab.task import STEP_RULE, parse_problem
from stepcredit.lab.tutor import WEAK
from stepcredit.lab.values import step_values
from stepcredit.labelling.math_shepherd import LabelSettings, PrefixCompletions, step_prefixes
from stepcredit.labelling.monte_carlo import FIELD
from stepcredit.types import Message, Rollout, Sampling, StepLabel


def _rollouts(num_problems: int, samples: int) -> list[Rollout]:
    return tutor_rollouts(WEAK, num_problems, samples, seed=1)


def _complete(
    rollouts: Sequence[Rollout], settings: LabelSettings, *, times: int = 1, seed: int = 0
) -> PrefixCompletions:
    completions = PrefixCompletions(STEP_RULE, settings)
    completions.see(rollouts)
    for _ in range(times):
        for target in settings.targets:
            requests = list(completions.requests(rollouts, target, Sampling(seed=seed)))
            for completion in TutorGenerator(WEAK).generate(requests):
                assert isinstance(completion, Rollout)
                completions.add(
                    completion.prompt_id,
                    completion.index,
                    right=completion.response[-1] == completion.answer,
                    prompt_tokens=completion.extras["num_prompt_tokens"],
                    generated_tokens=completion.extras["num_generated_tokens"],
                )
    return completions


def _settings(num_completions: int, tolerance: float | None = None, kind: str = "soft") -> LabelSettings:
    return LabelSettings(num_completions=num_completions, kind=kind, beta=0.5, tolerance=tolerance)


def test_a_prefix_shared_by_rollouts_is_asked_for_once() -> None:
    first, other = _rollouts(1, 1)[0], _rollouts(1, 1)[0]
    completions = PrefixCompletions(STEP_RULE, _settings(3))
    completions.see([first, other])
    requests = list(completions.requests([first, other], 3, Sampling()))
    assert [request.response_prefix for request in requests] == [
        prefix.text for prefix in step_prefixes(first, STEP_RULE)[:-1]
    ]
    assert all(request.indices == (0, 1, 2) for request in requests)
    assert (completions.num_prefixes, completions.num_distinct) == (2 * len(requests), len(requests))


def test_one_text_under_two_prompts_is_two_prefixes() -> None:
    first = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=True)
    other = Rollout(id="b", prompt_id="q", prompt="y", response="a\nb", answer="b", correct=True)
    assert step_prefixes(first, STEP_RULE)[0].key != step_prefixes(other, STEP_RULE)[0].key


def test_two_prompts_of_one_id_share_no_completions() -> None:
    first = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=True)
    with pytest.raises(DataError, match="'b' has another prompt than the rows before it"):
        PrefixCompletions(STEP_RULE, _settings(3)).see([first, replace(first, id="b", prompt="y")])


def test_completions_are_asked_for_with_the_tools_of_the_row() -> None:
    bare = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=True)
    tools = [{"type": "function", "function": {"name": name}} for name in ("add", "search")]
    rows = [
        bare,
        *(replace(bare, id=str(n), extras={"tools": [tool], "n": n}) for n, tool in enumerate(tools)),
    ]
    rows.append(replace(rows[-1], id="again", extras={"tools": json.dumps(tools[1:])}))
    completions = PrefixCompletions(STEP_RULE, _settings(2))
    completions.see(rows)
    requests = list(completions.requests(rows, 2, Sampling()))
    assert [request.prompt.extras for request in requests] == [{}, *({"tools": [tool]} for tool in tools)]
    assert len({request.prompt.id for request in requests}) == 3


def test_completions_of_unknown_prefixes_are_passed_over() -> None:
    completions = PrefixCompletions(STEP_RULE, _settings(2))
    completions.add("0" * 16, 0, right=True, prompt_tokens=1, generated_tokens=1)
    assert completions.num_drawn == 0


def test_the_last_step_has_the_outcome_unless_the_response_was_cut_off() -> None:
    rollout = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=False)
    completions = PrefixCompletions(STEP_RULE, _settings(2))
    completions.see([rollout])
    (request,) = completions.requests([rollout], 2, Sampling())
    for index in request.indices:
        completions.add(request.prompt.id, index, right=True, prompt_tokens=1, generated_tokens=1)
    labels = completions.label(rollout).step_labels
    assert labels is not None
    assert [label.label for label in labels] == [1.0, 0.0]
    cut_off = Rollout(
        id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=False, finish_reason="length"
    )
    assert [prefix.is_response for prefix in step_prefixes(cut_off, STEP_RULE)] == [False, False]


def test_what_cannot_be_labelled_keeps_no_labels_of_an_earlier_run() -> None:
    earlier: dict[str, Any] = {"step_labels": (StepLabel(3, 1.0),), "extras": {FIELD: {}, "level": 2}}
    ungraded = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", **earlier)
    without_completions = replace(ungraded, correct=False, finish_reason="length")
    completions = PrefixCompletions(STEP_RULE, _settings(2))
    completions.see([ungraded, without_completions])
    for rollout in (ungraded, without_completions):
        labelled = completions.label(rollout)
        assert labelled.step_labels is None
        assert labelled.extras == {"level": 2}


def test_rows_of_several_turns_stay_as_they_are_among_others() -> None:
    (plain,) = _rollouts(1, 1)
    turn: Message = {"role": "assistant", "content": plain.response}
    turns = replace(plain, id="turns", turns=(turn, turn))
    completions = _complete([turns, plain], _settings(1))
    assert completions.num_labelled == 1
    assert completions.label(turns) == turns
    assert completions.label(plain).step_labels


def test_rollouts_without_verdict_or_answer_stay_as_they_are() -> None:
    rollout = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b")
    completions = PrefixCompletions(STEP_RULE, _settings(2))
    completions.see([rollout])
    assert completions.num_labelled == 0
    assert not list(completions.requests([rollout], 2, Sampling()))
    assert completions.label(rollout) == rollout


@pytest.mark.parametrize("num_completions", [4, 16, 64, 256])
def test_labels_converge_to_the_exact_values_at_the_theoretical_rate(num_completions: int) -> None:
    """Errors in units of sqrt(p (1 - p) / K) have mean square 1, for every K."""
    rollouts = _rollouts(150, 1)
    completions = _complete(rollouts, _settings(num_completions))
    squares = []
    for rollout in rollouts:
        exact = step_values(WEAK, parse_problem(rollout.prompt), rollout.response)
        labels = completions.label(rollout).step_labels
        assert labels is not None
        assert labels[-1].label == exact[-1] == float(bool(rollout.correct))
        for label, value in zip(labels[:-1], exact[:-1], strict=True):
            # Shares that are nearly certain make the square's own variance large.
            if 0.1 < value < 0.9:
                squares.append((label.label - value) ** 2 / (value * (1 - value) / num_completions))
    # A standardised binomial's square has variance near 2 for such shares.
    assert len(squares) > 300
    assert np.mean(squares) == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(squares)))


def test_adaptive_drawing_stops_early_and_draws_what_all_would_have_drawn() -> None:
    rollouts = _rollouts(10, 2)
    all_drawn = _complete(rollouts, _settings(64))
    stopped = _complete(rollouts, _settings(64, tolerance=0.15))
    assert stopped.num_drawn < 0.8 * all_drawn.num_drawn
    hard = _complete(rollouts, _settings(64, tolerance=0.01, kind="hard"))
    assert hard.num_drawn < all_drawn.num_drawn
    for rollout in rollouts:
        assert (
            hard.label(rollout).extras["monte_carlo"]["hard"]
            == (all_drawn.label(rollout).extras["monte_carlo"]["hard"])
        )


def test_nothing_is_asked_for_twice() -> None:
    rollouts = _rollouts(4, 3)
    once, twice = _complete(rollouts, _settings(8)), _complete(rollouts, _settings(8), times=2)
    assert once.ledger(shared=True).to_json() == twice.ledger(shared=True).to_json()
    assert not list(twice.requests(rollouts, 8, Sampling()))


def test_the_cost_without_sharing_counts_each_rollout_anew() -> None:
    rollouts = _rollouts(4, 6)
    completions = _complete(rollouts, _settings(8))
    apart = [_complete([rollout], _settings(8)).ledger(shared=True) for rollout in rollouts]
    unshared = completions.ledger(shared=False)
    assert unshared.generated_tokens == sum(ledger.generated_tokens for ledger in apart)
    assert unshared.prompt_tokens == sum(ledger.prompt_tokens for ledger in apart)
    assert completions.ledger(shared=True).generated_tokens < unshared.generated_tokens


def test_rounds_of_adaptive_drawing_rise_to_the_most() -> None:
    assert _settings(10).targets == (10,)
    assert _settings(10, tolerance=0.1).targets == (3, 5, 8, 10)
    assert _settings(2, tolerance=0.1).targets == (1, 2)


def _mean_label(probability: float, settings: LabelSettings) -> tuple[float, float]:
    """Mean soft label and mean completions of a prefix, over every outcome that its completions may have."""
    rollout = Rollout(id="a", prompt_id="p", prompt="x", response="a\nb", answer="b", correct=True)
    label = drawn = 0.0
    for outcome in itertools.product((False, True), repeat=settings.num_completions):
        completions = PrefixCompletions(STEP_RULE, settings)
        completions.see([rollout])
        for target in settings.targets:
            for request in completions.requests([rollout], target, Sampling()):
                for index in request.indices:
                    completions.add(
                        request.prompt.id, index, right=outcome[index], prompt_tokens=1, generated_tokens=1
                    )
        share = math.prod(probability if right else 1 - probability for right in outcome)
        first, _ = completions.label(rollout).step_labels or ()
        label += share * first.label
        drawn += share * completions.num_drawn
    return label, drawn


def test_a_fixed_number_of_completions_gives_unbiased_soft_labels() -> None:
    for probability in (0.1, 0.5, 0.81):
        assert _mean_label(probability, _settings(6)) == pytest.approx((probability, 6), abs=1e-12)


def test_adaptive_drawing_pulls_soft_labels_to_the_nearer_end() -> None:
    """What looks extreme settles early and stays; what looks even is drawn on and so corrected."""
    bias = {}
    for probability in (0.1, 0.19, 0.3, 0.5, 0.7, 0.81, 0.9):
        label, drawn = _mean_label(probability, _settings(8, tolerance=0.25))
        bias[probability] = label - probability
        assert 4 < drawn < 8
    assert bias[0.5] == pytest.approx(0.0, abs=1e-12)
    for probability in (0.1, 0.19, 0.3):
        assert bias[probability] == pytest.approx(-bias[round(1 - probability, 2)], abs=1e-12)
    # The largest there is at K = 8 and width 0.25, as docs/baselines.md says.
    assert bias[0.81] == pytest.approx(0.0404, abs=1e-4)
    assert all(0 < bias[probability] <= bias[0.81] for probability in (0.7, 0.81, 0.9))
