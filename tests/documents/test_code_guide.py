"""What docs/code.md shows runs, on programs that a fake writes: from prompts to scored blocks of code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.conftest import MakeModel, MakeTokenizer
from tests.documents.test_documents import commands

from stepcredit.cli import main
from stepcredit.data import read_rollouts, read_scores
from stepcredit.generators import options as generator_options
from stepcredit.generators.fake import FakeGenerator
from stepcredit.types import GenerationRequest

PAGE = "docs/code.md"
GUIDE = Path(__file__).parents[2] / PAGE
RIGHT = {
    "total": "def total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n"
    "    return result",
    "longest": "def longest(words):\n    return max(words, key=len)",
    "evens": "def evens(numbers):\n    return [number for number in numbers if number % 2 == 0]",
    "double": "number = int(input())\nprint(2 * number)",
}
WRONG = {
    "total": ("result = 0", "result = 1"),
    "longest": ("max", "min"),
    "evens": ("== 0", "== 1"),
    "double": ("2 *", "3 *"),
}


def program(request: GenerationRequest, index: int) -> str:
    """Sample ``index``: every other one holds a mistake."""
    name = request.prompt.id
    code = RIGHT[name] if index % 2 == 0 else RIGHT[name].replace(*WRONG[name])
    return f"Try {index}.\n\n```python\n{code}\n```\n\nDone."


@pytest.mark.slow
def test_the_commands_run_one_after_another(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_model: MakeModel,
    make_tokenizer: MakeTokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```json\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    Path("prompts.jsonl").write_text(block, encoding="utf-8")
    make_model(2).save_pretrained("MODEL")
    make_tokenizer().save_pretrained("MODEL")
    sample, *rest, search, grade = commands(PAGE)
    with monkeypatch.context() as patch:
        patch.setattr(generator_options, "_transformers", lambda *_, **__: FakeGenerator(program))
        few = ["4" if word == "8" else word for word in sample[1:]]
        assert main(few) == 0, capsys.readouterr().err
    for words in rest:
        assert main(words[1:]) == 0, capsys.readouterr().err
    graded = list(read_rollouts("graded.jsonl"))
    assert len(graded) == 4 * 4
    assert [rollout.correct for rollout in graded] == [rollout.index % 2 == 0 for rollout in graded]
    assert json.loads(Path("prm/prm.json").read_text())["step_rule"] == "code"
    steps = {score.id: [step.text for step in score.steps] for score in read_scores("scores.jsonl")}
    assert steps["total:0"] == [
        "Try 0.\n\n",
        "```python\ndef total(numbers):\n    result = 0\n",
        "    for number in numbers:\n        result += number\n",
        "    return result\n```\n\n",
        "Done.",
    ]
    size = ["--width", "2", "--expand", "2", "--depth", "2", "--max-new-tokens", "8", "--limit", "1"]
    assert main([*search[1:], *size]) == 0, capsys.readouterr().err
    assert main(grade[1:]) == 0, capsys.readouterr().err
    assert [rollout.correct for rollout in read_rollouts("found-graded.jsonl")] == [False]
