"""One function per command of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, overload

from stepcredit.api.calling import Workplace, takes_options_of
from stepcredit.api.keywords import (
    BestOfNKeywords,
    GradeKeywords,
    SampleKeywords,
    ScoreKeywords,
    SearchKeywords,
    StepKeywords,
    TrainKeywords,
)
from stepcredit.api.outputs import Rollouts, Scores, SearchedRollouts, TrainedModel
from stepcredit.errors import UserError
from stepcredit.pipelines import eval_best_of_n, eval_steps
from stepcredit.pipelines import grade as grade_command
from stepcredit.pipelines import sample as sample_command
from stepcredit.pipelines import score as score_command
from stepcredit.pipelines import search as search_command
from stepcredit.pipelines import train as train_command
from stepcredit.types import Prompt, ResponseScore, Rollout

if TYPE_CHECKING:
    from stepcredit.api.sources import PathText, Source
    from stepcredit.pipelines.eval_best_of_n import EvalResult
    from stepcredit.pipelines.eval_steps import StepResultOutput
    from stepcredit.pipelines.grade import Result as GradeResult
    from stepcredit.pipelines.sample import SampleResult
    from stepcredit.pipelines.score import Result as ScoreResult
    from stepcredit.pipelines.search import Result as SearchResult


@takes_options_of(sample_command)
def sample(
    prompts: Source[Prompt] | list[str],
    *,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[SampleKeywords],
) -> Rollouts[SampleResult]:
    """Draw responses to prompts, as ``stepcredit sample`` does.

    Args:
        prompts: A file, ``hub:NAME[:SPLIT]`` or ``reasoning-gym:TASK``; records, dictionaries or texts; a
            data set or a frame.
        out: File to write. A call that was stopped resumes from it. Without it the rows are kept as long as
            the returned object exists.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The rollouts, in the order of prompt and sample.

    Raises:
        UserError: A mistake in the options or the input; or every prompt failed.
    """
    work = Workplace()
    path = work.output(out, "rollouts.jsonl")
    given = {"prompts": work.file(prompts, "prompts"), "out": path}
    return Rollouts(path, work.run(sample_command, sample, given, {**options}, config), work)


@takes_options_of(grade_command)
def grade(
    rollouts: Source[Rollout],
    *,
    grader: str | Callable[[str, str], Any],
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[GradeKeywords],
) -> Rollouts[GradeResult]:
    """Check each final answer, as ``stepcredit grade`` does.

    Args:
        rollouts: A file; records or dictionaries; a data set or a frame.
        grader: ``math``, ``numeric``, ``exact``, ``choice``, ``code``, ``reasoning-gym``,
            ``python:module:function``, or a function of (response, answer) in a module that can be imported.
        out: File to write; see :func:`sample`.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The rollouts with ``correct`` and ``prediction``.

    Raises:
        UserError: A mistake in the options or the input; or nothing can be graded.
    """
    work = Workplace()
    path = work.output(out, "graded.jsonl")
    given = {"rollouts": work.file(rollouts, "rollouts"), "grader": _grader_name(grader), "out": path}
    return Rollouts(path, work.run(grade_command, grade, given, {**options}, config), work)


@takes_options_of(train_command)
def train(
    graded: Source[Rollout],
    *,
    out: PathText | None = None,
    dev: Source[Rollout] | None = None,
    config: PathText | None = None,
    **options: Unpack[TrainKeywords],
) -> TrainedModel:
    """Train a reward model, as ``stepcredit train`` does.

    Args:
        graded: Graded rollouts: a file; records or dictionaries; a data set or a frame.
        out: Directory of the model; see :func:`sample`.
        dev: Graded rollouts of other prompts, for held-out metrics and for choosing the weights to keep.
        config: YAML file of options, or the name of a shipped recipe such as ``small``; keywords override it.

    Returns:
        The model; ``load()`` loads it for scoring.

    Raises:
        UserError: A mistake in the options or the input, or the model cannot be used as asked.
    """
    work = Workplace()
    path = work.output(out, "prm")
    given = {
        "graded": work.file(graded, "graded"),
        "dev": None if dev is None else work.file(dev, "dev"),
        "out": path,
    }
    return TrainedModel(path, work.run(train_command, train, given, {**options}, config), work)


@overload
def score(
    rollouts: Source[Rollout],
    *,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[ScoreKeywords],
) -> Scores[ScoreResult]: ...
@overload
def score(
    *, text: str, prompt: str, config: PathText | None = None, **options: Unpack[ScoreKeywords]
) -> ResponseScore: ...
@takes_options_of(score_command, "input")
def score(
    rollouts: Source[Rollout] | None = None,
    *,
    text: str | None = None,
    prompt: str | None = None,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[ScoreKeywords],
) -> Scores[ScoreResult] | ResponseScore:
    """Compute step, token and response rewards, as ``stepcredit score`` does.

    A loaded model scores records too, without files: ``prm.score_all(rollouts)``.

    Args:
        rollouts: A file; records or dictionaries; a data set or a frame.
        text: One solution to score, instead of rollouts.
        prompt: The problem that ``text`` answers.
        out: File to write; see :func:`sample`.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The scores in the order of the rollouts, or the score of ``text``.

    Raises:
        UserError: Options, input or checkpoints do not fit together.
    """
    if (rollouts is None) == (text is None):
        raise UserError("takes either rollouts, or text= with prompt=", where="score()")
    if rollouts is None:
        given = {"text": text, "prompt": prompt, "out": out}
        result = Workplace().run(score_command, score, given, {**options}, config)
        return result.score  # type: ignore[no-any-return]
    work = Workplace()
    path = work.output(out, "scores.jsonl")
    given = {"input": work.file(rollouts, "rollouts"), "prompt": prompt, "out": path}
    return Scores(path, work.run(score_command, score, given, {**options}, config), work)


@takes_options_of(search_command)
def search(
    prompts: Source[Prompt] | list[str],
    *,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[SearchKeywords],
) -> SearchedRollouts[SearchResult]:
    """Draw responses step by step and keep what a reward model prefers, as ``stepcredit search`` does.

    Args:
        prompts: A file or ``hub:NAME[:SPLIT]``; records, dictionaries or texts; a data set or a frame.
        out: File to write; see :func:`sample`. The trees lie beside it.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The candidates of each final choice, the chosen one first, and the trees.

    Raises:
        UserError: A mistake in the options or the input; or every problem failed.
    """
    work = Workplace()
    path = work.output(out, "found.jsonl")
    given = {"prompts": work.file(prompts, "prompts"), "out": path}
    return SearchedRollouts(path, work.run(search_command, search, given, {**options}, config), work)


@takes_options_of(eval_best_of_n)
def evaluate_best_of_n(
    graded: Source[Rollout],
    *,
    scores: Mapping[str, Source[ResponseScore]] | None = None,
    dev: Source[Rollout] | None = None,
    dev_scores: Mapping[str, Source[ResponseScore]] | None = None,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[BestOfNKeywords],
) -> EvalResult:
    """Accuracy of the best of n, of voting, and of both together, as ``stepcredit eval best-of-n`` finds it.

    Args:
        graded: Graded rollouts: a file; records or dictionaries; a data set or a frame.
        scores: Name of each scorer to its scores of the same rollouts.
        dev: Graded rollouts of development problems, to choose on.
        dev_scores: Their scores, under the same names.
        out: Folder for results, tables and report; without it nothing is written.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The evaluation: ``to_json()`` has every figure, ``to_text()`` the tables.

    Raises:
        UserError: A mistake in the options, or rollouts and scores do not fit together.
    """
    work = Workplace()
    given = {
        "graded": work.file(graded, "graded"),
        "scores": work.files(scores, "scores"),
        "dev": None if dev is None else work.file(dev, "dev"),
        "dev_scores": work.files(dev_scores, "dev_scores"),
        "out": out,
    }
    result: EvalResult = work.run(eval_best_of_n, evaluate_best_of_n, given, {**options}, config)
    return result


@takes_options_of(eval_steps)
def evaluate_steps(
    data: Source[Rollout] | Mapping[str, Source[Rollout]],
    *,
    scores: Mapping[str, Source[ResponseScore]] | None = None,
    prm: Mapping[str, PathText] | None = None,
    dev: Source[Rollout] | None = None,
    out: PathText | None = None,
    config: PathText | None = None,
    **options: Unpack[StepKeywords],
) -> StepResultOutput:
    """How well step rewards tell wrong steps from right ones, as ``stepcredit eval steps`` finds it.

    Args:
        data: Rollouts with step labels: a file or ``hub:DATASET[:SPLIT]``; records or dictionaries; a data
            set or a frame; or a mapping from data-set names to such rollouts.
        scores: Name of each scorer (``SCORER/PART`` for one part, ``SCORER/dev`` for ``dev``) to its scores.
        prm: Name of each model that scores the data first to its directory.
        dev: Labelled rollouts, not reported, to tune a threshold on.
        out: Folder for data, scores, tables and report; without it nothing is kept.
        config: YAML file of options, or the name of a shipped recipe; keywords override it.

    Returns:
        The evaluation: ``to_json()`` has every figure, ``to_text()`` the tables.

    Raises:
        UserError: A mistake in the options, or data and scores do not fit together.
    """
    work = Workplace()
    # Models write their scores of the data into the output's folder.
    if out is None and prm is not None:
        out = work.output(None, "evaluation")
    given = {
        "data": work.files(data, "data") if isinstance(data, Mapping) else (work.file(data, "data"),),
        "scores": work.files(scores, "scores"),
        "prm": work.files(prm, "prm"),
        "dev": None if dev is None else work.file(dev, "dev"),
        "out": out,
    }
    result: StepResultOutput = work.run(eval_steps, evaluate_steps, given, {**options}, config)
    return result


def _grader_name(grader: str | Callable[[str, str], Any]) -> str:
    """A grader as the command names it.

    Raises:
        UserError: Worker processes cannot import the function.
    """
    if isinstance(grader, str):
        return grader
    module, name = getattr(grader, "__module__", None), getattr(grader, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        raise UserError(
            "is a function that worker processes cannot import",
            where="grader",
            hint="write it in a file of its own, e.g. my_grader.py, and import it from there",
        )
    return f"python:{module}:{name}"
