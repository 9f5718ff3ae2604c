"""The labs' policies: small Llama-architecture models, ordinary checkpoints that ship with the package.

``python -m stepcredit.lab.policies --out DIR`` makes a lab's three anew, from fixed seeds.
"""

from __future__ import annotations

import argparse
import shutil
from importlib import resources
from pathlib import Path
from typing import Final

from stepcredit.errors import UserError
from stepcredit.lab.labs import LABS, lab_named
from stepcredit.runs import atomic_directory

POLICY_NAMES: Final = ("weak", "mid", "strong")


def policy_path(name: str, lab: str = "lab") -> Path:
    """Directory of a policy that ships with the package: ``weak``, ``mid`` or ``strong`` of a lab.

    Raises:
        UserError: There is no such policy.
    """
    if name not in POLICY_NAMES:
        raise UserError(f"there is no lab policy {name!r}", hint=f"use {', '.join(POLICY_NAMES)}")
    folder = Path(str(resources.files("stepcredit.lab"))) / "checkpoints"
    return folder / name if lab == "lab" else folder / lab_named(lab).name / name


def export_policy(name: str, directory: Path, lab: str = "lab") -> None:
    """Copy a shipped policy; what is there is replaced.

    Raises:
        UserError: There is no such policy.
    """
    with atomic_directory(directory) as target:
        shutil.copytree(policy_path(name, lab), target, dirs_exist_ok=True)


def export_policies(directory: Path) -> None:
    """Copy the first lab's policies to ``directory/<name>``; what is there is replaced."""
    for name in POLICY_NAMES:
        export_policy(name, directory / name)


def main() -> None:
    """Make the policies from the command line."""
    from stepcredit.lab.imitation import make_policies

    parser = argparse.ArgumentParser(prog="python -m stepcredit.lab.policies", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write weak/, mid/ and strong/ to")
    parser.add_argument(
        "--lab", choices=list(LABS), default="lab", help="whose policies (default: %(default)s)"
    )
    arguments = parser.parse_args()
    make_policies(arguments.out, lab_named(arguments.lab))


if __name__ == "__main__":
    main()
