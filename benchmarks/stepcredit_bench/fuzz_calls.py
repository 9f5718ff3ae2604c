"""Calls of the command line with inputs that are almost right."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepcredit.cli import main as stepcredit
from stepcredit.lab.policies import policy_path
from stepcredit_bench.fuzz_inputs import EXAMPLES, Row, damaged, encoded, mutated, rollout, score, write_rows

Words = list[str]


@dataclass
class Maker:
    """What the calls are made of.

    Attributes:
        rng: Decides everything.
        address: Of a server that answers every request with ``body``.
        body: What it says.
    """

    rng: random.Random
    address: str = ""
    body: bytes = b""

    def rows(self, here: Path, name: str, example: Callable[[int], Row], count: int = 8) -> str:
        """A file of rows, of which one or two are changed."""
        rows = [example(number) for number in range(count)]
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            place = self.rng.randrange(count)
            rows[place] = mutated(self.rng, rows[place])
        return str(write_rows(self.rng, here / name, rows))

    def out(self, here: Path) -> Words:
        """Where a call writes to."""
        name = self.rng.choice(["out.jsonl"] * 3 + ["out.csv", "out.parquet", "out.json"])
        return ["--out", str(here / name)]

    def options(self) -> Words:
        """Whether malformed rows are left out."""
        return ["--skip-invalid"] if self.rng.random() < 0.3 else []

    def answer(self, content: Any) -> None:
        """What the server says next: changed, and perhaps damaged."""
        body = encoded(mutated(self.rng, content))
        self.body = damaged(self.rng, body) if self.rng.random() < 0.3 else body


def _convert(maker: Maker, here: Path) -> Words:
    name = maker.rng.choice(list(EXAMPLES))
    target = maker.rng.choice(["rollouts"] * 3 + ["prompts", "trl-unpaired", "trl-stepwise", "verl"])
    target = "prompts" if name in ("prompts", "verl") else target
    words = ["convert", maker.rows(here, "rows", EXAMPLES[name]), "--from", name, "--to", target]
    if maker.rng.random() < 0.2:
        column = maker.rng.choice(
            ["answer=level", "answer=reward_model.ground_truth", "id=index", "x=y.z", "="]
        )
        words += ["--column", column]
    return [*words, *maker.options(), *maker.out(here)]


def _grade(maker: Maker, here: Path) -> Words:
    grader = maker.rng.choice(["exact", "numeric", "choice"])
    words = ["grade", maker.rows(here, "rows", rollout), "--grader", grader]
    return [
        *words,
        *maker.options(),
        *maker.out(here),
        *(["--regrade"] if maker.rng.random() < 0.5 else []),
    ]


def _resumed(maker: Maker, here: Path) -> Words:
    """A run that was cut, and whose partial file was damaged since."""
    rows = here / "rows.jsonl"
    rows.write_text("".join(json.dumps(rollout(number)) + "\n" for number in range(8)), encoding="utf-8")
    words = ["grade", str(rows), "--grader", "exact", "--regrade", "--out", str(here / "out.jsonl")]
    with contextlib.redirect_stdout(io.StringIO()):
        stepcredit(words)
    manifest = json.loads((here / "out.jsonl.manifest.json").read_text(encoding="utf-8"))
    content = (here / "out.jsonl").read_bytes()
    stamp = json.dumps({"settings_hash": manifest["settings_hash"], "bytes": len(content)}).encode()
    lines = [json.loads(line) for line in content.splitlines()[:5]]
    lines[2] = (
        mutated(maker.rng, lines[2]) if maker.rng.random() < 0.7 else maker.rng.choice([7, None, "x", []])
    )
    text = b"".join(encoded(line) + b"\n" for line in lines)
    partial = damaged(maker.rng, text) if maker.rng.random() < 0.5 else text
    (here / "out.jsonl.partial").write_bytes(partial)
    broken = damaged(maker.rng, stamp) if maker.rng.random() < 0.2 else stamp
    (here / "out.jsonl.partial.settings").write_bytes(broken)
    (here / "out.jsonl").unlink()
    return words


def _again(maker: Maker, here: Path) -> Words:
    """A command that was run before, and whose output or manifest was damaged since."""
    rows = here / "rows.jsonl"
    rows.write_text("".join(json.dumps(rollout(number)) + "\n" for number in range(8)), encoding="utf-8")
    choices = [
        ["grade", "--grader", "exact"],
        ["select", "--responses", "1"],
        ["baseline", "--by", "oracle"],
        ["convert"],
    ]
    command, *options = maker.rng.choice(choices)
    words = [command, str(rows), *options, "--out", str(here / "out.jsonl")]
    with contextlib.redirect_stdout(io.StringIO()):
        stepcredit(words)
    file = here / maker.rng.choice(["out.jsonl.manifest.json", "out.jsonl"])
    content = file.read_bytes()
    if file.suffix == ".json" and maker.rng.random() < 0.7:
        file.write_bytes(encoded(mutated(maker.rng, json.loads(content))))
    else:
        file.write_bytes(damaged(maker.rng, content))
    return words


def _select(maker: Maker, here: Path) -> Words:
    options = maker.rng.choice([[], ["--responses", "1"], ["--distinct"], ["--prompts", "0.5"]])
    return ["select", maker.rows(here, "rows", rollout), *options, *maker.options(), *maker.out(here)]


def _baseline(maker: Maker, here: Path) -> Words:
    by = maker.rng.choice(["random", "shortest", "longest", "self-consistency", "oracle"])
    return ["baseline", maker.rows(here, "rows", rollout), "--by", by, *maker.options(), *maker.out(here)]


def _eval(maker: Maker, here: Path) -> Words:
    data, scores = maker.rows(here, "rows", rollout), maker.rows(here, "scores", score)
    kind = maker.rng.choice(["best-of-n", "best-of-n", "steps"])
    words = ["eval", kind, data, "--scores", f"prm={scores}", "--draws", "100", *maker.options()]
    return [
        *words,
        *(["--n", "1,2"] if kind == "best-of-n" else []),
        *(["--json"] if maker.rng.random() < 0.3 else []),
    ]


def _leaderboard(maker: Maker, here: Path) -> Words:
    for number, example in ((0, rollout), (1, score)):
        lines = "".join(json.dumps(example(place)) + "\n" for place in range(8))
        (here / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    words = ["eval", "best-of-n", str(here / "0.jsonl"), "--scores", f"prm={here / '1.jsonl'}", "--n", "1,2"]
    with contextlib.redirect_stdout(io.StringIO()):
        stepcredit([*words, "--draws", "100", "--out", str(here / "evaluation")])
    for file in (here / "evaluation").glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        body = encoded(mutated(maker.rng, content))
        file.write_bytes(damaged(maker.rng, body) if maker.rng.random() < 0.3 else body)
    return ["eval", "leaderboard", str(here), "--out", str(here / "page.html")]


def _config(maker: Maker, here: Path) -> Words:
    content = {"graded": str(here / "none.jsonl"), "model": "m", "out": str(here / "prm"), "dry_run": True}
    content |= {"learning_rate": 1e-4, "steps": "newline", "plan": {"examples": 100, "mean_tokens": 50.0}}
    content |= {"model_parameters": 3.6e5, "model_layers": 3, "model_width": 96, "batch_size": 8}
    file = here / "config.yaml"
    text = yaml.safe_dump(mutated(maker.rng, content), allow_unicode=True).encode("utf-8", "surrogatepass")
    file.write_bytes(damaged(maker.rng, text) if maker.rng.random() < 0.3 else text)
    return ["train", "--config", str(file)]


def _recipe(maker: Maker, here: Path) -> Words:
    method = {"name": "a", "train": {"epochs": 1}, "search": [{"learning_rate": [1e-4, 2e-4]}]}
    content = {"model": "m", "train": "t", "dev": "d", "test": "e", "methods": [method], "n": [1, 2]}
    text = yaml.safe_dump(mutated(maker.rng, content), allow_unicode=True).encode("utf-8", "surrogatepass")
    (here / "recipe.yaml").write_bytes(damaged(maker.rng, text) if maker.rng.random() < 0.3 else text)
    return ["compare", str(here / "recipe.yaml"), "--out", str(here / "out")]


def _sample(maker: Maker, here: Path) -> Words:
    prompts = maker.rows(here, "prompts", EXAMPLES[maker.rng.choice(["prompts", "prompts", "verl"])], 4)
    words = ["sample", prompts, "--generator", "fake", "--num-samples", "2"]
    if maker.rng.random() < 0.3:
        words += ["--column", "answer=reward_model.ground_truth"]
    return [*words, *maker.options(), "--out", str(here / "out.jsonl")]


def _sample_server(maker: Maker, here: Path) -> Words:
    message = {"role": "assistant", "content": "7"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    maker.answer({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    (here / "prompts.jsonl").write_text('{"id": "p", "prompt": "q"}\n', encoding="utf-8")
    words = ["sample", str(here / "prompts.jsonl"), "--generator", "openai", "--base-url", maker.address]
    words += ["--model", "m", "--num-samples", "1", "--retries", "0", "--timeout", "5"]
    return [*words, "--out", str(here / "out.jsonl")]


def _score(maker: Maker, here: Path) -> Words:
    model = str(policy_path("mid"))
    words = [
        "score",
        maker.rows(here, "rows", rollout, 4),
        "--prm",
        model,
        "--reference",
        model,
        "--beta",
        "1",
    ]
    return [*words, *maker.options(), *maker.out(here)]


def _score_server(maker: Maker, here: Path) -> Words:
    numbers = [None] + [-1.0] * 30
    maker.answer({"choices": [{"text": "", "logprobs": {"token_logprobs": numbers, "tokens": ["x"] * 31}}]})
    (here / "rows.jsonl").write_text(json.dumps(rollout(0)) + "\n", encoding="utf-8")
    model = str(policy_path("mid"))
    words = ["score", str(here / "rows.jsonl"), "--prm", model, "--reference", model, "--beta", "1"]
    words += ["--policy-server", f"{maker.address}#m", "--out", str(here / "out.jsonl")]
    return words


def _card(maker: Maker, here: Path) -> Words:
    """A reward model whose ``prm.json`` is odd."""
    shutil.copytree(policy_path("mid"), here / "prm")
    content = {"format": 1, "family": "implicit", "beta": 0.5, "step_rule": "newline", "objective": "ce"}
    content |= {
        "reference": {"source": str(policy_path("mid")), "relative_path": None},
        "versions": {"a": "1"},
    }
    content |= {
        "tokenizer_hash": None,
        "template_hash": None,
        "weights_hash": None,
        "settings": {"epochs": 1},
    }
    body = encoded(mutated(maker.rng, content))
    (here / "prm" / "prm.json").write_bytes(damaged(maker.rng, body) if maker.rng.random() < 0.3 else body)
    (here / "rows.jsonl").write_text(json.dumps(rollout(0)) + "\n", encoding="utf-8")
    return ["score", str(here / "rows.jsonl"), "--prm", str(here / "prm"), "--out", str(here / "out.jsonl")]


CALLS: dict[Callable[[Maker, Path], Words], float] = {
    _convert: 35,
    _eval: 22,
    _grade: 8,
    _select: 6,
    _baseline: 6,
    _config: 6,
    _recipe: 4,
    _sample: 4,
    _resumed: 4,
    _again: 4,
    _leaderboard: 2,
    _card: 1,
    _score: 1,
    _sample_server: 0.5,
    _score_server: 0.5,
}
"""Each kind of call, and how often it is made."""
