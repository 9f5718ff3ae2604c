"""What responses in a lab are like: how many are right, what a vote adds, how many differ, how long they are.

Run: python -m stepcredit_study.lab_properties --scale lab2 --out runs/lab-properties
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np

from stepcredit.pipelines.driver import Store
from stepcredit_study.frame.measuring import TestBed
from stepcredit_study.frame.scale import SCALES, read_scale, resized
from stepcredit_study.frame.world import World

COLUMNS = (
    "one response right",
    "vote@4 adds",
    "vote@16 adds",
    "vote@64 adds",
    "distinct of 64",
    "length ratio",
)


def properties(bed: TestBed) -> tuple[float, ...]:
    """The numbers under :data:`COLUMNS`, those of accuracy in per cent.

    The length ratio is the 95th percentile of the characters of a problem's responses over the 5th, its mean
    over the problems.
    """
    single, vote = bed.pass_at(1), bed.majority()
    ratios = []
    for responses in bed.samples.responses:
        short, long = np.quantile([len(rollout.response) for rollout in responses], [0.05, 0.95])
        ratios.append(long / short)
    added = (100 * (vote[n] - single) for n in bed.ns)
    return (100 * single, *added, float(bed.samples.num_distinct.mean()), float(np.mean(ratios)))


def main() -> None:
    """Draw the test responses of each generator and print a table."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale", choices=SCALES[:2], default="lab2", help="which lab (default: %(default)s)"
    )
    parser.add_argument("--problems", type=int, default=100, help="test problems (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of problems and responses (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for prompts and responses")
    arguments = parser.parse_args()
    scale = resized(read_scale(arguments.scale), {"test_prompts": arguments.problems})
    world = World(scale, Store(arguments.out / "store"), arguments.seed)
    print(f"| | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}")
    for policy in scale.generators:
        numbers = properties(TestBed(world.test_set(policy), scale.n))
        print(f"| {policy} | {' | '.join(f'{number:.1f}' for number in numbers)} |")


if __name__ == "__main__":
    main()
