"""One response to each instruction, right and wrong ones balanced or ten to one.

Purpose: an unpaired objective needs no second response to the same instruction. Is one enough to pick
better than a single response does, and what if nearly all of them are right, or wrong?
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stepcredit.data import read_rollouts
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above
from stepcredit_study.frame.variants import Variants, measure_variants, score_variants
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Finding, Plot, Table, format_estimate, intervals_plot

RATIOS = {"1:1": "balanced", "10:1": "ten right to one wrong", "1:10": "one right to ten wrong"}
METHODS = {"implicit-ce": "CE", "implicit-kto": "KTO"}

PAPER = {"Mistral-7B": ("9.6", "15.0"), "Llama-3.1-8B": ("44.6", "51.2"), "Llama-3.1-70B": ("63.2", "67.4")}
"""Generator to pass@1 and CE's best-of-64 with one response per instruction, in per cent."""
PAPER_GAINS: Mapping[tuple[str, tuple[str, ...]], str] = {
    ("implicit-ce", ("1:1",)): "9.6 to 15.0, 44.6 to 51.2, 63.2 to 67.4 (best-of-64)"
}


def variant(method: str, ratio: str) -> str:
    """Names the model of a method trained on one response per instruction in a ratio."""
    return f"{method} {ratio}"


def prepare(world: World) -> Variants:
    """CE and KTO on one response to each instruction."""
    data = {ratio: world.select(world.train_set(), one_response=ratio) for ratio in RATIOS}
    models = {
        variant(method, ratio): world.train(method, data[ratio]) for method in METHODS for ratio in RATIOS
    }
    return score_variants(world, models, world.scale.generators, data=data)


def measure(world: World, variants: Variants) -> Measurement:
    """Best-of-n of every model; right and wrong responses trained on; pairs that DPO could be trained on."""
    numbers = measure_variants(world, variants)
    for ratio, path in variants.data.items():
        numbers |= {f"{ratio}/{name}": value for name, value in _contents(path).items()}
    return numbers


def _contents(path: Path) -> dict[str, float]:
    from stepcredit.data.pairing import pair_responses

    rollouts = list(read_rollouts(path))
    right = [bool(rollout.correct) for rollout in rollouts]
    pairs = pair_responses([rollout.prompt_id for rollout in rollouts], right)
    return {
        "right": float(sum(right)),
        "wrong": float(len(right) - sum(right)),
        "pairs": float(len(pairs.indices)),
    }


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Each model beside the accuracy of a single response."""
    return Finding(
        name="one-response",
        title="Is one response to each instruction enough?",
        purpose="CE and KTO trained on one response to each instruction (finding 5).",
        differs=(
            f"{scale.setting}; the shares of right and wrong responses are set by choosing which "
            "response to each instruction is used."
        ),
        tables=(
            _accuracies(seeds, scale),
            Table(
                title="What was trained on",
                columns=("right", "wrong", "pairs for DPO"),
                rows=tuple(
                    (balance, tuple(seeds.of(f"{ratio}/{name}") for name in ("right", "wrong", "pairs")))
                    for ratio, balance in RATIOS.items()
                ),
                caption="Numbers of responses. If too few instructions have a response of the scarce kind, "
                "responses of the other kind are left out until the ratio is met.",
                percent=False,
                digits=0,
            ),
        ),
        checks=(
            *(
                _above_pass_at_1(seeds, scale, method, ratios)
                for method in METHODS
                for ratios in (("1:1",), ("10:1", "1:10"))
            ),
            _dpo_has_no_pairs(seeds),
        ),
        plots=(_plot(seeds, scale),),
    )


def _accuracies(seeds: Seeds, scale: Scale) -> Table:
    n = scale.largest_n
    return Table(
        title=f"Accuracy of a single response, and of best-of-{n} by models trained on one response per "
        "instruction",
        columns=tuple(scale.generators),
        rows=(
            ("pass@1", tuple(seeds.of(f"{policy}/pass@1") for policy in scale.generators)),
            *(
                (
                    f"{label}, {balance}",
                    tuple(seeds.of(f"{policy}/{variant(method, ratio)}/{n}") for policy in scale.generators),
                )
                for method, label in METHODS.items()
                for ratio, balance in RATIOS.items()
            ),
        ),
        caption="Per cent. The paper: "
        + ", ".join(f"{name} pass@1 {single}, CE {best}" for name, (single, best) in PAPER.items())
        + ".",
    )


def _above_pass_at_1(seeds: Seeds, scale: Scale, method: str, ratios: tuple[str, ...]) -> Check:
    n = scale.largest_n
    gains = {
        (ratio, policy): seeds.difference(f"{policy}/{variant(method, ratio)}/{n}", f"{policy}/pass@1")
        for ratio in ratios
        for policy in scale.generators
    }
    how = " and ".join(RATIOS[ratio] for ratio in ratios)
    return Check(
        claim=f"{METHODS[method]} on one response per instruction, {how}, picks better than a single "
        "response for every generator.",
        paper=PAPER_GAINS.get((method, ratios), "not published"),
        here=f"best-of-{n} minus pass@1: "
        + ", ".join(
            f"{format_estimate(gain, sign=True)} ({policy}, {ratio})"
            for (ratio, policy), gain in gains.items()
        ),
        verdict=all_of([is_above(estimate) for estimate in gains.values()]),
        why="; ".join(
            f"{RATIOS[ratio]}: trained on {_count(seeds, ratio, 'right')} right and "
            f"{_count(seeds, ratio, 'wrong')} wrong responses"
            for ratio in ratios
        )
        + ".",
    )


def _count(seeds: Seeds, ratio: str, kind: str) -> str:
    return f"{seeds.of(f'{ratio}/{kind}').mean:.0f}"


def _dpo_has_no_pairs(seeds: Seeds) -> Check:
    most = max(value for ratio in RATIOS for value in seeds.of(f"{ratio}/pairs").values)
    return Check(
        claim="DPO cannot be trained on one response per instruction.",
        paper="cannot be trained",
        here=f"{most:.0f} pairs of a right and a wrong response to one instruction; stepcredit train refuses",
        verdict="holds" if most == 0 else "does not hold",
        why="A pair is a right and a wrong response to one instruction.",
    )


def _plot(seeds: Seeds, scale: Scale) -> Plot:
    n = scale.largest_n
    return intervals_plot(
        "one-response",
        f"Gain of best-of-{n} over a single response, mean over generators",
        "Accuracy minus pass@1",
        {
            f"{label}, {balance}": seeds.difference(f"{variant(method, ratio)}/{n}", "pass@1")
            for method, label in METHODS.items()
            for ratio, balance in RATIOS.items()
        },
    )


EXPERIMENT = Experiment("one-response", prepare, measure, conclude)
