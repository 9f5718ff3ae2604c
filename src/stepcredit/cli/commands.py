"""The commands: name, one line of help, and the module whose ``Options`` and ``run`` it calls.

Modules are imported only when their command is called, so that ``stepcredit --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line.

    Attributes:
        name: One word, or two for a command of a group (``eval best-of-n``).
        help: One line.
        module: Holds the dataclass ``Options`` and the function ``run(options) -> CommandResult``; of the
            library, or of a package beside it, which need not be installed.
    """

    name: str
    help: str
    module: str


COMMANDS: tuple[Command, ...] = (
    Command("demo", "the whole loop on the lab, to an HTML report", "stepcredit.pipelines.demo"),
    Command(
        "reproduce",
        "the paper's findings: measured here, beside the published numbers",
        "stepcredit_study.reproduce",
    ),
    Command("sample", "prompts -> rollouts", "stepcredit.pipelines.sample"),
    Command("grade", "rollouts -> graded rollouts", "stepcredit.pipelines.grade"),
    Command("train", "graded rollouts -> PRM", "stepcredit.pipelines.train"),
    Command("score", "rollouts -> step, token and response scores", "stepcredit.pipelines.score"),
    Command(
        "search",
        "guided search: draw step by step, keep what a reward model prefers",
        "stepcredit.pipelines.search",
    ),
    Command(
        "serve", "reward models over HTTP, with a page to look at solutions", "stepcredit.pipelines.serve"
    ),
    Command("convert", "between file formats", "stepcredit.pipelines.convert"),
    Command(
        "select",
        "a part of some rollouts: fewer prompts or responses, another mix, no near-duplicates",
        "stepcredit.pipelines.select",
    ),
    Command(
        "label math-shepherd",
        "Monte-Carlo step labels: complete every step prefix and grade",
        "stepcredit.pipelines.label_math_shepherd",
    ),
    Command(
        "label autopsv",
        "step labels from an outcome verifier's confidence",
        "stepcredit.pipelines.label_autopsv",
    ),
    Command(
        "baseline",
        "random, length, self-consistency and oracle as score files",
        "stepcredit.pipelines.baseline",
    ),
    Command(
        "compare",
        "reward models with equal data, weights and search budget; accuracy against cost",
        "stepcredit.pipelines.compare",
    ),
    Command("eval best-of-n", "accuracy of picking, voting and both", "stepcredit.pipelines.eval_best_of_n"),
    Command("eval processbench", "is the first wrong step found", "stepcredit.pipelines.eval_processbench"),
    Command("eval prmbench", "nine kinds of wrong steps", "stepcredit.pipelines.eval_prmbench"),
    Command("eval steps", "any step-labelled data", "stepcredit.pipelines.eval_steps"),
    Command(
        "eval conventions",
        "what each scoring convention changes, against the clean one",
        "stepcredit.pipelines.eval_conventions",
    ),
    Command("eval leaderboard", "rank all evaluations of a folder", "stepcredit.pipelines.eval_leaderboard"),
    Command("bench score", "beside the published evaluator's way", "stepcredit_bench.score"),
    Command("bench train", "beside TRL's trainer and a plain loop", "stepcredit_bench.train"),
)

GROUPS = {
    "label": "step labels without people",
    "eval": "how good is a reward model",
    "bench": "speed and memory beside other ways",
}
