"""Guided search: draw responses step by step, and let a reward model say which ones to continue.

Writes the candidates of the final choice as rollouts, the chosen one first (index 0), and the search tree of
each problem beside them, in OUT.trees.jsonl. A run that was killed continues with the problems that are not
done when the same command is run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stepcredit.data import rollout_to_json, write_rows, write_rows_into
from stepcredit.data.sources import file_kind
from stepcredit.errors import UserError
from stepcredit.generators.options import GeneratorOptions, SamplingOptions, make_generator
from stepcredit.generators.plan import Plan
from stepcredit.generators.records import make_rollout, sampling_json
from stepcredit.grading import Grader, GradingItem
from stepcredit.grading.options import GraderOptions, grader_of
from stepcredit.options import FieldsResult, argument, check_at_least_one, option
from stepcredit.runs import (
    Ledger,
    Manifest,
    Progress,
    ResumableLines,
    check_keeps_inputs,
    locked,
    read_manifest,
    warn,
    write_text,
)
from stepcredit.scorers.options import ScorerOptions
from stepcredit.searching import (
    STRATEGIES,
    Node,
    Searcher,
    SearchFailure,
    Tree,
    choose_best,
    choose_by_vote,
    step_ends,
)
from stepcredit.searching.options import SearchOptions
from stepcredit.searching.strategies import WEIGHTED
from stepcredit.steps import StepRule
from stepcredit.types import GenerationRequest, Generator, Prompt, Rollout, Scorer
from stepcredit.wording import quantity

_TREES_ON_PAGE = 12
_PROBLEMS_IN_PIECE = 64
"""Problems that are searched and kept together: how they lie in batches shows in the last digits."""


@dataclass(frozen=True, kw_only=True)
class PolicyOptions(GeneratorOptions):
    """The policy that draws steps; the loading options above apply to both models."""

    load: Any = None


@dataclass(frozen=True, kw_only=True)
class StepSampling(SamplingOptions):
    """How tokens are drawn; --steps decides where a step ends."""

    stop: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Options(ScorerOptions):
    """Options of ``stepcredit search``."""

    prompts: Path = argument("prompts to answer (JSONL, JSON, CSV or Parquet), or hub:NAME[:SPLIT]")
    out: Path = option("rollouts to write (JSONL, CSV or Parquet, by extension)")
    search: SearchOptions = field(default_factory=SearchOptions)
    keep: str = option(
        "write all candidates of the final choice, or only the chosen one",
        default="all",
        choices=("all", "chosen"),
    )
    limit: int | None = option("answer only the first N prompts; default is all", default=None, metavar="N")
    seed: int = option("seed of everything that is random", default=0)
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    draw: StepSampling = field(default_factory=StepSampling)
    grading: GraderOptions = field(default_factory=GraderOptions)
    state: bool = option(
        "keep the keys and values of local models, so that a step costs only its own tokens; "
        "results do not change",
        default=True,
    )
    html: Path | None = option(
        f"also draw the trees of the first {_TREES_ON_PAGE} problems", default=None, metavar="FILE"
    )
    overwrite: bool = option("replace the existing output and start over", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(self, "limit")


@dataclass(frozen=True, kw_only=True)
class Result(FieldsResult):
    """What ``stepcredit search`` did.

    Attributes:
        already_complete: It was there; nothing was done.
    """

    out: Path
    trees: Path
    num_prompts: int
    num_rollouts: int
    num_failed: int
    already_complete: bool
    ledger: Mapping[str, Any]
    html: Path | None = None

    def to_text(self) -> str:
        """A few lines."""
        state = "complete already" if self.already_complete else "written"
        rollouts, problems = quantity(self.num_rollouts, "rollout"), quantity(self.num_prompts, "problem")
        lines = [f"{self.out}: {state}, {rollouts}, {problems}"]
        generated, scored = self.ledger.get("generated_tokens", 0), self.ledger.get("scored_tokens", 0)
        lines.append(f"  {generated:,} tokens generated, {scored:,} scored; trees in {self.trees}")
        if self.num_failed:
            problems = quantity(self.num_failed, "problem")
            lines.append(f"  {problems} failed; --overwrite starts over with all problems")
        if self.html is not None:
            lines.append(f"{self.html}: trees")
        return "\n".join(lines)


def trees_path(out: Path) -> Path:
    """Where the trees lie."""
    return Path(f"{out}.trees.jsonl")


def run(options: Options) -> Result:
    """Search, or go on where an earlier run of the same command was stopped.

    Raises:
        UserError: A mistake in the options or the input; or every problem failed.
    """
    file_kind(options.out)
    rule = StepRule.parse(options.own_step_rule())
    # Partial responses are too short to choose a rule by.
    rule = StepRule("newline") if rule.kind == "auto" else rule
    ends = step_ends(rule)
    policy = replace(options.policy, load=options.load)
    plan = Plan.read(options.prompts, limit=options.limit)
    settings = {
        "search": options.search.determining(),
        "seed": options.seed,
        "keep": options.keep,
        "steps": str(rule),
        "policy": policy.identity(),
        "sampling": asdict(options.draw.sampling(options.seed)),
        "scorer": options.determining(),
        **({"limit": options.limit} if options.limit is not None else {}),
        # What is no file, as a data set of the hub, is known by its name.
        **({} if options.prompts.exists() else {"source": str(options.prompts)}),
    }
    if options.search.strategy == WEIGHTED:
        with grader_of(options.grading) as grader:
            settings["grading"] = {**asdict(replace(options.grading, num_workers=None)), **grader.settings}
    manifest = Manifest("search", settings, inputs=[options.prompts])
    if options.html is not None:
        check_keeps_inputs(options.html, [options.prompts, options.out], flag="--html")
    with (
        locked(options.html),
        ResumableLines(
            options.out,
            manifest,
            overwrite=options.overwrite,
            in_pieces=True,
            beside=(trees_path(options.out),),
        ) as lines,
    ):
        if not lines.complete:
            generator = make_generator(policy, continues=options.state)
            scorer = options.load_scorer(steps=str(rule))
            failed = _search(options, list(plan.prompts()), generator, scorer, ends, lines)
            if failed and len(failed) == len(plan.positions):
                reason = next(iter(failed.values()))
                raise UserError(
                    f"no problem could be searched, the first because {reason}", where=options.prompts
                )
            manifest.count("prompts", len(plan.positions) - len(failed))
            manifest.count("failed_prompts", len(failed))
            manifest.ledger.model_parameters = _parameters(generator)
            manifest.ledger.scoring_parameters = _parameters(scorer)
            num_rollouts = sum(len(row["rollouts"]) for row in lines.rows())
            lines.commit(_Finish(options, plan.positions, manifest), num_rows=num_rollouts)
        return _result(options, already_complete=lines.complete)


def _search(
    options: Options,
    prompts: Sequence[Prompt],
    generator: Generator,
    scorer: Scorer,
    ends: tuple[str, ...],
    lines: ResumableLines,
) -> dict[str, str]:
    """Append each problem's tree and rollouts, piece by piece; what failed, with reasons."""
    failed: dict[str, str] = dict(lines.state.get("failed", {}))
    num_done, num_unscored = lines.state.get("problems", 0), lines.state.get("unscored", 0)
    with _grader(options) as grader, Progress("search", len(prompts), "problems", done=num_done) as progress:
        for start in range(num_done, len(prompts), _PROBLEMS_IN_PIECE):
            piece = prompts[start : start + _PROBLEMS_IN_PIECE]
            # A piece begins with nothing read before, as it does in a run that goes on from it.
            session: AbstractContextManager[Scorer] = (
                scorer.session() if options.state else nullcontext(scorer)
            )
            with session as remembering:
                searcher = _searcher(options, generator, remembering, ends)
                for result in searcher.search(piece):
                    progress.advance()
                    if isinstance(result, SearchFailure):
                        failed[result.prompt_id] = result.reason
                        warn(f"problem {result.prompt_id!r}: {result.reason}")
                    else:
                        _choose(options, result, grader)
                        lines.append(_row(options, result, generator.name))
            getattr(generator, "forget", lambda: None)()
            num_unscored += searcher.num_unscored
            lines.checkpoint({"problems": start + len(piece), "failed": failed, "unscored": num_unscored})
    if num_unscored:
        warn(
            f"{quantity(num_unscored, 'partial response')} could not be scored, and so could not be preferred"
        )
    return failed


