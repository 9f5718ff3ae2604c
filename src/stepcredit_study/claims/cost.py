"""Cost: operations of data collection and training, and the accuracy that they buy.

Purpose: labelling every step of every response is what process rewards used to cost. How much is that
beside an implicit PRM's "sample, grade, train", and what does a step model make of more data?

Differs from the paper: operations are those of the runs' own ledgers (2 per parameter and token forward, 6 in
training), without passes over development problems, which are chosen freely. Monte-Carlo labels are counted
twice: as the paper does, every prefix of every response completed anew, and as done here, where responses
share their prompt and equal prefixes are completed once. Accuracy is best-of-n on the base's responses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from stepcredit_study.analyses.operations import PARTS, UNSHARED, operations, share_to_reach
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.planning import plan
from stepcredit_study.frame.scale import Scale, read_scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import Variants, measure_variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Estimate,
    Finding,
    Plot,
    Table,
    curves_plot,
    format_estimate,
)

IMPLICIT = CE, DPO, NCA, KTO = "implicit-ce", "implicit-dpo", "implicit-nca", "implicit-kto"
HEAD, AUTOPSV = "outcome-head", "autopsv"
SHEPHERD, SHEPHERD_TOKENS = "math-shepherd", "math-shepherd-tokens"
METHODS = (*IMPLICIT, HEAD, SHEPHERD, SHEPHERD_TOKENS, AUTOPSV)
RESPONSES = (2, 4, 8)
DOUBLED = "doubled"  # all responses to twice as many instructions
NEVER_LEVEL = "Math-Shepherd does not draw level with CE even on twice the instructions."

PAPER: Mapping[str, tuple[str, str, str]] = {
    CE: ("1", "1", "1"),
    DPO: ("0.3", "0.8", "1.8"),
    SHEPHERD: ("38.8", "38.6", "38.8"),
    AUTOPSV: ("4.3", "4.2", "4.3"),
}
"""Operations relative to CE at 2, 4 and 8 responses."""


@dataclass(frozen=True, slots=True)
class Files:
    """Every method on every amount of data; an amount is a number of responses, or ``doubled``.

    Attributes:
        variants: Models by ``METHOD/AMOUNT``, and their scores of the base's responses.
        labels: Those of methods that need them to the same responses with step labels.
    """

    variants: Variants
    data: Mapping[str, Path]
    labels: Mapping[str, Path]


def amounts(scale: Scale) -> tuple[str, ...]:
    """Numbers of responses to each training instruction."""
    return tuple(str(number) for number in RESPONSES if number <= scale.sizes.train_responses)


def prepare(world: World) -> Files:
    """Every method on every amount of data; Math-Shepherd also on twice the instructions (lab)."""
    data: dict[str, Path] = {}
    for amount in amounts(world.scale):
        part = world.train_set()
        if int(amount) < world.scale.sizes.train_responses:
            part = world.select(part, responses=int(amount))
        data |= {f"{method}/{amount}": part for method in METHODS}
    if world.scale.is_lab:
        more = world.responses("train", num_prompts=2 * world.scale.sizes.train_prompts)
        data[f"{SHEPHERD}/{DOUBLED}"] = more
    labellers = {SHEPHERD: world.math_shepherd, SHEPHERD_TOKENS: world.math_shepherd, AUTOPSV: world.autopsv}
    labels: dict[str, Path] = {}
    models: dict[str, Path] = {}
    for name, part in data.items():
        method = name.partition("/")[0]
        if method in labellers:
            labels[name] = labellers[method](part)
        models[name] = world.train(method, labels.get(name, part))
    return Files(score_variants(world, models), data, labels)


def measure(world: World, files: Files) -> Measurement:
    """Operations of each part of each run, and its accuracy, mean over n."""
    accuracy = measure_variants(world, files.variants)
    numbers: dict[str, float] = {}
    for name, model in files.variants.models.items():
        method = name.partition("/")[0]
        parts = operations(
            files.data[name],
            files.labels.get(name),
            model,
            paired=method in (DPO, NCA),
            has_reference=method in IMPLICIT,
            mismatched=method == KTO,
        )
        numbers |= {f"{name}/{part}": value for part, value in parts.items()}
        numbers[f"{name}/accuracy"] = accuracy[name]
    return numbers


def total(numbers: Measurement, method: str, amount: str, how: str = "") -> float:
    """Operations of a run; ``how`` is empty or ``UNSHARED``."""
    return math.fsum(numbers[f"{method}/{amount}/{part}{how}"] for part in PARTS)


def relative(
    seeds: Seeds, method: str, amount: str, how: str = "", *, to: tuple[str, str] | None = None
) -> Estimate:
    """Operations of a run over those of another; by default CE's on the same amount."""
    other = to or (CE, amount)
    return seeds.derived(lambda numbers: total(numbers, method, amount, how) / total(numbers, *other, how))


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Operations relative to CE, accuracy beside them, and where Math-Shepherd draws level."""
    used = amounts(scale)
    return Finding(
        name="cost",
        title="What does each method cost, and what does it buy?",
        purpose="Operations for data collection and training, and accuracy against them.",
        differs=(
            f"{scale.setting}; operations are those recorded by the runs, without passes over "
            "development problems; counted with and without shared prefixes; each method has its own "
            "number of epochs."
        ),
        tables=(
            _relative_table(seeds, used),
            _parts_table(seeds, used[-1]),
            _accuracy_table(seeds, used),
            _level_table(seeds, used),
        ),
        checks=tuple(_checks(seeds, used)),
        plots=(_plot(seeds, used),),
    )


def _relative_table(seeds: Seeds, used: Sequence[str]) -> Table:
    columns: list[str] = []
    for amount in used:
        columns += [f"{amount} responses", f"{amount}, prefixes shared", f"{amount}, paper"]

    def row(method: str) -> tuple[Cell, ...]:
        cells: list[Cell] = []
        for amount in used:
            published = PAPER[method][RESPONSES.index(int(amount))] if method in PAPER else None
            cells += [relative(seeds, method, amount, UNSHARED), relative(seeds, method, amount), published]
        return tuple(cells)

    return Table(
        title="Operations of data collection and training, relative to CE",
        columns=tuple(columns),
        rows=tuple((method, row(method)) for method in METHODS),
        caption=(
            "CE on the same number of responses is 1. Prefixes not shared: each response reads its own "
            "prompt, and Monte-Carlo labels complete every prefix of every response. Shared: prompts are "
            "read once, and equal prefixes are completed once."
        ),
        percent=False,
        digits=2,
    )


def _parts_table(seeds: Seeds, amount: str) -> Table:
    def share(method: str, part: str) -> Estimate:
        return seeds.derived(
            lambda numbers: numbers[f"{method}/{amount}/{part}"] / total(numbers, CE, amount, UNSHARED)
        )

    names = (f"collection{UNSHARED}", f"labelling{UNSHARED}", "labelling", "training")
    return Table(
        title=f"Where the operations go, at {amount} responses",
        columns=("sampling responses", "labelling steps", "labelling, prefixes shared", "training"),
        rows=tuple((method, tuple(share(method, part) for part in names)) for method in METHODS),
        caption="In units of the total operations of CE. Training includes the reference's pass.",
        percent=False,
        digits=2,
    )


def _accuracy_table(seeds: Seeds, used: Sequence[str]) -> Table:
    columns = (*used, *([DOUBLED] if f"{SHEPHERD}/{DOUBLED}/accuracy" in seeds else []))
    last = used[-1]

    def row(method: str) -> tuple[Cell, ...]:
        cells: list[Cell] = []
        for amount in columns:
            accuracy = seeds.get(f"{method}/{amount}/accuracy")
            cost = None if accuracy is None else relative(seeds, method, amount, to=(CE, last))
            cells += [accuracy, None if cost is None else format_estimate(cost, percent=False, digits=2)]
        return tuple(cells)

    headings: list[str] = []
    for amount in columns:
        name = f"{amount} responses" if amount != DOUBLED else f"{last} responses, twice the instructions"
        headings += [name, f"{amount}: cost"]
    return Table(
        title="Accuracy and cost by amount of data",
        columns=tuple(headings),
        rows=tuple((method, row(method)) for method in METHODS),
        caption=(
            "Per cent: best-of-n on the base's responses, mean over n. Cost: operations relative to CE on "
            f"{last} responses, prefixes shared."
        ),
    )


def _level_table(seeds: Seeds, used: Sequence[str]) -> Table:
    """Read off the mean curve, and in how many seeds it is reached at all."""
    points = _shepherd_amounts(seeds, used)
    curve, costs = _shepherd_curve(seeds, used)

    def row(amount: str) -> tuple[Cell, ...]:
        target = seeds.of(f"{CE}/{amount}/accuracy")
        share = share_to_reach(curve, target.mean)
        reached = [_share_of(numbers, points, amount) for numbers in seeds.measurements]
        share_reached = f"{sum(map(math.isfinite, reached))} of {len(reached)}"
        if math.isinf(share):
            return target, f"not with {curve[-1][0]:g} times the data", None, share_reached
        cost = math.exp(np.interp(math.log(share), [math.log(x) for x, _ in curve], costs))
        ours = relative(seeds, CE, amount, UNSHARED, to=(CE, used[-1])).mean
        least = "at most " if share == curve[0][0] else ""
        return target, f"{least}{share:.2g}", f"{least}{cost / ours:.1f}", share_reached

    return Table(
        title="How much data Math-Shepherd needs to draw level with CE",
        columns=("CE's accuracy", "Math-Shepherd's data", "its cost relative to CE's", "seeds that reach it"),
        rows=tuple((f"CE on {amount} responses", row(amount)) for amount in used),
        caption=(
            f"Data in units of {used[-1]} responses to every instruction; between measured amounts "
            "accuracy is taken as linear in log(data). Cost without shared prefixes."
        ),
    )


def _shepherd_amounts(seeds: Seeds, used: Sequence[str]) -> list[tuple[float, str]]:
    """Shares of the data that Math-Shepherd was trained on, and their names."""
    points = [(int(amount) / int(used[-1]), amount) for amount in used]
    return [*points, (2.0, DOUBLED)] if f"{SHEPHERD}/{DOUBLED}/accuracy" in seeds else points


def _share_of(numbers: Measurement, points: Sequence[tuple[float, str]], amount: str) -> float:
    """With what share of the data Math-Shepherd is as good as CE on some responses, in one seed."""
    curve = [(share, numbers[f"{SHEPHERD}/{name}/accuracy"]) for share, name in points]
    return share_to_reach(curve, numbers[f"{CE}/{amount}/accuracy"])


def _shepherd_curve(seeds: Seeds, used: Sequence[str]) -> tuple[list[tuple[float, float]], list[float]]:
    """Share of the data to mean accuracy, and log of the cost relative to CE on all of them."""
    points = _shepherd_amounts(seeds, used)
    all_of_ce = (CE, used[-1])
    curve = [(share, seeds.of(f"{SHEPHERD}/{amount}/accuracy").mean) for share, amount in points]
    costs = [relative(seeds, SHEPHERD, amount, UNSHARED, to=all_of_ce).mean for _, amount in points]
    return curve, [math.log(cost) for cost in costs]


def _checks(seeds: Seeds, used: Sequence[str]) -> list[Check]:
    first, last = used[0], used[-1]
    shepherd = relative(seeds, SHEPHERD, last, UNSHARED)
    shared = relative(seeds, SHEPHERD, last)
    autopsv = relative(seeds, AUTOPSV, last, UNSHARED)
    dearer = seeds.derived(
        lambda numbers: (
            (total(numbers, SHEPHERD, last, UNSHARED) - total(numbers, AUTOPSV, last, UNSHARED))
            / total(numbers, CE, last, UNSHARED)
        )
    )
    few, many = relative(seeds, DPO, first, UNSHARED), relative(seeds, DPO, last, UNSHARED)
    checks = [
        Check(
            claim="Math-Shepherd costs more than ten times as many operations as CE.",
            paper="38.8 times",
            here=f"{format_estimate(shepherd, percent=False)}; with shared prefixes "
            f"{format_estimate(shared, percent=False)}",
            verdict=is_above(shepherd, 10.0),
            why=_why_less(seeds, last),
        ),
        Check(
            claim="AutoPSV costs more than CE and less than Math-Shepherd.",
            paper="4.3 times CE; Math-Shepherd 38.8 times",
            here=f"{format_estimate(autopsv, percent=False)}; Math-Shepherd minus AutoPSV "
            f"{format_estimate(dearer, percent=False, sign=True)}",
            verdict=all_of([is_above(autopsv, 1.0), is_above(dearer)]),
            why="AutoPSV's labels need the training of a verifier and one pass over the responses.",
        ),
        Check(
            claim=f"DPO costs less than CE with {first} responses and more with {last}, because pairs grow "
            "faster than responses.",
            paper="0.3, 0.8, 1.8 times with 2, 4, 8 responses",
            here=f"{format_estimate(few, percent=False, digits=2)} and "
            f"{format_estimate(many, percent=False, digits=2)}",
            verdict=all_of([is_below(few, 1.0), is_above(many, 1.0)]),
            why="n responses, half of them right, give n^2 / 4 pairs of two responses each.",
        ),
    ]
    if f"{SHEPHERD}/{DOUBLED}/accuracy" in seeds:
        rise = seeds.difference(f"{SHEPHERD}/{DOUBLED}/accuracy", f"{SHEPHERD}/{last}/accuracy")
        behind = seeds.difference(f"{CE}/{last}/accuracy", f"{SHEPHERD}/{DOUBLED}/accuracy")
        checks.append(
            Check(
                claim=NEVER_LEVEL,
                paper="not measured; on the same data CE 48.4, Math-Shepherd 47.8",
                here=f"CE minus Math-Shepherd on twice as many {format_estimate(behind, sign=True)}",
                verdict=is_above(behind),
                why=f"Twice the instructions change its accuracy by {format_estimate(rise, sign=True)}.",
            )
        )
    return checks


def _why_less(seeds: Seeds, amount: str) -> str:
    """What the factor is made of here."""
    labels = seeds.derived(
        lambda numbers: (
            numbers[f"{SHEPHERD}/{amount}/labelling{UNSHARED}"]
            / numbers[f"{SHEPHERD}/{amount}/collection{UNSHARED}"]
        )
    )
    training = seeds.derived(
        lambda numbers: numbers[f"{CE}/{amount}/training"] / total(numbers, CE, amount, UNSHARED)
    )
    return (
        f"Labelling takes {labels.mean:.0f} times as many operations as drawing the responses, and training "
        f"makes up {training.mean:.0%} of CE's operations. The fewer steps a response has, and the more "
        f"epochs of training there are, the smaller the factor. {_at_paper_scale()}"
    )


@cache
def _at_paper_scale() -> str:
    """What the same ledger says of the paper's models and data, by the plan of a run."""
    scale = read_scale("paper")
    commands = plan([EXPERIMENT], scale, Path())
    amount = str(max(RESPONSES))

    def flops(command: str, name: str = "") -> float:
        """Of the run on all responses, which is the largest one of its kind."""
        known = [
            planned.flops or 0.0
            for planned in commands
            if planned.command == command and planned.out.name.startswith(name)
        ]
        return max(known)

    drawing = flops("sample", "train-")
    labelling = flops("label math-shepherd")
    shepherd = drawing + labelling + flops("train", f"{SHEPHERD}-")
    ce = drawing + flops("train", CE)
    return (
        f"With the paper's models and {amount} responses the same ledger gives {shepherd / ce:.1f} times. "
        f"Labelling takes {labelling / drawing:.1f} times as many operations as drawing there, and training "
        f"makes up {1 - drawing / ce:.0%} of CE's operations: 38.8 is nearer to the ratio of the data alone "
        "than to that of whole runs."
    )


def _plot(seeds: Seeds, used: Sequence[str]) -> Plot:
    def curve(method: str, how: str = UNSHARED) -> dict[float, Estimate]:
        known = [amount for amount in (*used, DOUBLED) if f"{method}/{amount}/accuracy" in seeds]
        return {
            relative(seeds, method, amount, how, to=(CE, used[-1])).mean: seeds.of(
                f"{method}/{amount}/accuracy"
            )
            for amount in known
        }

    curves = {method: curve(method) for method in METHODS if method != SHEPHERD}
    shepherd = {SHEPHERD: curve(SHEPHERD), f"{SHEPHERD}, prefixes shared": curve(SHEPHERD, "")}
    return curves_plot(
        "cost",
        "Accuracy against cost, by number of responses",
        (
            f"Operations of data and training, relative to CE on {used[-1]} responses",
            "Accuracy of best-of-n on the base's responses, mean over n",
        ),
        curves | shepherd,
    )


EXPERIMENT = Experiment("cost", prepare, measure, conclude)
