"""``stepcredit serve`` as a process: other commands use it, and it ends as it is asked to."""

from __future__ import annotations

import concurrent.futures
import json
import socket
import time
from pathlib import Path

import pytest
from tests.processes import Server

from stepcredit.cli import main
from stepcredit.client import Client
from stepcredit.errors import UserError
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.pipelines import serve
from stepcredit.pipelines.serve import Options
from stepcredit.serving.options import ServerOptions

MODEL = ["--prm", str(policy_path("strong")), "--reference", str(policy_path("mid")), "--beta", "0.5"]
WORDS = [*MODEL, "--steps", "newline"]
PROMPT, RESPONSE = "7*8+5-3=", "7*8=6\n6+5=1\n1-3=8\n#8"


@pytest.mark.slow
def test_score_and_search_use_a_server_as_they_use_a_model(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"id": prompt.id, "prompt": prompt.prompt, "answer": prompt.answer}
        for prompt in make_prompts("train", seed=0, count=2)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    policy = ["--model", str(policy_path("mid")), "--max-new-tokens", "64"]
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("here", "there", "scores", "remote")}
    search = ["search", str(prompts), *policy, "--width", "8"]
    assert main([*search, *MODEL, "--steps", "newline", "--out", files["here"]]) == 0
    assert main(["score", files["here"], *MODEL, "--steps", "newline", "--out", files["scores"]]) == 0
    with Server(WORDS, tmp_path / "log") as server:
        assert main([*search, "--prm", server.address, "--out", files["there"]]) == 0
        assert main(["score", files["there"], "--prm", server.address, "--out", files["remote"]]) == 0
    for ours, theirs in (("here", "there"), ("scores", "remote")):
        left, right = (
            [json.loads(line) for line in Path(files[name]).read_text().splitlines()]
            for name in (ours, theirs)
        )
        assert [row.get("response") for row in left] == [row.get("response") for row in right]
        assert [row.get("reward") for row in left] == pytest.approx([row.get("reward") for row in right])


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_it_ends(tmp_path: Path) -> None:
    server = Server([*WORDS, "--batch-tokens", "40"], tmp_path / "log")
    with concurrent.futures.ThreadPoolExecutor(8) as pool, Client(server.address, retries=0) as client:
        client.score(PROMPT, [RESPONSE])
        asked = [pool.submit(client.score, PROMPT, [RESPONSE] * 32) for _ in range(8)]
        time.sleep(0.05)
        server.ask_to_end()
        answered = 0
        for future in asked:
            error = future.exception(timeout=60)  # Some may have come too late to be accepted.
            assert error is None or "does not answer" in str(error)
            answered += error is None
    said = server.end()
    assert said.splitlines()[-1] == f"ended, {answered + 1} requests answered"
    assert "Traceback" not in said


@pytest.mark.slow
def test_killed_and_started_again_under_load_every_request_is_answered(tmp_path: Path) -> None:
    first = Server(WORDS, tmp_path / "first.log")
    port = first.address.rpartition(":")[2]
    with concurrent.futures.ThreadPoolExecutor(4) as pool, Client(first.address, retries=12) as client:
        asked = [pool.submit(client.score, PROMPT, [RESPONSE]) for _ in range(60)]
        time.sleep(0.1)
        first.process.kill()
        first.process.join()
        second = Server([*WORDS, "--port", port], tmp_path / "second.log")
        assert len({future.result(timeout=120)[0].reward for future in asked}) <= 3
    second.end()


def test_only_this_machine_is_listened_to_unless_another_address_is_named() -> None:
    for options, expected in (
        (ServerOptions(port=0), "127.0.0.1"),
        (ServerOptions(host="::1", port=0), "::1"),
    ):
        with serve.listen(options) as listener:
            assert listener.getsockname()[0] == expected


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: the server cannot listen there"):
            serve.run(Options(prm="anything", server=ServerOptions(port=port)))
    with pytest.raises(UserError, match="the server cannot listen there"):
        serve.run(Options(prm="anything", server=ServerOptions(host="no such host", port=0)))
    with pytest.raises(UserError, match="--port: must be between"):
        ServerOptions(port=70000)
    monkeypatch.setenv("STEPCREDIT_TOKEN", "two words")
    with pytest.raises(UserError, match="STEPCREDIT_TOKEN: must be printable ASCII"):
        serve.run(Options(prm="anything", server=ServerOptions(port=0)))
    monkeypatch.delenv("STEPCREDIT_TOKEN")
    with pytest.raises(UserError, match="nothing-here"):
        serve.run(Options(prm=str(tmp_path / "nothing-here"), server=ServerOptions(port=0)))
    assert main(["score", "x.jsonl", "--prm", "http://127.0.0.1:9", "--beta", "1", "--out", "y.jsonl"]) == 2
