"""vLLM's part of a benchmark: runs in vLLM's own environment and imports nothing of stepcredit's.

Started with one JSON argument; prints one line of JSON when the engine is ready and one for each line that
it reads: ``sample`` or ``score``. Ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Load the engine, then answer."""
    settings = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    vllm: Any = importlib.import_module("vllm")  # first: it is what may be missing
    import torch

    torch.set_num_threads(settings["threads"])
    engine = vllm.LLM(
        model=settings["model"],
        dtype=settings["dtype"],
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=True,
        max_model_len=settings["context"],
        disable_log_stats=True,
    )
    _say(answers, {"ready": True})
    for line in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        outcome = (_sample if line.strip() == "sample" else _score)(vllm, engine, settings)
        outcome |= {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mb": _peak_mb(),
        }
        _say(answers, outcome)


def _say(answers: Any, outcome: dict[str, Any]) -> None:
    print(json.dumps(outcome), file=answers, flush=True)


def _sample(vllm: Any, engine: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Every sample as a request of its own, so that the first one to end can be timed."""
    draw = vllm.SamplingParams(
        temperature=1.0,
        top_p=settings["top_p"],
        max_tokens=settings["max_new_tokens"],
        stop_token_ids=settings["end_tokens"],
        detokenize=False,
    )
    start, first, tokens = time.perf_counter(), None, 0
    for number, prompt in enumerate(settings["prompts"]):
        for sample in range(settings["samples"]):
            engine.llm_engine.add_request(f"{number}-{sample}", {"prompt_token_ids": prompt}, draw)
    while engine.llm_engine.has_unfinished_requests():
        for output in engine.llm_engine.step():
            if output.finished:
                first = first or time.perf_counter() - start
                tokens += len(output.outputs[0].token_ids)
    return {"tokens": tokens, "first_row_seconds": first}


def _score(vllm: Any, engine: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Sums of the log-probabilities of each sequence's tokens after its prompt."""
    read = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    asked = [{"prompt_token_ids": item["tokens"]} for item in settings["sequences"]]
    sums = []
    for item, output in zip(settings["sequences"], engine.generate(asked, read, use_tqdm=False), strict=True):
        places = range(item["start"], len(item["tokens"]))
        sums.append(sum(output.prompt_logprobs[place][item["tokens"][place]].logprob for place in places))
    return {"log_probs": sums}


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main()
