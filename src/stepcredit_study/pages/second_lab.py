"""The second lab beside the first: what each claim came to there, and how many hold in each world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from stepcredit.lab.labs import SECOND
from stepcredit.wording import quantity
from stepcredit_study.pages.finding import Check, Finding, Verdict, numbered
from stepcredit_study.pages.text import seeds_of

FOLDER = SECOND.name
"""Where its results lie among the published ones."""
COLUMN = "second lab"

_WORDS: Mapping[Verdict, tuple[str, str]] = {
    "holds": ("holds", "hold"),
    "does not hold": ("does not hold", "do not hold"),
    "undecided": ("is undecided", "are undecided"),
    "not measured": ("is not measured", "are not measured"),
}
"""Of one claim, and of several."""


def second_cells(findings: Sequence[Finding], second: Sequence[Finding]) -> dict[str, str]:
    """Number of a claim to its verdict and numbers in the second lab.

    Args:
        findings: Those of the first lab, in the order in which a page numbers them.
        second: Those of the second. A claim that is not among theirs is not measured; without any findings
            there are no cells.
    """
    if not second:
        return {}
    known = _by_claim(second)
    cells: dict[str, str] = {}
    for number, finding, check in numbered(findings):
        there = known.get((finding.name, check.claim))
        cells[number] = "not measured" if there is None else f"**{there.verdict}** ({there.here})"
    return cells


def second_sizes(second: Sequence[Finding]) -> str:
    """With how much data, on how many seeds, the second lab was measured: a sentence, after a space."""
    sizes = {_size(finding) for finding in second}
    if not sizes:
        return ""
    return f" [The second lab](lab.md#the-second-lab) was measured with {'; or with '.join(sorted(sizes))}."


def _size(finding: Finding) -> str:
    size = (finding.settings or {})["scale"]["sizes"]
    return (
        f"{quantity(seeds_of(finding), 'seed')}, {size['train_prompts']} problems with "
        f"{size['train_responses']} responses to train on, and {size['test_prompts']} with "
        f"{size['test_responses']} to be tested on"
    )


def tally(findings: Sequence[Finding], second: Sequence[Finding]) -> str:
    """How many claims hold in each world: those that somebody published, and the questions of our own."""
    sentences = [f"In the first lab, {_counted(findings)}."]
    if second:
        sentences += [f"In the second lab, {_counted(second)}.", _agreement(findings, second)]
    return " ".join([*sentences, "Both worlds are synthetic; other worlds may count otherwise."])


def _counted(findings: Sequence[Finding]) -> str:
    checks = [check for finding in findings for check in finding.checks]
    parts = {
        "published": [check for check in checks if check.is_published],
        "other": [check for check in checks if not check.is_published],
    }
    return "; ".join(
        f"of {quantity(len(part), f'{name} claim')} {', '.join(_verdicts(part))}"
        for name, part in parts.items()
        if part
    )


def _verdicts(checks: Sequence[Check]) -> Iterator[str]:
    counts = Counter(check.verdict for check in checks)
    for verdict, (of_one, of_several) in _WORDS.items():
        if counts[verdict]:
            yield f"{counts[verdict]} {of_one if counts[verdict] == 1 else of_several}"


def _agreement(findings: Sequence[Finding], second: Sequence[Finding]) -> str:
    known = _by_claim(second)
    pairs = [
        (check.is_published, {check.verdict, known[finding.name, check.claim].verdict})
        for finding in findings
        for check in finding.checks
        if (finding.name, check.claim) in known
    ]
    measured = [pair for published, pair in pairs if published and "not measured" not in pair]
    decided = [pair for _, pair in pairs if pair <= {"holds", "does not hold"}]
    opposite = sum(len(pair) > 1 for pair in decided)
    outcomes: tuple[tuple[str, set[Verdict]], ...] = (
        ("in both worlds", {"holds"}),
        ("in one and not in the other", {"holds", "does not hold"}),
        ("in neither", {"does not hold"}),
    )
    counts = {words: measured.count(verdicts) for words, verdicts in outcomes}
    holding = ", ".join(
        f"{count} {'holds' if count == 1 else 'hold'} {words}" for words, count in counts.items()
    )
    return (
        f"Of {quantity(len(measured), 'published claim')} measured in both, {holding}, and "
        f"the verdict on {len(measured) - sum(counts.values())} is undecided in at least one. Of all claims, "
        f"{len(decided)} are decided in both: {len(decided) - opposite} alike and {opposite} with opposite "
        "verdicts."
    )


def _by_claim(findings: Sequence[Finding]) -> dict[tuple[str, str], Check]:
    return {(finding.name, check.claim): check for finding in findings for check in finding.checks}
