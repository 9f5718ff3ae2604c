"""The block in which a reasoning model thinks before it answers, as text.

The opening tag may be missing from a response: many templates end with it, so that the model never writes it.
"""

from __future__ import annotations

import re
from itertools import pairwise

THINKING_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
"""What opens and what closes the block, in the spellings of several families."""

_BLOCKS = re.compile(
    # Code, to the end if it is not closed.
    r"^[ \t]*(?P<fence>```+|~~~+)[^\n]*\n(?:.*?^[ \t]*(?P=fence)[^\S\n]*$|.*)"
    r"|^[ \t]*\|[^\n]*(?:\s*\n[ \t]*\|[^\n]*)*"  # rows of a table
    # Formulas; none reaches over the start of another, so that many without an end are read once each.
    r"|\$\$.*?\$\$|\\\[(?:(?!\\\[).)*?\\\]"
    r"|\\begin\{(?P<name>[a-z*]+)\}(?:(?!\\begin\{(?P=name)\}).)*?\\end\{(?P=name)\}",
    re.MULTILINE | re.DOTALL,
)
"""What stays whole where blank lines end steps."""


_OPENING_LINES = {
    opening: re.compile(rf"^[ \t]*{re.escape(opening)}", re.MULTILINE) for opening, _ in THINKING_TAGS
}


def after_thinking(response: str) -> str | None:
    """What follows the model's thinking: the text after the last closing tag, the whole text without any.

    The opening tag may be missing, since many templates end with it.

    Returns:
        ``None`` if a block is not finished, or nothing follows it.
    """
    for opening, closing in THINKING_TAGS:
        before, tag, after = response.rpartition(closing)
        rest = after if tag else before + after
        if opening in rest and _OPENING_LINES[opening].search(rest):
            return None
        response = after
    return response if response.strip() else None


def thinking_end(response: str) -> int:
    """Where the thinking ends, its closing tag and the line end after it included.

    Returns:
        0 without thinking; the response's length where its block is not finished.
    """
    for opening, closing in THINKING_TAGS:
        end = response.find(closing)
        if end >= 0:
            return len(response) - len(response[end + len(closing) :].lstrip())
        if response.lstrip().startswith(opening):
            return len(response)
    return 0


def paragraph_starts(response: str, blank_lines: re.Pattern[str]) -> list[int]:
    """Where paragraphs after the first start: after blank lines outside of blocks, and after the thinking.

    A tag alone is none: it belongs to what it opens or closes.
    """
    starts: list[int] = []
    cut = thinking_end(response)
    for first, last in ((0, cut), (cut, len(response))):
        part = response[first:last]
        blocks = [match.span() for match in _BLOCKS.finditer(part)]
        ends = [
            match.end()
            for match in blank_lines.finditer(part)
            if not any(begin < match.end() and match.start() < end for begin, end in blocks)
        ]
        # Whether a tag stands alone before or after a place.
        pieces = [part[begin:end].strip() for begin, end in pairwise([0, *ends, len(part)])]
        starts += [first] if first else []
        for place, (before, after) in zip(ends, pairwise(pieces), strict=True):
            opens = any(before == opening for opening, _ in THINKING_TAGS)
            closes = any(after == closing for _, closing in THINKING_TAGS)
            starts += [] if opens or closes else [first + place]
    return starts


def opened_block(prompt: str) -> str:
    """What a prompt ends with that opens the model's thinking, or shows it as empty.

    Args:
        prompt: The formatted prompt, up to where the response starts.

    Returns:
        The tag with the white space after it, or an empty block with all white space; ``""`` where the
        prompt opens none.
    """
    for opening, closing in THINKING_TAGS:
        match = re.search(rf"{re.escape(opening)}\s*(?:{re.escape(closing)}\s*)?\Z", prompt)
        if match is not None:
            return match[0]
    return ""


def repeated_opening(response: str, opened: str) -> int:
    """How many characters of a response repeat what its prompt ends with, white space aside.

    Args:
        opened: What :func:`opened_block` gives for its prompt.
    """
    for opening, closing in THINKING_TAGS:
        if not opened.startswith(opening):
            continue
        pattern = re.escape(opening)
        if opened.rstrip().endswith(closing):
            pattern += rf"\s*{re.escape(closing)}"
        match = re.match(rf"\s*{pattern}", response)
        if match is None:
            return 0
        blanks = opened[len(opened.rstrip()) :]
        end = match.end()
        while blanks and response[end : end + 1] == blanks[0]:
            end, blanks = end + 1, blanks[1:]
        return end
    return 0


def lost_opening(response: str) -> str:
    """The opening tag that a response has lost, as models write it: with a line end after it.

    A response that closes a block and never opened it was drawn after a prompt that did.

    Returns:
        ``""`` where none is missing.
    """
    for opening, closing in THINKING_TAGS:
        before, tag, _ = response.partition(closing)
        if tag and opening not in before:
            return opening if before.startswith(("\n", "\r")) else f"{opening}\n"
    return ""
