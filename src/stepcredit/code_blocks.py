"""Where the blocks of statements begin in a response's fenced code.

A response is read line by line, and what a line begins depends on the lines before it only, so the beginning
of a response is cut as the whole one is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*(\w*)")
_OPENS = re.compile(
    r"(?:(?:async|export|pub|public|private|static)[ \t]+)*"
    r"(?:def|class|for|while|if|with|try|match|switch|do|fn|func|function|struct|enum|interface|impl)\b|@"
)
_CONTINUES = re.compile(r"(?:elif|else|except|finally|case|catch|default)\b|[)\]}]")
_LONG_TEXT = re.compile(r'"""|\'\'\'')
_SHORT_TEXT = re.compile(r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")
_PYTHON = ("", "python", "py", "python3", "bash", "sh", "ruby", "r")
"""Languages whose comments begin with #."""


def block_starts(response: str) -> Iterator[int]:
    """Character offsets at which a block of statements, a fence or a paragraph begins, after the first.

    A block is a compound statement with its header (a loop, a condition, a definition, each also inside of
    another), or a run of simple statements; a blank line ends a run. A header and what directly follows it
    are one block, and so are the branches of a condition's ``if`` and ``else`` with their headers. Texts and
    brackets of several lines are kept whole, and so are fence lines with the code beside them.
    """
    reader, start = _Reader(), 0
    for line in response.splitlines(keepends=True):
        if reader.begins_block(line) and start > 0:
            yield start
        start += len(line)


@dataclass(slots=True)
class _Reader:
    """What the lines so far say of the next one.

    Attributes:
        fence: What closes the code that is open; empty outside of code.
        comment: What begins a comment there.
        depth: Brackets that are open.
        quotes: What closes the text of several lines that is open; empty outside of one.
        indent: Columns before the last line of code.
        expects_body: Whether the last line of code is a header, or nothing came yet.
        after_blank: Whether a blank line came since.
    """

    fence: str = ""
    comment: str = "#"
    depth: int = 0
    quotes: str = ""
    indent: int = 0
    expects_body: bool = True
    after_blank: bool = False

    def begins_block(self, line: str) -> bool:
        """Take in a line; whether a new block, or a new paragraph of prose, begins with it."""
        text, fence = line.strip(), _FENCE.match(line)
        if self.fence:
            if fence and fence[1].startswith(self.fence) and not fence[2]:
                self.fence, self.after_blank = "", True
                return False
            return self._begins_statement(line, text)
        begins = bool(text) and self.after_blank
        self.after_blank = not text
        if fence:
            self.fence, self.comment = fence[1], "#" if fence[2].lower() in _PYTHON else "//"
            self.depth, self.quotes, self.indent, self.expects_body = 0, "", 0, True
            return True
        return begins

    def _begins_statement(self, line: str, text: str) -> bool:
        if self._is_inside():
            self._read(text)
            self.expects_body = not self._is_inside() and self._opens_body(text)
            return False
        if not text:
            self.after_blank = True
            return False
        indent = len(line) - len(line.lstrip())
        ends_last = self.after_blank or indent < self.indent or _OPENS.match(text) is not None
        begins = ends_last and not self.expects_body and not _CONTINUES.match(text)
        self.indent, self.after_blank = indent, False
        self._read(text)
        self.expects_body = not self._is_inside() and self._opens_body(text)
        return begins

    def _is_inside(self) -> bool:
        return bool(self.quotes) or self.depth > 0

    def _opens_body(self, text: str) -> bool:
        return self._bare(text).endswith((":", "{")) or text.startswith("@")

    def _read(self, text: str) -> None:
        """Follow brackets and texts of several lines."""
        while text:
            if self.quotes:
                _, closing, text = text.partition(self.quotes)
                if not closing:
                    return
                self.quotes = ""
            opening = _LONG_TEXT.search(text)
            code = self._bare(text if opening is None else text[: opening.start()])
            self.depth += sum(code.count(bracket) for bracket in "([")
            self.depth = max(0, self.depth - sum(code.count(bracket) for bracket in ")]"))
            if opening is None:
                return
            self.quotes, text = opening[0], text[opening.end() :]

    def _bare(self, text: str) -> str:
        """Code without short texts and comments."""
        return _SHORT_TEXT.sub("", text).partition(self.comment)[0].rstrip()
