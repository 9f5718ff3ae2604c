"""The commands: name, one line of help, and the package that holds the module of that name.

Modules are imported only when their command is called, so that ``stepcredit --help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line.

    Attributes:
        name: One word, or two for a command of a group (``eval best-of-n``).
        package: Of the library, or one beside it, which need not be installed.
    """

    name: str
    help: str
    package: str = "stepcredit.pipelines"

    @property
    def module(self) -> str:
        """Holds the dataclass ``Options`` and the function ``run(options) -> CommandResult``."""
        name = self.name.removeprefix("bench ").replace(" ", "_").replace("-", "_")
        return f"{self.package}.{name}"


COMMANDS: tuple[Command, ...] = (
    Command("demo", "run the whole loop in the lab and write an HTML report"),
    Command("reproduce", "repeat the paper's findings beside the published numbers", "stepcredit_study"),
    Command("sample", "draw responses to prompts: prompts -> rollouts"),
    Command("grade", "check each final answer: rollouts -> graded rollouts"),
    Command("train", "train a reward model: graded rollouts -> PRM"),
    Command("score", "compute step, token and response rewards: rollouts -> scores"),
    Command("search", "guided search: draw responses step by step, keep what a reward model prefers"),
    Command("serve", "serve reward models over HTTP, with a page for inspecting solutions"),
    Command("convert", "convert between file formats"),
    Command(
        "select", "take a subset of rollouts: fewer prompts or responses, another mix, no near-duplicates"
    ),
    Command(
        "label math-shepherd", "Monte-Carlo step labels: complete every step prefix and grade the completions"
    ),
    Command("label autopsv", "step labels from an outcome verifier's confidence"),
    Command("baseline", "write score files for random, length, self-consistency and oracle baselines"),
    Command(
        "compare",
        "compare reward models at equal data, initial weights and tuning budget: accuracy against cost",
    ),
    Command("eval best-of-n", "accuracy of picking the best response, of voting, and of both together"),
    Command("eval processbench", "how well the first wrong step is found"),
    Command("eval prmbench", "how well nine kinds of wrong steps are found"),
    Command("eval steps", "how well wrong steps are found in any step-labelled data"),
    Command("eval conventions", "how much each scoring convention changes a result"),
    Command("eval leaderboard", "rank all evaluations in a folder"),
    Command(
        "bench score",
        "speed and memory of scoring, beside the published evaluator and vLLM",
        "stepcredit_bench",
    ),
    Command(
        "bench growth",
        "how time and memory grow with rollouts, length, group size and steps",
        "stepcredit_bench",
    ),
    Command("bench rl", "what rewards cost in a step of GRPO", "stepcredit_bench"),
    Command("bench sample", "speed and memory of sampling, beside other engines", "stepcredit_bench"),
    Command("bench serve", "requests per second and latency of a server", "stepcredit_bench"),
    Command(
        "bench search", "search that keeps its models' state, beside search without state", "stepcredit_bench"
    ),
    Command(
        "bench train", "speed and memory of training, beside TRL and a plain PyTorch loop", "stepcredit_bench"
    ),
)

GROUPS = {
    "label": "automatic step labels",
    "eval": "evaluate reward models",
    "bench": "speed and memory, beside other implementations",
}
