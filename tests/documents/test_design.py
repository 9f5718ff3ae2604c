"""The design document names the house as it is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "src" / "stepcredit"
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_method_is_five_files_of_under_1200_lines() -> None:
    files = re.findall(r"^\d\. `([\w/]+\.py)`", DESIGN, flags=re.MULTILINE)
    assert len(files) == 5
    lines = sum(len((LIBRARY / file).read_text(encoding="utf-8").splitlines()) for file in files)
    assert lines < 1200


def test_every_room_stands_in_the_table_and_in_the_picture() -> None:
    rooms = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    table = set(re.findall(r"`(\w+)/?`", DESIGN.partition("## Layers")[2].partition("## Kinds")[0]))
    picture = set(re.findall(r"\w+", DESIGN.partition("## Architecture")[2].partition("## Layers")[0]))
    assert rooms - table == set()
    assert rooms - picture == set()


def test_no_file_is_longer_than_400_lines() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert [str(path) for path, length in lengths.items() if length > 400] == []
