from __future__ import annotations

from typing import Any

from stepcredit_study.word_problems.page import preregistered

ABOVE, BELOW = [0.2, 0.1, 0.3], [-0.2, -0.3, -0.1]


def outcomes(difference: list[float]) -> dict[str, Any]:
    row = {"weighted vote": {"4": {"minus plain": difference}}}
    return {"majority": {"4": ABOVE}, "methods": {"implicit-ce": row, "implicit-dpo": row}}


def test_what_was_decided_beforehand_is_a_section_with_a_row_for_each_measured_outcome() -> None:
    results = {
        "test sets": ["known", "new"],
        "outcomes": {"known/middle": outcomes(BELOW), "new/middle": outcomes(ABOVE)},
    }
    text = preregistered(results, "results/word-problems/README.md")
    assert text.startswith("## Word problems")
    assert "[tables](results/word-problems/README.md)" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| P")]
    assert (
        "| P2 | A vote weighted by CE or DPO beats the plain vote. | known templates: **does not hold**"
        in row
    )
    assert "new templates: **holds** (implicit-ce, minus plain 0.200 [0.100, 0.300]" in row


def test_where_nothing_was_measured_there_is_no_such_section() -> None:
    assert preregistered({}, "README.md") == ""
