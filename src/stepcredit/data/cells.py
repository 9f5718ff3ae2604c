"""Values in CSV cells: text as it is, everything else as JSON, nothing as an empty cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepcredit.data.strict_json import parse_json

_TEXT_FIELDS = frozenset(
    {"id", "prompt_id", "answer", "prediction", "policy", "tokenizer", "finish_reason", "scored_text"}
)
_MESSAGE_FIELDS = frozenset({"prompt", "completion", "chosen", "rejected", "response"})
_JSON_FIELDS = {
    "aggregates", "autopsv", "completions", "correct", "correctness", "end", "error_steps",
    "final_answer_correct", "index", "label", "labels", "mistake_index", "monte_carlo",
    "num_generated_tokens", "num_prompt_tokens", "num_tokens", "reasoning_gym", "response_token_ids",
    "reward", "sampling", "search", "step_labels", "steps", "token_ends", "token_rewards",
}  # fmt: skip


def cells_to_row(cells: Mapping[str, str]) -> dict[str, Any]:
    """Decode the cells of fields that are not text; cells of unknown fields stay text.

    A cell that should be JSON and is not stays text, for the record's validation to name it.
    """
    return {name: _decoded(name, cell) for name, cell in cells.items()}


def row_to_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Encode a row's values as cells."""
    return {name: _encoded(value) for name, value in row.items()}


def keeps_type(name: str) -> bool:
    """Whether a field's cells are read back as what they were; those of other fields become text."""
    return name in _JSON_FIELDS or name in _MESSAGE_FIELDS


def _decoded(name: str, cell: str) -> Any:
    if name in _MESSAGE_FIELDS:
        return _conversation(cell)
    if not cell and (name in _TEXT_FIELDS or name in _JSON_FIELDS):
        return None
    if name in _JSON_FIELDS:
        if cell in ("True", "False"):  # as pandas writes them
            return cell == "True"
        try:
            return parse_json(cell)
        except ValueError:
            return cell
    return cell


def _conversation(cell: str) -> Any:
    """A list of turns where the cell holds one, else the text."""
    if not cell.startswith("[{"):
        return cell
    try:
        value = parse_json(cell)
    except ValueError:
        return cell
    is_conversation = all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in value)
    return value if is_conversation else cell


def _encoded(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
