"""Arithmetic with small numbers, from the same package: practice for policies, problems of another kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import Final

from stepcredit.grading.reasoning_gym import FIELD, make_task
from stepcredit.types import Prompt
from stepcredit_study.word_problems.problems import ANSWER_MARK, SMALLEST_TOO_LARGE, WordProblem

PRACTICE_PROMPT: Final = "Work these out."
_SUMS: Final = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 3}
_PRODUCTS: Final = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
_CHAINS: Final = {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 2}
_CHAIN_SEED: Final = 90_000_000
_NUM_CHAINS: Final = 10_000
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


def arithmetic_problems() -> Iterator[WordProblem]:
    """Chains of sums and differences, in the package's words; results are not negative and small."""
    dataset = make_task("chain_sum", seed=_CHAIN_SEED, size=_NUM_CHAINS, settings=_CHAINS)
    place = {"task": "chain_sum", "seed": _CHAIN_SEED, "size": _NUM_CHAINS, "settings": _CHAINS}
    for index, item in enumerate(dataset):
        answer, expression = item["answer"], item["metadata"]["expression"]
        if 0 <= int(answer) < SMALLEST_TOO_LARGE:
            prompt = Prompt(
                id=f"arithmetic-{index:06d}",
                prompt=item["question"],
                answer=answer,
                extras={FIELD: {**place, "index": index}},
            )
            yield WordProblem(prompt=prompt, solution=f"{expression} = {answer}\n{ANSWER_MARK}{answer}")
