"""``python -m stepcredit``."""

import sys

from stepcredit.cli import main

if __name__ == "__main__":
    sys.exit(main())
