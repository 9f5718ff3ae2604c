from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import gpu
from stepcredit_bench.gpu_sections import SECTIONS, Settings

SMALL = Settings(device="cpu", shape="tiny")


@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_section_runs_at_a_tiny_size(name: str, tmp_path: Path) -> None:
    names = ("machine", name) if name != "machine" else ("machine",)
    results = gpu.run(SMALL, tmp_path / "gpu.json", names)
    assert json.loads((tmp_path / "gpu.json").read_text()).keys() == results.keys()
    assert "failed" not in results[name], results[name]
    timed = {"score": ("ours", "published"), "train": ("ours", "plain"), "sample": ("ours", "generate")}
    for side in timed.get(name, ()):
        assert results[name][f"{side}_utilisation"] > 0
    if name == "score":
        assert results[name]["largest_difference"] < 1e-3


def test_a_section_that_fails_or_hangs_is_reported_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(settings: Settings) -> dict[str, object]:
        time.sleep(30)
        return {"settings": settings}

    def fail(settings: Settings) -> dict[str, object]:
        raise RuntimeError(f"first\nnothing on {settings.device}")

    monkeypatch.setattr(
        gpu, "SECTIONS", {"hang": (hang, 1), "fail": (fail, 9), "machine": SECTIONS["machine"]}
    )
    results = gpu.run(SMALL, tmp_path / "gpu.json", ("hang", "fail", "machine"))
    assert results["hang"]["failed"] == "TimeoutError: did not end within 1 s"
    assert results["fail"]["failed"] == "RuntimeError: nothing on cpu"
    assert results["machine"]["products_per_second"] > 0
    assert json.loads((tmp_path / "gpu.json").read_text())["fail"] == results["fail"]


def test_all_sections_together_take_under_eight_minutes() -> None:
    assert sum(seconds for _, seconds in SECTIONS.values()) < 480