def _searcher(options: Options, generator: Generator, scorer: Scorer, ends: tuple[str, ...]) -> Searcher:
    return Searcher(
        generator,
        scorer,
        STRATEGIES[options.search.strategy],
        options.search.settings(options.seed),
        options.draw.sampling(options.seed),
        ends,
    )


def _row(options: Options, tree: Tree, policy: str) -> dict[str, Any]:
    """What is kept of a problem until all are done."""
    rollouts = [rollout_to_json(rollout) for rollout in _rollouts(options, tree, policy)]
    return {"id": tree.prompt.id, "rollouts": rollouts, "tree": tree.to_json()}


def _parameters(runs: Generator | Scorer) -> int:
    """Parameters of all local models that run for a token; 0 where they are not known."""
    ledger: Ledger | None = getattr(runs, "ledger", None)
    return 0 if ledger is None else ledger.model_parameters * getattr(runs, "num_models", 1)


def _grader(options: Options) -> AbstractContextManager[Grader | None]:
    return grader_of(options.grading) if options.search.strategy == WEIGHTED else nullcontext(None)


def _choose(options: Options, tree: Tree, grader: Grader | None) -> None:
    if grader is None:
        choose_best(tree)
        return

    def answers(tree: Tree, nodes: Sequence[Node]) -> list[str | None]:
        # Equal answers are grouped whatever the reference answer is.
        prompt = tree.prompt
        items = [GradingItem(node.response, prompt.answer or "0", prompt.id, prompt.extras) for node in nodes]
        return [grade.prediction for grade in grader.grade_all(items)]

    choose_by_vote(tree, answers, options.search.softmax_temperature)


