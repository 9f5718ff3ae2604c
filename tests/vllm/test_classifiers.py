"""Classifiers through a real ``vllm serve --runner pooling``: the scores are those made here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeTokenizer
from tests.vllm.conftest import VllmServer, read_rows, tiny_config
from transformers import LlamaForSequenceClassification, LlamaForTokenClassification

from stepcredit.checkpoints import PRMCard, save_prm
from stepcredit.cli import main

TOLERANCE = 2e-4
"""Of a score: float32 on both sides, other kernels."""


@dataclass(frozen=True)
class Pooling:
    """A classifier here and on a server."""

    directory: Path
    server: VllmServer


@pytest.fixture(scope="module", params=["value-head", "token-classifier", "orm"])
def pooling(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_tokenizer: MakeTokenizer
) -> Iterator[Pooling]:
    family = request.param
    folder = tmp_path_factory.mktemp(family)
    torch.manual_seed(1)
    names = ("wrong", "right") if family == "token-classifier" else ("value",)
    config = tiny_config(id2label=dict(enumerate(names)), pad_token_id=0)
    kind = LlamaForSequenceClassification if family == "orm" else LlamaForTokenClassification
    model: Any = kind(config)
    if family != "orm":
        torch.nn.init.normal_(model.score.bias)
    tokenizer: Any = make_tokenizer()
    save_prm(model, tokenizer, PRMCard(family=family, step_rule="blank-line"), folder)
    words = [str(folder), "--served-model-name", "prm", "--runner", "pooling", "--max-num-seqs", "4"]
    server = VllmServer(words, folder.with_suffix(".log"))
    yield Pooling(folder, server)
    server.kill()


def test_scores_of_a_classifier_on_the_server_are_those_made_here(
    pooling: Pooling, rollouts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remote, local = tmp_path / "remote.jsonl", tmp_path / "local.jsonl"
    words = ["score", str(rollouts), "--prm", str(pooling.directory)]
    server = ["--classifier-server", f"{pooling.server.address}#prm"]
    assert main([*words, *server, "--out", str(remote)]) == 0, capsys.readouterr().err
    assert main([*words, "--out", str(local)]) == 0
    for theirs, ours in zip(read_rows(remote), read_rows(local), strict=True):
        assert [step["reward"] for step in theirs["steps"]] == pytest.approx(
            [step["reward"] for step in ours["steps"]], abs=TOLERANCE
        )
        assert theirs["reward"] == pytest.approx(ours["reward"], abs=TOLERANCE)
    rewards = [step["reward"] for row in read_rows(local) for step in row["steps"]]
    assert max(rewards) - min(rewards) > 100 * TOLERANCE
