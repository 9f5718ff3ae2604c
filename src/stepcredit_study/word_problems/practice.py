"""Arithmetic practice with small numbers, from the same package: sums, differences, products, quotients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Final

from stepcredit.grading.reasoning_gym import make_task
from stepcredit_study.word_problems.problems import SMALLEST_TOO_LARGE

PRACTICE_PROMPT: Final = "Work these out."
_SUMS: Final = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 3}
_PRODUCTS: Final = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
_TERMS = re.compile(r"(\d+) ([-+*]) (\d+)")
_TIMES: Final = (" * ", "*", " x ")


def practice_lines(random: Random, count: int) -> list[str]:
    """Lines such as ``12 * 7 = 84``; all numbers are small, whole and not negative.

    Args:
        random: Decides the seeds of the package's tasks, and how operations are written.
        count: How many; about half are sums and differences.
    """
    sums, products = _equations("chain_sum", random, **_SUMS), _equations("products", random, **_PRODUCTS)
    lines = []
    for _ in range(count):
        left, symbol, right, result = next(sums if random.random() < 0.5 else products)
        sign = f" {symbol} "
        if symbol == "*":
            sign = random.choice(_TIMES)
            if random.random() < 0.4 and left > 0:
                left, sign, right, result = result, random.choice((" / ", "/")), left, right
        lines.append(f"{left}{sign}{right} = {result}")
    return lines


def _equations(task: str, random: Random, **settings: int) -> Iterator[tuple[int, str, int, int]]:
    """(left, symbol, right, result) of one task, without end."""
    while True:
        for item in make_task(task, seed=random.randrange(2**31), size=64, settings=settings):
            match = _TERMS.fullmatch(item["metadata"]["expression"])
            assert match is not None, "two terms were asked for"
            numbers = int(match[1]), int(match[3]), int(item["answer"])
            if min(numbers) >= 0 and max(numbers) < SMALLEST_TOO_LARGE:
                yield numbers[0], match[2], numbers[1], numbers[2]