def _rollouts(options: Options, tree: Tree, policy: str) -> Iterator[Rollout]:
    sampling = options.draw.sampling(options.seed)
    request = GenerationRequest(prompt=tree.prompt, indices=(0,), sampling=sampling)
    candidates = tree.candidates[:1] if options.keep == "chosen" else tree.candidates
    for rank, node in enumerate(candidates):
        rollout = make_rollout(
            request,
            rank,
            text=node.response,
            reason="stop" if node.ended else "length",
            policy=policy,
            sampling=sampling_json(sampling),
            response_token_ids=node.token_ids,
            tokenizer=node.tokenizer,
            num_generated_tokens=node.length,
        )
        worth = node.worth if node.score is not None else None
        search = {"strategy": options.search.strategy, "chosen": node.fate == "chosen", "worth": worth}
        yield replace(rollout, extras={**rollout.extras, "search": search})


class _Finish:
    """Sorts the problems, writes the trees beside the rollouts and counts what all of them cost."""

    def __init__(self, options: Options, positions: Mapping[str, int], manifest: Manifest) -> None:
        self._options, self._positions, self._manifest = options, positions, manifest

    def __call__(self, partial: Path, target: Path) -> int:
        """Write the rollouts of ``partial`` to ``target``, in the format of the output's name."""
        with open(partial, encoding="utf-8") as source:
            rows = sorted(map(json.loads, source), key=lambda row: self._positions[row["id"]])
        write_rows(trees_path(self._options.out), (row["tree"] for row in rows))
        for row in rows:
            self._manifest.count("rollouts", len(row["rollouts"]))
            self._manifest.ledger.generated_tokens += row["tree"]["generated_tokens"]
            self._manifest.ledger.scored_tokens += row["tree"]["scored_tokens"]
        rollouts = (rollout for row in rows for rollout in row["rollouts"])
        return write_rows_into(target, self._options.out, rollouts)


def _result(options: Options, *, already_complete: bool) -> Result:
    manifest = read_manifest(options.out) or {}
    if options.html is not None:
        _write_page(options, options.html)
    counts = manifest.get("counts", {})
    return Result(
        out=options.out,
        trees=trees_path(options.out),
        num_prompts=counts.get("prompts", 0),
        num_rollouts=counts.get("rollouts", 0),
        num_failed=counts.get("failed_prompts", 0),
        already_complete=already_complete,
        ledger=manifest.get("ledger", {}),
        html=options.html,
    )


def _write_page(options: Options, html: Path) -> None:
    from itertools import islice

    from stepcredit.reports.search_tree import render_search

    with open(trees_path(options.out), encoding="utf-8") as source:
        trees = [json.loads(line) for line in islice(source, _TREES_ON_PAGE)]
    page = render_search(trees, title="Search", strategy=options.search.in_words(), scorer=options.prm)
    write_text(html, page)
