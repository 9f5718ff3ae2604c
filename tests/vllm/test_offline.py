"""vLLM's engine in a process of its own: sampling by the command, log-probabilities by the library."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.vllm.conftest import (
    DTYPE,
    PROMPTS,
    RESPONSES,
    Models,
    program_environment,
    read_rows,
    vllm_program,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

import stepcredit
from stepcredit.cli import main
from stepcredit.logprobs import LocalTokenLogProbs
from stepcredit.types import Encoded

SOURCE = Path(stepcredit.__file__).parents[1]

SCORE = """
import json, sys
from vllm import LLM
from stepcredit.logprobs.vllm import VLLMTokenLogProbs
from stepcredit.types import Encoded

def main():
    model, rows = json.loads(sys.stdin.read())
    engine = LLM(model, dtype="DTYPE", enforce_eager=True, enable_prefix_caching=False, max_model_len=1024)
    source = VLLMTokenLogProbs(engine, weights_hash="hash", gather=False)
    values = source.of([Encoded(tuple(tokens), start) for tokens, start in rows])
    print("VALUES " + json.dumps([[float(value) for value in row] for row in values]))

if __name__ == "__main__":
    main()
""".replace("DTYPE", DTYPE)


def _run(words: list[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = program_environment() | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [vllm_program("python"), *words],
        input=given,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_the_engine_draws_the_likeliest_tokens_and_says_that_it_takes_no_seeds(
    prompts: Path, tmp_path: Path, models: Models
) -> None:
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    words = [
        *("sample", str(prompts), "--model", str(models.base), "--temperature", "0", "--num-samples", "1"),
        *("--max-new-tokens", "24"),
    ]
    done = _run(["-m", "stepcredit", *words, "--generator", "vllm", "--dtype", DTYPE, "--out", str(there)])
    assert "vLLM takes no seeds on a CPU" in done.stderr
    assert main([*words, "--out", str(here)]) == 0
    ours, theirs = (read_rows(path) for path in (here, there))
    assert [row["response_token_ids"] for row in theirs] == [row["response_token_ids"] for row in ours]


def test_the_engines_log_probabilities_are_those_made_here(tmp_path: Path, models: Models) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models.base)
    encoded = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        head, tail = tokenizer(prompt)["input_ids"], tokenizer(response)["input_ids"]
        encoded.append(Encoded((*head, *tail), len(head)))
    script = tmp_path / "score.py"
    script.write_text(SCORE, encoding="utf-8")
    rows = [[list(item.token_ids), item.scored_start] for item in encoded]
    done = _run([str(script)], json.dumps([str(models.base), rows]))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("VALUES ")]
    model = AutoModelForCausalLM.from_pretrained(models.base, dtype=getattr(torch, DTYPE))
    local = LocalTokenLogProbs(model, weights_hash="hash").of(encoded)
    for theirs, ours in zip(json.loads(line.removeprefix("VALUES ")), local, strict=True):
        assert theirs == pytest.approx(ours.astype(np.float64), abs=2e-4)
