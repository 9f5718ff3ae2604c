"""Made-up recorded solutions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stepcredit.data import write_rows


@pytest.fixture(scope="session")
def write_solutions() -> Callable[[Path, int], None]:
    """Writes sums of two digits, solved by four made-up models of which two err now and then."""

    def write(path: Path, num_problems: int) -> None:
        rows = []
        for number in range(num_problems):
            first, second = number % 7, 1 + number % 2
            for policy, offset in (("a", 0), ("b", number % 2), ("c", 0), ("d", 1)):
                stated = first + second + offset
                rows.append(
                    {
                        "id": f"p{number}/{policy}",
                        "prompt_id": f"p{number}",
                        "prompt": f"{first}+{second}=",
                        "response": f"{first}+{second}={stated}\n#### {stated}",
                        "answer": str(first + second),
                        "correct": offset == 0,
                        "policy": policy,
                    }
                )
        write_rows(path, rows)

    return write
