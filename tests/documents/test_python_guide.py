"""What docs/python.md and the README show of Python's functions runs, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_lines_of_python_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        # Fewer of everything: what the lines do is tested, not what they find.
        fewer = block.replace("count=40", "count=6").replace("count=20", "count=4")
        exec(compile(fewer, "python.md", "exec"), names)
    out = capsys.readouterr().out.splitlines()
    assert "True" in out
    assert out[-1] == re.findall(r"print\(error\)  # (.*)", GUIDE)[0]
    assert (tmp_path / "rollouts.jsonl.manifest.json").is_file()
