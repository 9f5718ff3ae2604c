"""What servers say of a response's end."""

from __future__ import annotations

from collections.abc import Mapping

from stepcredit.types import FinishReason

_ENDED = ("stop", "eos", "eos_token", "eos_token_id", "stop_sequence", "stop_word", "end_turn", "complete")
_CUT_OFF = ("length", "max_tokens", "max_length", "max_new_tokens", "model_length", "limit")
_NEITHER = (
    *("tool_calls", "tool_call", "tool_use", "function_call", "pause_turn", "content_filter", "safety"),
    *("refusal", "recitation", "abort", "aborted", "cancelled", "canceled", "error", "repetition", "unknown"),
)
FINISH_REASONS: Mapping[str, FinishReason | None] = {
    **dict.fromkeys(_ENDED, "stop"),
    **dict.fromkeys(_CUT_OFF, "length"),
    **dict.fromkeys(_NEITHER, None),
}
"""What servers say of a response's end, in lower case, to what it means here; ``None`` says neither."""
