"""Answers of ``stepcredit serve`` at vLLM's addresses are read by vLLM's own classes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from starlette.testclient import TestClient
from tests.serving.conftest import PROMPT, RESPONSES, lab_scorer
from tests.vllm.conftest import program_environment, vllm_program

from stepcredit.serving.app import make_app
from stepcredit.serving.batching import Batcher
from stepcredit.serving.options import ServerOptions
from stepcredit.serving.service import Service

MESSAGES = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSES[0]}]

WRITE = """
import json, sys
from vllm.entrypoints.pooling.classify.protocol import ClassificationChatRequest
from vllm.entrypoints.pooling.pooling.protocol import PoolingChatRequest
given = dict(model="lab", messages=json.loads(sys.stdin.read()))
requests = [PoolingChatRequest(**given, task="token_classify"), ClassificationChatRequest(**given)]
print(json.dumps([request.model_dump(mode="json", exclude_none=True) for request in requests]))
"""
READ = """
import json, sys
from vllm.entrypoints.pooling.classify.protocol import ClassificationResponse
from vllm.entrypoints.pooling.pooling.protocol import PoolingResponse
pooled, classified = json.loads(sys.stdin.read())
pooled, classified = PoolingResponse.model_validate(pooled), ClassificationResponse.model_validate(classified)
assert not pooled.model_extra and not classified.model_extra
print(json.dumps([pooled.data[0].data, classified.data[0].probs, classified.data[0].label]))
"""


def _in_vllm(script: str, given: object) -> Any:
    done = subprocess.run(
        [vllm_program("python"), "-c", script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env=program_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_vllms_clients_send_is_taken_and_what_comes_back_is_read() -> None:
    batcher = Batcher(lab_scorer(), batch_tokens=4096, queue_tokens=1 << 16)
    client = TestClient(make_app(Service({"lab": batcher}, ServerOptions())))
    requests = _in_vllm(WRITE, MESSAGES)
    answers = []
    for path, request in zip(("/pooling", "/classify"), requests, strict=True):
        answer = client.post(path, json=request)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    (score,) = client.post("/v1/score", json={"prompt": PROMPT, "responses": RESPONSES[:1]}).json()["scores"]
    batcher.close()
    data, probabilities, label = _in_vllm(READ, answers)
    assert data == [[step["reward"]] for step in score["steps"]]
    assert sum(probabilities) == 1
    assert label in ("right", "wrong")
