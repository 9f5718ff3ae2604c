"""Added instructions of another kind: do they help on the kind that is tested?

Purpose: whether more training data helps even if it is about something else.
"""

from __future__ import annotations

from pathlib import Path

from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Seeds, all_of, is_below
from stepcredit_study.frame.variants import (
    DPO_AND_CE,
    MARGIN,
    Variants,
    accuracy_table,
    measure_variants,
    score_variants,
)
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import (
    Cell,
    Check,
    Finding,
    Table,
    format_estimate,
    format_estimates,
    intervals_plot,
)

ADDED = 0.5
"""Share of the other instructions, of which as many are drawn as of the relevant ones."""

PAPER = "DPO 50.4 alone, 50.2 with general, 49.9 with code instructions"


def with_kind(method: str, kind: str) -> str:
    """Names the model that was trained on instructions of another kind as well."""
    return f"{method} + {kind}"


def prepare(world: World) -> Variants:
    """Both objectives on the relevant instructions, and with each other kind added."""
    relevant = world.train_set()
    models: dict[str, Path] = {method: world.train(method) for method in DPO_AND_CE}
    for kind in world.scale.other_kinds:
        added = world.select(world.responses("train", kind=kind), prompts=ADDED)
        both = world.select(relevant, added)
        models |= {with_kind(method, kind): world.train(method, both) for method in DPO_AND_CE}
    return score_variants(world, models)


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """What each kind of instructions adds."""
    return Finding(
        name="relevance",
        title="Do instructions of another kind help?",
        purpose="Instructions of other kinds are added to the training data (finding 6).",
        differs=(
            f"{scale.setting}; half as many instructions of each other kind are added as there are relevant "
            "ones" + (": other operations, and another base." if scale.is_lab else ".")
        ),
        tables=(_table(seeds, scale),),
        checks=tuple(_check(seeds, scale, method) for method in DPO_AND_CE),
        plots=(
            intervals_plot(
                "relevance",
                "What instructions of another kind add, mean over n",
                "Accuracy minus that without them",
                {
                    f"{label} + {kind}": seeds.difference(with_kind(method, kind), method)
                    for method, label in DPO_AND_CE.items()
                    for kind in scale.other_kinds
                },
            ),
        ),
    )


def _table(seeds: Seeds, scale: Scale) -> Table:
    rows: dict[str, tuple[str, tuple[Cell, ...]]] = {}
    for method, label in DPO_AND_CE.items():
        kinds = {label: method} | {f"{label} + {kind}": with_kind(method, kind) for kind in scale.other_kinds}
        for row, name in kinds.items():
            gain = None if name == method else seeds.difference(name, method)
            responses = format_estimate(seeds.of(f"{name}/responses"), percent=False, digits=0)
            rows[row] = name, (gain, responses)
    columns = ("gain", "responses trained on")
    return accuracy_table(seeds, scale, rows, columns, caption=f" The paper's averages: {PAPER}.")


def _check(seeds: Seeds, scale: Scale, method: str) -> Check:
    gains = {kind: seeds.difference(with_kind(method, kind), method) for kind in scale.other_kinds}
    return Check(
        claim=(
            f"Instructions of another kind do not help {DPO_AND_CE[method]}: they add less than "
            f"{100 * MARGIN:.0f} points."
        ),
        paper=PAPER if method == "implicit-dpo" else "not published",
        here=format_estimates(gains),
        verdict=all_of([is_below(estimate, MARGIN) for estimate in gains.values()]),
        why=f"{seeds.of(f'{method}/responses').mean:.0f} relevant responses were trained on, and with "
        "each kind "
        + ", ".join(
            f"{seeds.of(f'{with_kind(method, kind)}/responses').mean:.0f} ({kind})"
            for kind in scale.other_kinds
        )
        + ".",
    )


EXPERIMENT = Experiment("relevance", prepare, measure_variants, conclude)
