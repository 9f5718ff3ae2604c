from __future__ import annotations

import numpy as np
import pytest
from tests.tutor_generator import TutorGenerator

from stepcredit.errors import DataError, UserError
from stepcredit.lab.task import Problem, draw_problems
from stepcredit.lab.tutor import MID, WEAK
from stepcredit.lab.values import prefix_value
from stepcredit.types import GenerationFailure, GenerationRequest, Prompt, Rollout, Sampling

PROBLEM = Problem(7, "*+-", (8, 5, 3))


def request(
    problem: Problem = PROBLEM, prefix: str = "", samples: int = 4, **sampling: object
) -> GenerationRequest:
    return GenerationRequest(
        prompt=Prompt(id=problem.text, prompt=problem.text, answer=problem.answer),
        indices=tuple(range(samples)),
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
        response_prefix=prefix,
    )


def responses(*requests: GenerationRequest) -> list[str]:
    rollouts = list(TutorGenerator(WEAK).generate(requests))
    assert all(isinstance(rollout, Rollout) for rollout in rollouts)
    return [rollout.response for rollout in rollouts if isinstance(rollout, Rollout)]


@pytest.mark.parametrize(
    "prefix", ["", "7", "7*8=", "7*8=5", "7*8=5\n", "7*8=5\n5+5=", "7*8=6\n6+5=1\n1-3=8\n", "7*8=2\n#2"]
)
def test_a_prefix_is_continued_in_the_form_of_a_solution(prefix: str) -> None:
    for response in responses(request(prefix=prefix, samples=20)):
        assert response.startswith(prefix)
        lines = response.split("\n")
        results = [int(line[-1]) for line in lines[:-1]]
        assert lines[-1] == f"#{results[-1]}"
        if "#" not in prefix:
            assert response == PROBLEM.write(results)


def test_a_sample_does_not_depend_on_which_others_are_asked_for() -> None:
    first = responses(request(samples=6), request(Problem(3, "+", (4,))))[:6]
    assert responses(request(Problem(3, "+", (4,))), request(samples=9))[4:10] == first
    assert responses(request(samples=6, seed=1)) != first


def test_a_generator_draws_as_the_tutor_writes() -> None:
    problem = Problem(4, "*+", (7, 3))
    drawn = responses(request(problem, samples=4000))
    written = WEAK.write([problem] * 4000, seed=0)
    for text in set(written):
        first, second = drawn.count(text) / 4000, written.count(text) / 4000
        assert abs(first - second) < 4.5 * np.sqrt(2 * (first + second) / 2 / 4000) + 1e-9


@pytest.mark.parametrize("num_samples", [4, 32, 256])
def test_monte_carlo_labels_approach_the_exact_value_at_the_binomial_rate(num_samples: int) -> None:
    """The squared error of the mean of K outcomes is p(1-p)/K in expectation."""
    generator = TutorGenerator(MID)
    squared_errors, expected = [], []
    for problem in draw_problems("development", seed=1, count=60):
        lines = MID.write([problem], seed=7)[0].split("\n")
        for num_steps in (0, 2):
            prefix = "".join(f"{line}\n" for line in lines[:num_steps])
            value = prefix_value(MID, problem, prefix)
            drawn = generator.generate([request(problem, prefix, num_samples, seed=num_samples)])
            responses = [rollout.response for rollout in drawn if isinstance(rollout, Rollout)]
            assert len(responses) == num_samples
            estimate = np.mean([response.endswith(f"#{problem.answer}") for response in responses])
            squared_errors.append((estimate - value) ** 2)
            expected.append(value * (1 - value) / num_samples)
    standard_error = np.std(squared_errors) / np.sqrt(len(squared_errors)) / np.mean(expected)
    assert standard_error < 0.2
    assert np.mean(squared_errors) / np.mean(expected) == pytest.approx(1.0, abs=4 * standard_error)


def test_a_prefix_that_no_tutor_would_write_is_a_failure_with_its_reason() -> None:
    (failure,) = TutorGenerator(MID).generate([request(prefix="seven times eight")])
    assert failure == GenerationFailure(
        PROBLEM.text, (0, 1, 2, 3), "a tutor cannot go on from 'seven times eight'"
    )


def test_length_limit_and_stop_strings_end_a_response() -> None:
    generator = TutorGenerator(MID)
    (cut,) = generator.generate([request(samples=1, max_new_tokens=8)])
    (stopped,) = generator.generate([request(samples=1, stop=("\n",))])
    (whole,) = generator.generate([request(samples=1)])
    assert isinstance(cut, Rollout)
    assert isinstance(stopped, Rollout)
    assert isinstance(whole, Rollout)
    assert (cut.response, cut.finish_reason) == (whole.response[:8], "length")
    assert (stopped.response, stopped.finish_reason) == (whole.response[:5], "stop")
    assert whole.finish_reason == "stop"
    assert generator.ledger.generated_tokens == 8 + 5 + len(whole.response) + 1


def test_the_end_of_turn_counts_against_the_length_limit() -> None:
    length = len(PROBLEM.solution)
    for limit, reason in ((length, "length"), (length + 1, "stop")):
        (rollout,) = TutorGenerator(MID).generate([request(samples=1, max_new_tokens=limit)])
        assert isinstance(rollout, Rollout)
        assert (len(rollout.response), rollout.finish_reason) == (length, reason)


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}])
def test_another_distribution_than_the_tutors_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match="own distribution"):
        list(TutorGenerator(MID).generate([request(**change)]))  # type: ignore[arg-type]


def test_a_prompt_of_another_task_is_refused() -> None:
    foreign = GenerationRequest(prompt=Prompt(id="x", prompt="Why?"), indices=(0,), sampling=Sampling())
    with pytest.raises(DataError, match="not a problem of the lab"):
        list(TutorGenerator(MID).generate([foreign]))
