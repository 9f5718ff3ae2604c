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
        module: Holds the dataclass ``Options`` and the function ``run(options) -> CommandResult``; of the
            library, or of a package beside it, which need not be installed.
    """

    name: str
    help: str
    module: str


COMMANDS: tuple[Command, ...] = (
    Command("demo", "run the whole loop in the lab and write an HTML report", "stepcredit.pipelines.demo"),
    Command(
        "reproduce",
        "repeat the paper's findings beside the published numbers",
        "stepcredit_study.reproduce",
    ),
    Command("sample", "draw responses to prompts: prompts -> rollouts", "stepcredit.pipelines.sample"),
    Command("grade", "check each final answer: rollouts -> graded rollouts", "stepcredit.pipelines.grade"),
    Command("train", "train a reward model: graded rollouts -> PRM", "stepcredit.pipelines.train"),
    Command(
        "score", "compute step, token and response rewards: rollouts -> scores", "stepcredit.pipelines.score"
    ),
    Command(
        "search",
        "guided search: draw responses step by step, keep what a reward model prefers",
        "stepcredit.pipelines.search",
    ),
    Command(
        "serve",
        "serve reward models over HTTP, with a page for inspecting solutions",
        "stepcredit.pipelines.serve",
    ),
    Command("convert", "convert between file formats", "stepcredit.pipelines.convert"),
    Command(
        "select",
        "take a subset of rollouts: fewer prompts or responses, another mix, no near-duplicates",
        "stepcredit.pipelines.select",
    ),
    Command(
        "label math-shepherd",
        "Monte-Carlo step labels: complete every step prefix and grade the completions",
        "stepcredit.pipelines.label_math_shepherd",
    ),
    Command(
        "label autopsv",
        "step labels from an outcome verifier's confidence",
        "stepcredit.pipelines.label_autopsv",
    ),
    Command(
        "baseline",
        "write score files for random, length, self-consistency and oracle baselines",
        "stepcredit.pipelines.baseline",
    ),
    Command(
        "compare",
        "compare reward models at equal data, initial weights and tuning budget: accuracy against cost",
        "stepcredit.pipelines.compare",
    ),
    Command(
        "eval best-of-n",
        "accuracy of picking the best response, of voting, and of both together",
        "stepcredit.pipelines.eval_best_of_n",
    ),
    Command(
        "eval processbench",
        "how well the first wrong step is found",
        "stepcredit.pipelines.eval_processbench",
    ),
    Command(
        "eval prmbench", "how well nine kinds of wrong steps are found", "stepcredit.pipelines.eval_prmbench"
    ),
    Command(
        "eval steps",
        "how well wrong steps are found in any step-labelled data",
        "stepcredit.pipelines.eval_steps",
    ),
    Command(
        "eval conventions",
        "how much each scoring convention changes a result",
        "stepcredit.pipelines.eval_conventions",
    ),
    Command("eval leaderboard", "rank all evaluations in a folder", "stepcredit.pipelines.eval_leaderboard"),
    Command(
        "bench score",
        "speed and memory of scoring, beside the published evaluator and vLLM",
        "stepcredit_bench.score",
    ),
    Command(
        "bench growth",
        "how time and memory grow with rollouts, length, group size and steps",
        "stepcredit_bench.growth",
    ),
    Command("bench rl", "what rewards cost in a step of GRPO", "stepcredit_bench.rl"),
    Command("bench sample", "speed and memory of sampling, beside other engines", "stepcredit_bench.sample"),
    Command("bench serve", "requests per second and latency of a server", "stepcredit_bench.serve"),
    Command(
        "bench search",
        "search that keeps its models' state, beside search without state",
        "stepcredit_bench.search",
    ),
    Command(
        "bench train",
        "speed and memory of training, beside TRL and a plain PyTorch loop",
        "stepcredit_bench.train",
    ),
)

GROUPS = {
    "label": "automatic step labels",
    "eval": "evaluate reward models",
    "bench": "speed and memory, beside other implementations",
}
