"""Sampling, scoring and search through a real vLLM server, and what happens when it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.vllm.conftest import Models, VllmServer, language_models, read_rows

from stepcredit.cli import main

TOLERANCE = 2e-4
"""Of a reward with a beta of 1: float32 on both sides, other kernels."""


def _sample(prompts: Path, out: Path, server: VllmServer, models: Models, *words: str) -> list[str]:
    return [
        *("sample", str(prompts), "--generator", "openai", "--base-url", server.address, "--out", str(out)),
        *("--tokenizer", str(models.base), "--no-request-seeds", "--max-new-tokens", "24", *words),
    ]


def _texts(path: Path) -> dict[str, str]:
    """Responses by prompt; a server leaves out the half of a character at which it was cut off."""
    return {row["prompt_id"]: row["response"].rstrip("\ufffd") for row in read_rows(path)}


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_likeliest_tokens_are_those_drawn_here(
    api: str, prompts: Path, tmp_path: Path, server: VllmServer, models: Models
) -> None:
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    words = ["--model", "base", "--api", api, "--temperature", "0", "--num-samples", "1"]
    assert main(_sample(prompts, there, server, models, *words)) == 0
    local = ["sample", str(prompts), "--model", str(models.base), "--temperature", "0", "--num-samples", "1"]
    assert main([*local, "--max-new-tokens", "24", "--out", str(here)]) == 0
    assert _texts(there) == _texts(here)
    assert {row["finish_reason"] for row in read_rows(there)} <= {"stop", "length"}


def test_an_adapter_is_sampled_by_its_name(
    prompts: Path, tmp_path: Path, server: VllmServer, models: Models
) -> None:
    there, here = tmp_path / "there.jsonl", tmp_path / "here.jsonl"
    words = ["--model", "tuned", "--temperature", "0", "--num-samples", "1"]
    assert main(_sample(prompts, there, server, models, *words)) == 0
    local = ["sample", str(prompts), "--model", str(models.tuned), "--temperature", "0", "--num-samples", "1"]
    assert main([*local, "--max-new-tokens", "24", "--out", str(here)]) == 0
    assert _texts(there) == _texts(here)


def test_many_samples_of_a_prompt_differ(
    prompts: Path, tmp_path: Path, server: VllmServer, models: Models
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(_sample(prompts, out, server, models, "--model", "base", "--num-samples", "8")) == 0
    rows = read_rows(out)
    assert len(rows) == 3 * 8
    assert len({row["response"] for row in rows}) > 12


def _score(rollouts: Path, out: Path, server: VllmServer, models: Models, interface: str) -> list[str]:
    servers = ["--policy-server", f"{server.address}#tuned", "--reference-server", f"{server.address}#base"]
    return [
        *("score", str(rollouts), "--prm", str(models.base), "--beta", "1", "--steps", "blank-line"),
        *("--tokens", *servers, "--server-interface", interface, "--out", str(out)),
    ]


@pytest.mark.parametrize("interface", ["echo", "prompt-logprobs"])
def test_scores_by_every_interface_are_those_made_here(
    interface: str,
    rollouts: Path,
    tmp_path: Path,
    server: VllmServer,
    models: Models,
    capsys: pytest.CaptureFixture[str],
) -> None:
    remote, local = tmp_path / "remote.jsonl", tmp_path / "local.jsonl"
    assert main(_score(rollouts, remote, server, models, interface)) == 0, capsys.readouterr().err
    words = ["--prm", str(models.tuned), "--beta", "1", "--steps", "blank-line", "--tokens"]
    assert main(["score", str(rollouts), *words, "--out", str(local)]) == 0
    for theirs, ours in zip(read_rows(remote), read_rows(local), strict=True):
        assert theirs["id"] == ours["id"]
        assert theirs["token_rewards"] == pytest.approx(ours["token_rewards"], abs=TOLERANCE)
        assert theirs["reward"] == pytest.approx(ours["reward"], abs=TOLERANCE)
        assert abs(ours["reward"]) > 100 * TOLERANCE


def test_what_this_vllm_cannot_do_is_said_in_one_line(
    rollouts: Path, tmp_path: Path, server: VllmServer, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    """``token-ids`` needs vLLM's second model runner, which needs Triton, which has nothing for CPUs."""
    assert main(_score(rollouts, tmp_path / "out.jsonl", server, models, "token-ids")) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "requires the V2 model runner" in line


def test_search_is_guided_by_models_on_the_server(
    prompts: Path, tmp_path: Path, server: VllmServer, models: Models
) -> None:
    out = tmp_path / "out.jsonl"
    policy = ["--generator", "openai", "--api", "completions", "--model", "base", "--no-request-seeds"]
    prm = ["--policy-server", f"{server.address}#tuned", "--reference-server", f"{server.address}#base"]
    words = [
        *("search", str(prompts), *policy, "--base-url", server.address, "--tokenizer", str(models.base)),
        *("--prm", str(models.base), "--beta", "1", "--steps", "sentence", *prm, "--strategy", "beam"),
        *("--width", "4", "--max-new-tokens", "40", "--grader", "exact", "--out", str(out)),
    ]
    assert main(words) == 0
    rows = read_rows(out)
    assert {row["prompt_id"] for row in rows} == {"p0", "p1", "p2"}
    trees = read_rows(tmp_path / "out.jsonl.trees.jsonl")
    assert len(trees) == 3
    assert "nodes" in json.dumps(trees[0])


def test_a_server_that_dies_is_one_line_and_the_run_goes_on_with_the_next(
    prompts: Path, tmp_path: Path, server: VllmServer, models: Models
) -> None:
    """Last in this file: the session's server is the one that dies."""
    out = tmp_path / "out.jsonl"
    words = _sample(
        *(prompts, out, server, models, "--model", "base", "--num-samples", "400"),
        *("--retries", "1", "--concurrency", "4"),
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "stepcredit", *words], stderr=subprocess.PIPE, env=dict(os.environ), text=True
    )
    until = time.monotonic() + 300
    while not any(path.stat().st_size > 2000 for path in tmp_path.glob("out.jsonl*")):
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    server.kill()
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 2
    assert "cannot be reached" in errors
    assert "continues from here" in errors
    assert "Traceback" not in errors
    again = VllmServer(language_models(models), server.log, port=server.port)
    try:
        assert main(words) == 0
    finally:
        again.kill()
    assert len({row["id"] for row in read_rows(out)}) == 3 * 400
