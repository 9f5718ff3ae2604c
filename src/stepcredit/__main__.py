"""``python -m stepcredit``, and the script that is installed."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; gives the exit code."""
    try:
        from stepcredit.cli import main as run
    except KeyboardInterrupt:
        print("\nstepcredit: interrupted", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
