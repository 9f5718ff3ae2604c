"""What was left out of training, in words. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Mapping

from stepcredit.wording import agree, quantity

HELDOUT = "heldout_"
"""Start of the names that count held-out rollouts."""

_OF_ROLLOUTS = {
    "not_graded": "not graded",
    "no_step_labels": "without step labels",
    "too_long": "too long",
    "truncated": "cut after the last whole step that fits",
    "prompt_not_prefix": "merging with the prompt's last token",
    "nothing_to_score": "without a token to score",
    "tokens_do_not_match": "with the token ids of another text",
    "tag_in_response": "with the model's own tag in the text",
    "not_encodable": "that the chat template refuses",
    "dropped_by_balancing": "dropped by balancing",
    "skipped_invalid": "malformed and skipped",
}


def left_out(counts: Mapping[str, int], *, start: str = "") -> list[str]:
    """In words what was left out or cut: ``3 not graded``, ``1 pair that does not differ``.

    Args:
        counts: As :func:`make_training_set` fills them.
        start: Of the names that are looked at.
    """
    counts = {name.removeprefix(start): number for name, number in counts.items() if name.startswith(start)}
    words = [f"{counts[name]:,} {what}" for name, what in _OF_ROLLOUTS.items() if counts.get(name)]
    if number := counts.get("prompts_all_right", 0):
        words.append(f"{quantity(number, 'prompt')} with right responses only")
    if number := counts.get("prompts_all_wrong", 0):
        words.append(f"{quantity(number, 'prompt')} with wrong responses only")
    if number := counts.get("pairs_that_do_not_differ", 0):
        words.append(f"{quantity(number, 'pair')} that {agree(number, 'does', 'do')} not differ")
    if number := counts.get("pairs_over_limit", 0):
        words.append(f"{quantity(number, 'pair')} over the limit per prompt")
    return words
