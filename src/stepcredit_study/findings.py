"""The page of all published findings: claim, paper, here, verdict, why.

Run: python -m stepcredit_study.findings --results docs/results --page docs/findings.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stepcredit_study.pages.findings import write_findings_page
from stepcredit_study.reproduce import NAMES


def main() -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/findings.md"))
    arguments = parser.parse_args()
    write_findings_page(arguments.results, arguments.page, NAMES)


if __name__ == "__main__":
    main()
