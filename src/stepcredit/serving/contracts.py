"""What other trainers and servers already speak, so that their programs need another address only.

OpenRLHF sends prompt and response as one text in the model's chat format to a remote reward model. vLLM
serves reward models at ``/pooling`` (numbers) and ``/classify`` (probabilities).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from stepcredit.data.messages import response_turns
from stepcredit.serving.chat_text import ChatText
from stepcredit.serving.errors import RequestError
from stepcredit.serving.schemas import ErrorAnswer, PoolingRequest, RewardRequest
from stepcredit.serving.service import Service
from stepcredit.stats import sigmoid
from stepcredit.types import ResponseScore, Rollout
from stepcredit.wording import quantity

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 401, 404, 413, 422, 429, 503)
}
"""What every route may answer instead, for OpenAPI."""


def add_contracts(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    texts = {name: ChatText(batcher.scorer) for name, batcher in service.batchers.items()}

    @app.post("/get_reward", tags=["contracts"], responses=REFUSALS)
    async def get_reward(request: RewardRequest) -> JSONResponse:
        """OpenRLHF's remote reward: one number per text."""
        name, batcher = service.pick(None)
        prompts = request.prompts
        if prompts is not None and len(prompts) != len(request.query):
            raise RequestError(
                422,
                f"{quantity(len(prompts), 'prompt')} for {quantity(len(request.query), 'text')}",
                "prompts",
            )
        rollouts = [
            texts[name].rollout(text, f"query.{place}", None if prompts is None else prompts[place])
            for place, text in enumerate(request.query)
        ]
        rewards = [score.reward for score in await service.score(batcher, rollouts, "query")]
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})

    @app.post("/pooling", tags=["contracts"], responses=REFUSALS)
    async def pooling(request: PoolingRequest) -> JSONResponse:
        """As vLLM's: for each text a vector with one number, its reward, per step."""
        name, scores = await _pooled(service, texts, request)
        data = [
            {"index": place, "object": "pooling", "data": [[step.reward] for step in score.steps]}
            for place, score in enumerate(scores)
        ]
        return JSONResponse(_listed("pool", name, data, scores))

    @app.post("/classify", tags=["contracts"], responses=REFUSALS)
    async def classify(request: PoolingRequest) -> JSONResponse:
        """As vLLM's for a classifier of two: the sigmoid of the response's reward is that of being right."""
        name, scores = await _pooled(service, texts, request)
        data = []
        for place, score in enumerate(scores):
            right = float(sigmoid(np.array(score.reward)))
            label = "right" if right >= 0.5 else "wrong"
            data.append({"index": place, "label": label, "probs": [1 - right, right], "num_classes": 2})
        return JSONResponse(_listed("classify", name, data, scores))


async def _pooled(
    service: Service, texts: dict[str, ChatText], request: PoolingRequest
) -> tuple[str, list[ResponseScore]]:
    name, batcher = service.pick(request.model)
    if (request.input is None) == (request.messages is None):
        raise RequestError(422, "give either input or messages", "input")
    if request.messages is not None:
        *prompt, answer = request.messages
        if answer.role != "assistant":
            raise RequestError(422, "the last message must be the assistant's", "messages")
        turns: Any = [turn.model_dump() for turn in prompt]
        # Its thinking and calls of tools are a part of it, as they are in /v1/score.
        text, own = response_turns([answer.model_dump()], "messages", "")
        rollouts = [Rollout(id="0", prompt_id="0", prompt=turns, response=text, turns=own)]
        return name, await service.score(batcher, rollouts, "messages")
    assert request.input is not None
    inputs = [request.input] if isinstance(request.input, str) else request.input
    rollouts = [texts[name].rollout(text, f"input.{place}") for place, text in enumerate(inputs)]
    return name, await service.score(batcher, rollouts, "input")


def _listed(kind: str, model: str, data: list[Any], scores: Sequence[ResponseScore]) -> dict[str, Any]:
    tokens = sum(score.num_tokens for score in scores)
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }
