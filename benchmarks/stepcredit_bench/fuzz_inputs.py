"""Files that are almost right: rows of every format with one value changed, bytes with one bit flipped."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = dict[str, Any]


_DEPTHS = (150, 900, 5000)


def encoded(value: Any, *, ascii_only: bool = True) -> bytes:
    """A value as JSON; the text ``<nested N>`` becomes N lists one inside the other."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    for depth in _DEPTHS:
        text = text.replace(f'"<nested {depth}>"', "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


def odd_values() -> list[Any]:
    """Values that a field seldom holds."""
    numbers = [0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 1e-320, 7.0]
    texts = ["", " ", "7", "true", "null", "é", "\0", "\ud800", "\r\n", "a" * 3000, "NaN", "-1", "{}", "[1]"]
    not_finite = [float("nan"), float("inf"), float("-inf")]
    nested = [f"<nested {depth}>" for depth in _DEPTHS]
    rest: list[Any] = [None, True, False, [], {}, [[]], [None], {"": None}, [1, "a", None], {"role": "user"}]
    return [*numbers, *texts, *not_finite, *nested, *rest]


def mutated(rng: random.Random, value: Any) -> Any:
    """A copy with one change somewhere inside: a value replaced, removed, repeated or added."""
    value = copy.deepcopy(value)
    holders = [holder for holder in _inside(value) if holder]
    if not holders:
        return rng.choice(odd_values())
    # The outermost places are few and matter most.
    holder = holders[0] if rng.random() < 0.3 else rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    change = rng.random()
    if change < 0.7:
        holder[key] = rng.choice(odd_values())
    elif change < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[rng.choice(["extra", key + "s", ""])] = rng.choice(odd_values())
    return value


def _inside(value: Any) -> list[Any]:
    if not isinstance(value, dict | list):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(holder for item in inner for holder in _inside(item))]


_TURN = {"role": "user", "content": "7*8+5="}
_RIGHT, _WRONG = "7*8=6\n6+5=1\n#1", "7*8=5\n5+5=0\n#0"


def rollout(number: int) -> Row:
    """A graded and labelled rollout."""
    right = number % 2 == 0
    return {
        "id": f"r{number}",
        "prompt_id": f"p{number // 4}",
        "index": number % 4,
        "prompt": [_TURN] if number % 3 else "7*8+5=",
        "response": _RIGHT if right else _WRONG,
        "answer": "1",
        "correct": right,
        "prediction": "1" if right else "0",
        "finish_reason": "stop",
        "policy": "mid",
        "sampling": {"temperature": 1.0, "seed": 0},
        "step_labels": [{"end": 6, "label": float(right)}, {"end": 12, "label": 0.5}],
        "note": {"source": ["made up"]},
    }


def score(number: int) -> Row:
    """The score of a rollout."""
    text, sign = (_RIGHT, 1.0) if number % 2 == 0 else (_WRONG, -1.0)
    ends = [0, 6, 12, len(text)]
    steps = [
        {"index": i, "text": text[a:b], "start": a, "end": b, "reward": sign, "value": sign * (i + 1)}
        for i, (a, b) in enumerate(pairwise(ends))
    ]
    row = {"id": f"r{number}", "prompt_id": f"p{number // 4}", "reward": 3 * sign, "steps": steps}
    return {**row, "aggregates": {"min": sign, "sum": 3 * sign}, "num_tokens": 9, "scorer": "made up"}


def _trl(number: int) -> Row:
    answer = [{"role": "assistant", "content": "2"}]
    return {"prompt": [_TURN], "chosen": answer, "rejected": [{**answer[0], "content": "3"}], "id": number}


def _prm800k(number: int) -> Row:
    completion = {"text": "1+1=2", "rating": number % 3 - 1}
    step = {"completions": [completion], "chosen_completion": 0, "human_completion": None}
    label = {"steps": [step, step], "finish_reason": "solution"}
    return {"question": {"problem": "1+1=", "ground_truth_answer": "2"}, "label": label}


def _verl(number: int) -> Row:
    checker = {"style": "rule", "ground_truth": "1"}
    return {"data_source": "d", "prompt": [_TURN], "reward_model": checker, "extra_info": {"index": number}}


_STEPS = {"steps": ["1+1=2", "so 2"]}
EXAMPLES: dict[str, Callable[[int], Row]] = {
    "prompts": lambda number: {"id": f"p{number}", "prompt": "7*8+5=", "answer": "1", "level": 2},
    "rollouts": rollout,
    "ultrainteract": lambda _: {"prompt": "q", "completions": ["a", "b"], "correctness": [True, 0]},
    "ultrafeedback": lambda _: {"instruction": "q", "completions": [{"response": "a", "model": "m"}]},
    "trl-preference": _trl,
    "trl-unpaired": lambda _: {"prompt": "1+1=", "completion": "2", "label": True},
    "trl-stepwise": lambda _: {"prompt": "1+1=", "completions": ["1+1", "2"], "labels": [True, False]},
    "openrlhf-ce": lambda number: {
        "id": f"o{number}",
        "response": [_TURN, {"role": "assistant", "content": "2"}],
        "label": 1,
    },
    "verl": _verl,
    "prm800k": _prm800k,
    "math-shepherd": lambda _: {"input": "1+1= Step 1: 2 ки", "label": "1+1= Step 1: 2 +"},
    "processbench": lambda number: {"id": f"x{number}", "problem": "q", **_STEPS, "label": number % 3 - 1},
    "prmbench": lambda number: {
        "idx": f"x{number}",
        "modified_question": "q",
        "modified_process": ["a", "b"],
        "error_steps": [2],
    },
    "bigbench-mistake": lambda _: {"input": "q", **_STEPS, "mistake_index": 1, "target": "2", "answer": "2"},
    "implicitprm-bon": lambda number: {"idx": f"x{number // 2}", "prompt": "q", "response": "2"},
}


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with a bit flipped, a part cut out, or something put in."""
    place = rng.randrange(len(content) + 1)
    change = rng.random()
    if change < 0.4 and content:
        flipped = bytearray(content)
        flipped[place % len(content)] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if change < 0.6:
        return content[:place]
    if change < 0.75:
        return content[:place] + content[place + rng.randrange(1, 40) :]
    insertions = [b"\xff", b"\0", b"\n", b"NaN", b"[" * 3000, b"\xef\xbb\xbf", b",", b'"', b"1" * 5000]
    return content[:place] + rng.choice(insertions) + content[place:]


def write_rows(rng: random.Random, stem: Path, rows: list[Row]) -> Path:
    """Write rows as a file of any kind, sometimes damaged; gives its path."""
    kind = rng.choice(["jsonl"] * 5 + ["json", "jsonl.gz", "csv", "parquet"])
    path = stem.with_name(f"{stem.name}.{kind}")
    if kind == "parquet" and _write_parquet(path, rows):
        content = path.read_bytes()
    elif kind == "csv":
        content = _csv(rows)
    else:
        if kind == "parquet":
            path = stem.with_name(f"{stem.name}.jsonl")
        lines = [encoded(row, ascii_only=rng.random() < 0.5) for row in rows]
        content = b"\n".join(lines) + b"\n"
        content = b"[" + b", ".join(lines) + b"]" if kind == "json" else content
        content = gzip.compress(content, mtime=0) if kind == "jsonl.gz" else content
    path.write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
    return path


def _write_parquet(path: Path, rows: list[Row]) -> bool:
    """Whether the rows can be a table at all."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True


def _csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {name: item if isinstance(item, str) else json.dumps(item) for name, item in row.items()}
        )
    return text.getvalue().encode("utf-8", "surrogatepass")
