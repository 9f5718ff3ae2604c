"""Claims that one experiment measures and another repeats in a setting of its own, beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stepcredit_study.pages.finding import Finding, numbered

SETTINGS: Final[Mapping[str, str]] = {
    "positive-control": "where heads can succeed",
    "kto": "KTO with z above 0",
}
"""Experiments that repeat claims of others, to what a column calls their setting."""


def repeated_cells(findings: Sequence[Finding]) -> dict[str, dict[str, str]]:
    """Setting to verdicts and numbers there, by the number that the claim has where it was first measured.

    Args:
        findings: In the order in which a page numbers them. A claim is repeated if its sentence is the same.
    """
    numbers = {
        check.claim: number for number, finding, check in numbered(findings) if finding.name not in SETTINGS
    }
    return {
        SETTINGS[finding.name]: {
            numbers[check.claim]: f"**{check.verdict}** ({check.here})"
            for check in finding.checks
            if check.claim in numbers
        }
        for finding in findings
        if finding.name in SETTINGS
    }
