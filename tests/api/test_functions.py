"""The loop from Python: on any kind of rows, with and without files, byte for byte as the commands."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset

import stepcredit
from stepcredit import Prompt, Rollout, UserError
from stepcredit.cli import main
from stepcredit.data import prompt_to_json, write_rows
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.runs import manifest_path

PROMPTS = list(make_prompts("test", seed=0, count=4))
DRAW: dict[str, Any] = {"num_samples": 4, "max_new_tokens": 64, "top_p": 0.95}
GRADE: dict[str, Any] = {"grader": "exact", "answer_pattern": r"#(\d)\s*$"}
PRM: dict[str, Any] = {"reference_free": True, "beta": 1.0, "steps": "newline"}
MID = policy_path("mid")


def graded_rollouts() -> list[Rollout]:
    """Two responses to each of two problems: one right, one wrong in its second step."""
    responses = {"right": "2*3=6\n6+1=7\n#7", "wrong": "2*3=6\n6+1=8\n#8"}
    return [
        Rollout(
            id=f"{problem}-{name}",
            prompt_id=problem,
            index=index,
            prompt="2*3+1=",
            response=response,
            answer="7",
            correct=name == "right",
            prediction=response[-1],
            finish_reason="stop",
            step_labels=(
                stepcredit.types.StepLabel(6, 1.0),
                stepcredit.types.StepLabel(12, float(name == "right")),
            ),
        )
        for problem in ("a", "b")
        for index, (name, response) in enumerate(responses.items())
    ]


@pytest.fixture(scope="module")
def sampled() -> Any:
    return stepcredit.sample(PROMPTS, model=MID, **DRAW)


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", map(prompt_to_json, PROMPTS))
    return tmp_path / "prompts.jsonl"


def words(**options: Any) -> list[str]:
    """Keywords as they are typed."""
    flags = {"--" + name.replace("_", "-"): value for name, value in options.items()}
    return [
        f"{flag}={value}" if value is not True else flag for flag, value in flags.items() if value is not None
    ]


def test_files_are_byte_for_byte_those_of_the_commands(prompts_file: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    draw: dict[str, Any] = {"model": MID, **DRAW}
    policy: dict[str, Any] = {"model": MID, "prm": MID, **PRM}
    searching: dict[str, Any] = {"strategy": "beam", "width": 4, "expand": 2, "max_new_tokens": 64}
    training: dict[str, Any] = {"model": MID, "beta": 0.5, "epochs": 0.5, "steps": "newline", "seed": 3}

    def run(command: str, *inputs: Path, out: str, **options: Any) -> None:
        words_of = [*command.split(), *map(str, inputs), *words(**options), "--out", str(theirs / out)]
        assert main(words_of) == 0

    run("sample", prompts_file, out="rollouts.jsonl", **draw)
    run("grade", theirs / "rollouts.jsonl", out="graded.jsonl", **GRADE)
    run("score", theirs / "graded.jsonl", out="scores.jsonl", prm=MID, **PRM)
    run("train", theirs / "graded.jsonl", out="prm", **training)
    run("search", prompts_file, out="found.jsonl", **searching, **policy)
    scores = f"m={theirs / 'scores.jsonl'}"
    run("eval best-of-n", theirs / "graded.jsonl", out="eval", scores=scores, n="1,4", draws=200)

    rollouts = stepcredit.sample(PROMPTS, out=ours / "rollouts.jsonl", **draw)
    graded = stepcredit.grade(rollouts, out=ours / "graded.jsonl", **GRADE)
    scored = stepcredit.score(list(graded), out=ours / "scores.jsonl", prm=MID, **PRM)
    stepcredit.train(graded.to_dataset(), out=ours / "prm", **training)
    stepcredit.search(prompts_file, out=ours / "found.jsonl", **searching, **policy)
    stepcredit.evaluate_best_of_n(graded, scores={"m": scored}, out=ours / "eval", n=(1, 4), draws=200)

    made = ["rollouts.jsonl", "graded.jsonl", "scores.jsonl", "found.jsonl", "found.jsonl.trees.jsonl"]
    made += ["prm/model.safetensors", "prm/prm.json", "prm/train_log.jsonl", "eval/results.csv"]
    for name in made:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    for name in made[:4]:
        mine, same = (json.loads(manifest_path(folder / name).read_text()) for folder in (ours, theirs))
        assert mine["settings_hash"] == same["settings_hash"], name


ROWS: dict[str, Callable[[list[Prompt]], Any]] = {
    "dictionaries": lambda prompts: [prompt_to_json(prompt) for prompt in prompts],
    "a generator": iter,
    "a data set": lambda prompts: Dataset.from_list([prompt_to_json(prompt) for prompt in prompts]),
    "a frame": lambda prompts: pandas.DataFrame([prompt_to_json(prompt) for prompt in prompts]),
}


@pytest.mark.parametrize("kind", ROWS)
def test_any_kind_of_rows_gives_the_same_rollouts(kind: str, sampled: Any) -> None:
    rollouts = stepcredit.sample(ROWS[kind](PROMPTS), model=MID, **DRAW)
    assert list(rollouts) == list(sampled)


def test_texts_are_prompts() -> None:
    rollouts = stepcredit.sample(["2*3+1=", "4+4="], generator="fake", num_samples=2)
    assert [rollout.prompt for rollout in rollouts] == ["2*3+1="] * 2 + ["4+4="] * 2


def test_a_frame_with_gaps_keeps_whole_numbers_and_nothing_as_nothing() -> None:
    frame = pandas.DataFrame({"prompt": ["1+1=", "2+2="], "answer": ["2", None], "level": [1, 2]})
    first, second = stepcredit.sample(frame, generator="fake", num_samples=1)
    assert (first.answer, second.answer) == ("2", None)


def test_rows_stay_while_they_are_held_and_then_leave_no_file(sampled: Any) -> None:
    graded = stepcredit.grade(sampled, **GRADE)
    path = graded.path
    assert path.is_file()
    assert graded[0].prediction is not None
    assert len(graded[:3]) == 3
    del graded
    gc.collect()
    assert not path.parent.exists()


def test_a_second_call_finds_what_the_first_one_wrote(tmp_path: Path) -> None:
    out = tmp_path / "rollouts.jsonl"
    first = stepcredit.sample(["1+1="], generator="fake", num_samples=2, out=out)
    second = stepcredit.sample(["1+1="], generator="fake", num_samples=2, out=out)
    assert not first.result.already_complete
    assert second.result.already_complete
    assert list(first) == list(second)
    with pytest.raises(UserError, match="Choose another out, or pass overwrite=True"):
        stepcredit.sample(["2+2="], generator="fake", num_samples=2, out=out)


def test_one_solution_is_scored_without_files() -> None:
    score = stepcredit.score(text="2*3=6\n#6", prompt="2*3=", prm=MID, **PRM)
    assert [step.text for step in score.steps] == ["2*3=6\n", "#6"]


def test_a_trained_model_is_a_path_and_scores() -> None:
    model = stepcredit.train(
        graded_rollouts() * 1, dev=graded_rollouts(), model=MID, beta=0.5, steps="newline", learning_rate=1e-3
    )
    scores = stepcredit.score(graded_rollouts(), prm=model)
    loaded = model.load()
    assert [score.reward for score in loaded.score_all(graded_rollouts())] == [s.reward for s in scores]
    assert "<img" in model._repr_html_()
    folder = model.path.parent
    del model, scores
    gc.collect()
    assert folder.is_dir(), "a loaded model may still read from it"


def test_step_labels_are_evaluated_from_records() -> None:
    rollouts = graded_rollouts()
    scores = stepcredit.score(rollouts, prm=MID, **PRM)
    evaluation = stepcredit.evaluate_steps({"mine": rollouts}, scores={"mid": scores}, draws=200)
    assert {row.subset for row in evaluation.evaluation.results} == {"mine"}
    same = stepcredit.evaluate_steps(rollouts, prm={"mid": MID}, reference_free=True, beta=1.0, draws=200)
    assert [row.value for row in same.evaluation.results] == [
        row.value for row in evaluation.evaluation.results
    ]
    assert evaluation._repr_html_().startswith("<pre")


def test_an_evaluation_shows_its_plot(sampled: Any) -> None:
    graded = stepcredit.grade(sampled, **GRADE)
    evaluation = stepcredit.evaluate_best_of_n(graded, n=(1, 4), draws=200)
    html = evaluation._repr_html_()
    assert 'src="data:image/svg+xml;base64,' in html
    assert "<script" not in html
    assert "<table>" in graded._repr_html_()


def test_a_search_gives_its_trees() -> None:
    found = stepcredit.search(
        PROMPTS[:2], model=MID, prm=MID, **PRM, strategy="beam", width=2, expand=2, max_new_tokens=64
    )
    assert [tree["prompt_id"] for tree in found.trees] == [prompt.id for prompt in PROMPTS[:2]]
    assert [rollout.prompt_id for rollout in found.chosen] == [prompt.id for prompt in PROMPTS[:2]]


def test_a_function_of_ones_own_grades() -> None:
    from tests.api.my_grader import ends_with_answer

    graded = stepcredit.grade(
        [
            {"prompt": "1+1=", "response": "#2", "answer": "2"},
            {"prompt": "1+1=", "response": "#3", "answer": "2"},
        ],
        grader=ends_with_answer,
    )
    assert [rollout.correct for rollout in graded] == [True, False]
    with pytest.raises(UserError, match="worker processes cannot import"):
        stepcredit.grade(graded, grader=lambda response, answer: True)


MISTAKES: dict[str, Callable[[], Any]] = {
    "sample(): there is no keyword 'num_smaples'. Did you mean 'num_samples'?": lambda: stepcredit.sample(
        ["x"],
        num_smaples=3,  # type: ignore[call-arg]
    ),
    "num_samples: must be at least 1, got 0": lambda: stepcredit.sample(["x"], model=MID, num_samples=0),
    "top_p: must be above 0 and at most 1, got 7": lambda: stepcredit.sample(["x"], model=MID, top_p=7),
    "prompts[0]: is of type int. Pass a record": lambda: stepcredit.sample([3], model=MID),
    "prompts[0]: column 'prompt' holds a value that JSON cannot": lambda: stepcredit.sample(
        ["\ud800"], model=MID
    ),
    "prompts: is of type dict, which has no rows.": lambda: stepcredit.sample({"prompt": "x"}, model=MID),
    "rollouts[1]: field 'response' must be a string, not 3": lambda: stepcredit.grade(
        [{"prompt": "a", "response": "1", "answer": "1"}, {"prompt": "a", "response": 3}], grader="exact"
    ),
    "score(): takes either rollouts, or text= with prompt=": lambda: stepcredit.score(prm=MID),  # type: ignore[call-overload]
    "text: needs the problem too. Pass prompt TEXT": lambda: stepcredit.score(text="b", prm=MID),  # type: ignore[call-overload]
    "graded: there are no rollouts to train on": lambda: stepcredit.train([], model=MID),
    "scores: is not a mapping from names to sources": lambda: stepcredit.evaluate_best_of_n(
        graded_rollouts(),
        scores=["s"],  # type: ignore[arg-type]
    ),
    "scores: the name 'a=b' has an equals sign": lambda: stepcredit.evaluate_best_of_n(
        graded_rollouts(), scores={"a=b": []}
    ),
    "draws: 5 draws give no interval": lambda: stepcredit.evaluate_best_of_n(graded_rollouts(), draws=5),
    "seed: must be from 0": lambda: stepcredit.evaluate_best_of_n(graded_rollouts(), seed=-1),
    "seed: must be from 0 to": lambda: stepcredit.train(graded_rollouts(), model="none", seed=2**32),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named_in_python(message: str) -> None:
    with pytest.raises(UserError) as error:
        MISTAKES[message]()
    assert str(error.value).startswith(message)


def test_the_package_offers_the_loop() -> None:
    assert {"sample", "grade", "train", "score", "search", "load_scorer", "ImplicitPRM"} <= set(
        dir(stepcredit)
    )
    for name in stepcredit.__all__:
        assert getattr(stepcredit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        stepcredit.smaple  # noqa: B018
