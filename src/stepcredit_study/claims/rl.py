"""A policy in GRPO with an implicit PRM's step rewards beside the outcome: is it better, faster, or fooled?

Purpose: what are process rewards worth in reinforcement learning, when the reward model is fixed, fixed with
a floor under the reference's probabilities, or learns from the policy's own rollouts (PRIME)?

Differs from the paper: arXiv:2412.01981 trains no policy. PRIME (arXiv:2502.01456) adds rewards of tokens to
the advantage; TRL's GRPOTrainer takes one reward per response, so the lowest step stands for it here.

Decided before any run: docs/preregistration.md, "RL on the lab".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from stepcredit.data import read_prompts
from stepcredit.grading.options import grader_of
from stepcredit.runs import write_json
from stepcredit_study.analyses.policy_learning import Arm, Course, Materials, learning_curve
from stepcredit_study.frame.experiment import Experiment
from stepcredit_study.frame.scale import Scale
from stepcredit_study.frame.seeds import Measurement, Seeds, all_of, is_above, is_below
from stepcredit_study.frame.variants import MARGIN
from stepcredit_study.frame.world import World
from stepcredit_study.pages.finding import Check, Finding, Plot, Table, curves_plot, format_estimate

OUTCOME, FIXED, FLOORED, ONLINE = "outcome", "fixed", "fixed-floor", "online"
SLOW, CONTINUED = "online-slow", "online-continued"
FLOOR = 0.1
SLOW_RATE, CONTINUED_RATE = 0.03, 0.3
"""Shares of the lab's learning rate, chosen on other problems: see the preregistration."""
ARMS: Mapping[str, Arm] = {
    OUTCOME: Arm(),
    FIXED: Arm(process="fixed"),
    FLOORED: Arm(process="fixed", floor=FLOOR),
    ONLINE: Arm(process="online"),
    SLOW: Arm(process="online", rate=SLOW_RATE),
    CONTINUED: Arm(process="continued", rate=CONTINUED_RATE),
}
LABELS = {
    OUTCOME: "outcome alone",
    FIXED: "with a fixed PRM",
    FLOORED: f"with a fixed PRM, reference floor {FLOOR}",
    ONLINE: "with an online PRM",
    SLOW: "with an online PRM at a chosen rate",
    CONTINUED: "with a fixed PRM that goes on learning",
}
PUBLISHED = dict.fromkeys(
    (ONLINE, SLOW), "PRIME, online and per token: 2.5 times as fast, and 6.9 points better at the end"
)
GUIDED = tuple(arm for arm in ARMS if arm != OUTCOME)
NOT_PUBLISHED = "not published"


@dataclass(frozen=True, slots=True)
class Files:
    """What a seed's policies learn with.

    Attributes:
        problems: Those of the reward model first, then those to learn on.
    """

    policy: Path
    prm: Path
    problems: Path
    test: Path


