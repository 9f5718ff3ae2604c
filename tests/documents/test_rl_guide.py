"""What docs/rl.md shows runs, on the lab's models; verl's lines name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stepcredit.checkpoints import PRMCard, Reference, load_tokenizer, save_prm, weights_hash
from stepcredit.lab.policies import policy_path
from stepcredit.rl.verl_rewards import VerlSettings
from stepcredit.typed_values import typed_record

GUIDE = (Path(__file__).parents[2] / "docs" / "rl.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The names that the guide uses: MODEL and prm."""
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").symlink_to(policy_path("mid"))
    (tmp_path / "prm").mkdir()
    reference = Reference.local(policy_path("mid"), tmp_path / "prm", weights_hash(policy_path("mid")))
    card = PRMCard(reference=reference, beta=0.5, step_rule="newline")
    strong = policy_path("strong")
    save_prm(
        AutoModelForCausalLM.from_pretrained(str(strong)), load_tokenizer(strong), card, tmp_path / "prm"
    )
    return tmp_path


@pytest.mark.slow
def test_the_lines_of_python_run_one_after_the_other(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl")
    names: dict[str, Any] = {}
    # On any machine's processor, and no longer than the lab's solutions are.
    here = 'max_steps=2, max_completion_length=64, use_cpu=True, bf16=False, report_to="none"'
    for block in PYTHON:
        exec(compile(block.replace("max_steps=2", here), "rl.md", "exec"), names)
    log = names["trainer"].state.log_history
    assert any("rewards/step_rewards_min/mean" in row for row in log)
    assert (workplace / "prm-online" / "prm.json").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == "[21, 21]"


def test_twenty_lines_are_enough() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 20


def test_the_settings_of_verls_manager_are_those_that_there_are() -> None:
    given = dict(re.findall(r"^    \+reward\.reward_kwargs\.(\w+)=(\w+)", GUIDE, flags=re.MULTILINE))
    assert typed_record(VerlSettings, given, "rl.md").prm == "PRM"
    for name in VerlSettings.__dataclass_fields__:
        assert f"`{name}`" in GUIDE


@pytest.mark.slow
def test_verl_finds_the_manager_of_the_guide() -> None:
    imports = pytest.importorskip("verl.utils.import_utils")
    settings = dict(re.findall(r"^    reward\.reward_manager\.(\S+?)=(\S+)", GUIDE, flags=re.MULTILINE))
    manager = imports.load_extern_object(settings["module.path"], settings["name"])
    assert manager.__name__ == "StepRewardManager"
