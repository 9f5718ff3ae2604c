"""A real vLLM, in an environment of its own that ``STEPCREDIT_VLLM`` names (``make test-vllm`` makes it).

Without the variable these tests are not collected. The models are small random Llamas with heads that vLLM's
attention for CPUs takes. One server holds the base and, by name, an adapter on it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.conftest import MakeTokenizer
from transformers import LlamaConfig, LlamaForCausalLM

ENVIRONMENT = os.environ.get("STEPCREDIT_VLLM")
START_SECONDS = float(os.environ.get("STEPCREDIT_VLLM_START_SECONDS", "900"))
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
DTYPE = "float32"

collect_ignore_glob = [] if ENVIRONMENT else ["test_*.py"]


def vllm_program(name: str) -> str:
    """A program of vLLM's environment."""
    assert ENVIRONMENT is not None
    return str(Path(ENVIRONMENT).resolve() / "bin" / name)


def program_environment() -> dict[str, str]:
    """Environment variables for vLLM's programs, which must not see this environment's packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | SETTINGS


@dataclass(frozen=True)
class Models:
    """Directories of a checkpoint and of an adapter on it."""

    base: Path
    tuned: Path


def tiny_config(**changes: Any) -> LlamaConfig:
    """Of two layers, with heads that vLLM's attention for CPUs takes."""
    sizes = {
        "vocab_size": 340,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "initializer_range": 0.1,
    }
    return LlamaConfig(**{**sizes, **changes})


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, make_tokenizer: MakeTokenizer) -> Models:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    base: Any = LlamaForCausalLM(tiny_config())
    base.save_pretrained(folder / "base")
    base.name_or_path = str(folder / "base")
    lora = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(base, lora).save_pretrained(str(folder / "tuned"))
    for name in ("base", "tuned"):
        make_tokenizer().save_pretrained(str(folder / name))
    return Models(folder / "base", folder / "tuned")


class VllmServer:
    """``vllm serve`` on loopback.

    Args:
        words: Of the command, from the model on.
        log: Gets what it prints.
        port: Where it listens; by default one that is free.

    Attributes:
        address: With version.
    """

    def __init__(self, words: Sequence[str], log: Path, *, port: int | None = None) -> None:
        self.port = _free_port() if port is None else port
        self.address = f"http://127.0.0.1:{self.port}/v1"
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [
                    *(vllm_program("vllm"), "serve", *words),
                    *("--dtype", DTYPE, "--enforce-eager", "--max-model-len", "1024"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                ],
                env=program_environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(1)

    def kill(self) -> None:
        """End it and the engine that it started, as a power cut would."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        self.process.kill()
        self.process.wait()
        for child in children.stdout.split():
            subprocess.run(["kill", "-9", child], check=False, stderr=subprocess.DEVNULL)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.address.removesuffix("/v1") + "/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def language_models(models: Models) -> list[str]:
    """What a server of the base and its adapter is started with."""
    return [
        *(
            str(models.base),
            "--served-model-name",
            "base",
            "--enable-scale-out",
            "--no-enable-prefix-caching",
        ),
        *("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"tuned={models.tuned}"),
        # vLLM 0.32 with adapters ends over log-probabilities of several requests' prompts.
        *("--max-num-seqs", "1"),
    ]


@pytest.fixture(scope="session")
def server(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    server = VllmServer(language_models(models), tmp_path_factory.mktemp("vllm") / "log.txt")
    yield server
    server.kill()


PROMPTS = ["Tom had 3 boxes with 12 pens each.", "First add the numbers.", "He gave away 9 pens."]
RESPONSES = [
    "Step 1: 3 * 12 = 36 pens.\n\nStep 2: That leaves 36 - 9 = 27 pens.\n\nThe answer is 27.",
    "Then take half of them.\n\nAnd so on, step by step.",
    "The answer is 3.",
]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of prompts."""
    rows = [{"id": f"p{place}", "prompt": text, "answer": "27"} for place, text in enumerate(PROMPTS)]
    return write_rows(tmp_path / "prompts.jsonl", rows)


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    """A file of responses, three to each prompt."""
    rows = [
        {"id": f"{prompt}:{place}", "prompt_id": prompt, "prompt": prompt, "response": response}
        for prompt in PROMPTS
        for place, response in enumerate(RESPONSES)
    ]
    return write_rows(tmp_path / "rollouts.jsonl", rows)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """From JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