def course(scale: Scale) -> Course:
    """Twenty steps, or fewer at a small scale, measured before and after each quarter."""
    quarter = min(5, max(1, scale.sizes.test_prompts // 12))
    return Course(steps=4 * quarter, every=quarter)


def prepare(world: World) -> Files:
    """A reward model by CE on the base's responses, and problems that it has not seen."""
    sizes, plan = world.scale.sizes, course(world.scale)
    return Files(
        policy=Path(world.base),
        # One for all seeds: they redraw problems and everything that a policy samples.
        prm=replace(world, seed=0).train("implicit-ce"),
        problems=world.prompts("train", sizes.train_prompts + plan.steps * plan.prompts),
        test=world.prompts("test", sizes.test_prompts),
    )


def measure(world: World, files: Files) -> Measurement:
    """Each arm's learning curve: ``ARM/QUANTITY/STEP`` to its value."""
    plan, scale = course(world.scale), world.scale
    learned = read_prompts(files.problems)
    with grader_of(scale.grader) as grader:
        materials = Materials(
            policy=files.policy,
            prm=files.prm,
            online=scale.config("implicit-ce", schedule="constant", warmup=0.0, epochs=1),
            problems=list(learned)[scale.sizes.train_prompts :],
            test=list(read_prompts(files.test)),
            grader=grader,
            seed=world.seed,
        )
        numbers: dict[str, float] = {}
        for name, arm in ARMS.items():
            settings = {
                "arm": repr(arm),
                **({} if arm.rate == 1.0 else {"rate": arm.rate}),
                "course": repr(plan),
                "prm": files.prm.name,
                "problems": files.problems.name,
                "test": files.test.name,
                "seed": world.seed,
            }
            path = world.store.path("rl", name, settings, ".json")
            world.store.write(path, partial(_learn, arm, plan, materials))
            for quantity, values in json.loads(path.read_text(encoding="utf-8")).items():
                for step, value in zip(plan.measured_at, values, strict=True):
                    numbers[f"{name}/{quantity}/{step}"] = value
    return numbers


def _learn(arm: Arm, plan: Course, materials: Materials, path: Path) -> None:
    write_json(path, learning_curve(arm, plan, materials))


def conclude(seeds: Seeds, scale: Scale) -> Finding:
    """Accuracy at the end and on the way, and whether rewards rose without it."""
    plan = course(scale)
    curves = _Curves(seeds, plan)
    return Finding(
        name="rl",
        title="What are process rewards worth in reinforcement learning?",
        purpose="GRPO on outcomes, alone and with an implicit PRM's lowest step beside them: fixed, with a "
        "floor under the reference's probabilities, or learning from the policy's own rollouts.",
        differs=f"{scale.setting}; one reward per response, since that is what TRL's GRPOTrainer takes; the "
        "fixed PRM was trained on "
        f"{scale.sizes.train_prompts * scale.sizes.train_responses:,} further graded "
        "responses of the initial policy, which are not counted among the rollouts.",
        tables=(_accuracy_table(curves), _reward_table(curves)),
        checks=(
            *(check for arm in GUIDED for check in _gain_checks(curves, arm)),
            *(_hacking_check(curves, arm) for arm in (FIXED, FLOORED)),
            _wrong_reward_check(curves),
        ),
        plots=(_plot(curves),),
        notes=(
            f"Every arm takes {plan.steps} optimizer steps on {plan.prompts} problems with {plan.responses} "
            f"responses each, {plan.steps * plan.prompts * plan.responses:,} rollouts in all, and is "
            f"measured on {plan.test_responses} responses to each of {scale.sizes.test_prompts} others.",
            "Four arms were decided before the runs; the last two, whose learning rates were chosen on other "
            "problems, after those had been seen: `docs/preregistration.md`.",
        ),
    )


@dataclass(frozen=True, slots=True)
class _Curves:
    """The measured curves of all seeds."""

    seeds: Seeds
    plan: Course

    @property
    def last(self) -> int:
        return self.plan.measured_at[-1]

    def at_end(self, arm: str, quantity: str) -> str:
        return f"{arm}/{quantity}/{self.last}"

    def area(self, numbers: Measurement, arm: str) -> float:
        """Mean accuracy over the measurements after the first step."""
        return float(np.mean([numbers[f"{arm}/accuracy/{step}"] for step in self.plan.measured_at[1:]]))

    def rollouts_to(self, numbers: Measurement, arm: str) -> float:
        """Rollouts until the accuracy that outcomes alone end with, between measurements by a line.

        All of them where the arm does not get there.
        """
        goal = numbers[self.at_end(OUTCOME, "accuracy")]
        steps = self.plan.measured_at
        values = [numbers[f"{arm}/accuracy/{step}"] for step in steps]
        per_step = self.plan.prompts * self.plan.responses
        for before, after, low, high in zip(steps, steps[1:], values, values[1:], strict=False):
            if high >= goal:
                share = 1.0 if high <= low else max(0.0, (goal - low) / (high - low))
                return per_step * (before + share * (after - before))
        return float(per_step * steps[-1])

    def change(self, arm: str, quantity: str) -> tuple[str, str]:
        """Names of a quantity at the end and at the beginning."""
        return self.at_end(arm, quantity), f"{arm}/{quantity}/0"


def _gain_checks(curves: _Curves, arm: str) -> tuple[Check, Check]:
    seeds = curves.seeds
    end = seeds.difference(curves.at_end(arm, "accuracy"), curves.at_end(OUTCOME, "accuracy"))
    area = seeds.derived(lambda numbers: curves.area(numbers, arm) - curves.area(numbers, OUTCOME))
    paper = PUBLISHED.get(arm, NOT_PUBLISHED)
    return (
        Check(
            claim=f"At the end a policy that learned {LABELS[arm]} beside the outcome is more accurate than "
            "with the outcome alone.",
            paper=paper,
            here=f"accuracy {format_estimate(end, sign=True)}",
            verdict=is_above(end),
        ),
        Check(
            claim=f"It learns faster {LABELS[arm]}: its mean accuracy on the way is higher.",
            paper=paper,
            here=f"mean accuracy over {len(curves.plan.measured_at) - 1} measurements "
            f"{format_estimate(area, sign=True)}",
            verdict=is_above(area),
        ),
    )


def _hacking_check(curves: _Curves, arm: str) -> Check:
    reward = curves.seeds.difference(*curves.change(arm, "reward"))
    accuracy = curves.seeds.difference(*curves.change(arm, "accuracy"))
    return Check(
        claim=f"The policy that learned {LABELS[arm]} fools it: the reward rises, and accuracy gains less "
        f"than {100 * MARGIN:g} points.",
        paper=NOT_PUBLISHED,
        here=f"reward {format_estimate(reward, percent=False, digits=2, sign=True)} nats, accuracy "
        f"{format_estimate(accuracy, sign=True)}",
        verdict=all_of([is_above(reward), is_below(accuracy, MARGIN)]),
    )


def _wrong_reward_check(curves: _Curves) -> Check:
    rises = {arm: curves.seeds.difference(*curves.change(arm, "wrong_reward")) for arm in (FIXED, FLOORED)}
    auc = {arm: curves.seeds.difference(*curves.change(arm, "auc")) for arm in (FIXED, FLOORED)}
    return Check(
        claim="Without a reference floor, a fixed PRM tells right from wrong responses less well after the "
        "policy has learned from it.",
        paper=NOT_PUBLISHED,
        here="; ".join(
            f"{LABELS[arm]}: AUC {format_estimate(auc[arm], sign=True)}, reward of wrong responses "
            f"{format_estimate(rises[arm], percent=False, digits=2, sign=True)} nats"
            for arm in (FIXED, FLOORED)
        ),
        verdict=is_below(auc[FIXED]),
    )


def _accuracy_table(curves: _Curves) -> Table:
    seeds, steps = curves.seeds, curves.plan.measured_at
    per_step = curves.plan.prompts * curves.plan.responses
    return Table(
        title="Accuracy of a response to test problems, by rollouts",
        columns=(*(f"{step * per_step:,}" for step in steps), "mean on the way", "rollouts to the goal"),
        rows=tuple(
            (
                LABELS[arm],
                (
                    *(seeds.of(f"{arm}/accuracy/{step}") for step in steps),
                    seeds.derived(lambda numbers, arm=arm: curves.area(numbers, arm)),  # type: ignore[misc]
                    format_estimate(
                        seeds.derived(lambda numbers, arm=arm: curves.rollouts_to(numbers, arm)),  # type: ignore[misc]
                        percent=False,
                        digits=0,
                    ),
                ),
            )
            for arm in ARMS
        ),
        caption="Per cent. The goal is the accuracy that the outcome alone ends with; an arm that does not "
        "get there counts with all rollouts.",
    )


def _reward_table(curves: _Curves) -> Table:
    seeds, last = curves.seeds, curves.last
    quantities = {"reward": "reward", "wrong_reward": "of wrong responses", "auc": "AUC, right against wrong"}
    return Table(
        title="What the process reward says of test responses, before and after",
        columns=tuple(f"{label}, {when}" for label in quantities.values() for when in ("before", "after")),
        rows=tuple(
            (
                LABELS[arm],
                tuple(seeds.of(f"{arm}/{quantity}/{step}") for quantity in quantities for step in (0, last)),
            )
            for arm in ARMS
        ),
        caption="Nats; of the outcome alone the fixed PRM's, which it does not learn from. An online PRM "
        "begins as its own reference, so with rewards of 0.",
        percent=False,
        digits=2,
    )


def _plot(curves: _Curves) -> Plot:
    per_step = curves.plan.prompts * curves.plan.responses
    steps = curves.plan.measured_at
    return curves_plot(
        "rl",
        "Accuracy on test problems while the policy learns",
        ("Rollouts", "Accuracy"),
        {
            LABELS[arm]: {step * per_step: curves.seeds.of(f"{arm}/accuracy/{step}") for step in steps}
            for arm in ARMS
        },
        log2=False,
    )


EXPERIMENT = Experiment("rl", prepare, measure, conclude, lab_only=True)
