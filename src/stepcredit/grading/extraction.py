r"""Finding the final answer in a response: pure text, linear time, no parsing of mathematics.

What a model thinks before it answers is left out first (:mod:`stepcredit.thinking`). Then, in order of
precedence: a box (``\boxed{...}``), a ``####`` line or ``<answer>...</answer>``, whichever comes last; a
stated answer ("the answer is ...", ``Answer:``, a line that starts with ``A:``); and, if asked for, the last
formula or number of the text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from stepcredit.errors import UserError
from stepcredit.grading.notation import normalized
from stepcredit.grading.units import read_unit
from stepcredit.thinking import after_thinking

_ANSWER_TAG = re.compile(r"<answer>(?P<text>[^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BARE_BOX = re.compile(r"[^\s${}\\]+")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN_BOXES = re.compile(r"[\s$,;]*(?:\\text\s*\{\s*)?(?:and|or)?(?:\s*\})?[\s$,;]*")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(?=[^\s#])(?P<line>[^\n]*)", re.MULTILINE)
_HEADING = re.compile(
    r"[*_]*(?:\d{1,2}[.):][*_]*\s+[*_]*[^\W\d_]{2}"
    r"|(?!(?i:yes|no|true|false)[\s.*_]*$)[^\W\d_]{2,}(?=[\s:.,;*_-]|$)[^=]*$)"
)
_STATED = re.compile(
    r"(?:^[ \t>*_]*A(?:ns)?|\b(?i:answer|(?:correct|right|best) (?:option|choice)|solution set)"
    r"(?:\s+(?:to|for|of|in)\s[^\n.:=]{1,100}?)?)[*_]*\s*"
    r"(?::|=|,?\s*\b(?:is|are|was|equals|becomes|(?:must|should|will|would)\s+be)\b)"
    r"(?:\s+(?:therefore|thus|then|hence|simply|equal\s+to|given\s+by|approximately|about|exactly)\b)*"
    r"[\s*_:=]*",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\.)[.!?](?=\s|$)|\n")
_TELLING = re.compile(r"[\d$\\]")
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\n\\]|\\.)+)\$|\\\[(?P<c>.+?)\\\]|\\\((?P<d>.+?)\\\)",
    re.DOTALL,
)
_BETWEEN_FORMULAS = re.compile(r"\s*(?:,|;|,?\s*and\b|,?\s*or\b)\s*")
# What stands right before a number may be a word of a language without spaces: 答案是18.
_LAST_NUMBER = re.compile(
    r"(?<![A-Za-z\d_.])(?:[-+−]|(?<!\S)–)?"
    r"(?:(?:\d{1,3}(?:,\d{3})+|(?<!\d )\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![A-Za-z\d])|\d+)"
    r"(?:\.\d+)?(?:[eE][-+]?\d+(?![A-Za-z\d])|/\d+|\s?\\?%|\s?[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])?|[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])"
)
_MANTISSA = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?\s*(?:[xX×·*]|\\times|\\cdot)\s*$")
_PARTS_OF_FORMULAS = re.compile(r"[√⁰¹²³⁴⁵⁶⁷⁸⁹⁻^]|sqrt")
_LEADING_NUMBER = re.compile(
    r"(?P<number>(?:[$€£¥₹]\s?)?[-+−]?[$€£¥₹]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?(?:\.{3}|…|\(\d+\))?\s?%?)"
    r"[*_]*(?=\s*(?:$|[.,;!?)](?:\s|$)|\s[^\W\d_]{2,}))"
)
_LINKED = re.compile(
    r"\s*(?:,\s*)?(?:and|or|to|plus|minus|times|over|then|remainder|r|mod|modulo|divided|squared|cubed|factorial|sqrt"
    r"|half|percent|per\s?cent)\b|\s*,\s*[-\d]"
)
_COMPOUND = re.compile(
    r"\d+(?:\.\d+)?\s*[A-Za-z]+(?:\.?,?\s+(?:and\s+)?\d+(?:\.\d+)?\s*[A-Za-z]+(?![A-Za-z]))+"
)
_MEASURE = re.compile(r"\d\s*([A-Za-z]+)")
_SCALE = re.compile(r"\s*(?:hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)
_LONGEST_ANSWER = 2000  # characters
_LONGEST_UNIT = 80  # characters
_STATEMENTS = 20  # how many of the last ones are looked at
_EDGES = " \t\r\n*_`\"'"


def compile_answer_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compile a user's pattern for the final answer, if there is one; ``^`` and ``$`` match at line ends.

    Raises:
        UserError: It is not a regular expression.
    """
    if pattern is None:
        return None
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise UserError(
            f"{pattern!r} is not a regular expression ({error})", where="--answer-pattern"
        ) from error


def find_answer(
    response: str, pattern: re.Pattern[str] | None, find: Callable[[str], str | None]
) -> str | None:
    """What follows the model's thinking, searched by the user's pattern or else by ``find``.

    Of a pattern's last match its first group is the answer, or the whole match where it has no group.
    """
    text = after_thinking(response)
    if text is None or pattern is None:
        return None if text is None else find(text)
    last = _last(pattern, text)
    if last is None:
        return None
    answer = last.group(1) if pattern.groups else last.group()
    return None if answer is None else answer.strip() or None


def stated_answer(response: str) -> str | None:
    """The answer that the response marks as its final one, or ``None`` if it marks none."""
    marks = (_last_box(response), _last_hashes(response), _last_tag(response))
    marked = max((mark for mark in marks if mark is not None), default=None)
    return marked[1] if marked is not None else _last_stated(response)


def final_answer(response: str) -> str | None:
    """The stated answer, else the last formula or number of the response, else ``None``."""
    stated = stated_answer(response)
    return stated if stated is not None else _last_formula_or_number(response)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def _closing_braces(text: str) -> dict[int, int]:
    """Where each balanced opening brace closes, found in one pass."""
    closing: dict[int, int] = {}
    open_braces: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            open_braces.append(match.start())
        elif match.group() == "}" and open_braces:
            closing[open_braces.pop()] = match.start()
    return closing


def _last_box(response: str) -> tuple[int, str] | None:
    """Position and content of the last box; boxes joined by commas, "and" or "or" count as one list."""
    boxes: list[tuple[int, int, str]] = []
    closing = _closing_braces(response) if "\\boxed" in response or "\\fbox" in response else {}
    for match in _BOX.finditer(response):
        if boxes and match.start() < boxes[-1][1]:
            continue
        start = match.end()
        if start < len(response) and response[start] == "{":
            end = closing.get(start)
            if end is not None and response[start + 1 : end].strip():
                boxes.append((match.start(), end + 1, response[start + 1 : end].strip()))
        elif token := _BARE_BOX.match(response, start):
            boxes.append((match.start(), token.end(), token.group()))
    if not boxes:
        return None
    joined = [boxes[-1][2]]
    for before, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = response[before[1] : after[0]]
        if not between.strip(" \t\n$") or not _BETWEEN_BOXES.fullmatch(between) or len(between) > 40:
            break
        joined.append(before[2])
    return boxes[-1][0], ", ".join(reversed(joined))


def _last_hashes(response: str) -> tuple[int, str] | None:
    """The last line that starts with ``####`` and is no heading of what follows it."""
    for match in reversed(list(_HASHES.finditer(response))):
        stated = _last_stated(match["line"])
        if stated is None and response[match.end() :].strip() and _HEADING.match(match["line"]):
            continue
        text = stated or _capture(response, match.start("line"), sentence=False)
        return None if text is None else (match.start(), text)
    return None


def _last_tag(response: str) -> tuple[int, str] | None:
    last = _last(_ANSWER_TAG, response) if "</answer>" in response else None
    if last is None or not last["text"].strip():
        return None
    return last.start(), stated_answer(last["text"]) or last["text"].strip()


def _last_stated(response: str) -> str | None:
    """The last stated answer that holds a digit or a formula, else the last one."""
    words = None
    for match in reversed(deque(_STATED.finditer(response), maxlen=_STATEMENTS)):
        text = _capture(response, match.end(), sentence=True)
        if text is None:
            continue
        if _TELLING.search(text):
            return text
        words = words or text
    return words


def _capture(response: str, start: int, *, sentence: bool) -> str | None:
    """The answer that starts at ``start``: its formulas, or its leading number, or its line or sentence."""
    rest = response[start : start + _LONGEST_ANSWER].strip()
    formula = _FORMULA.search(rest)
    end = _SENTENCE_END.search(rest) if sentence else re.search(r"\n", rest)
    line = rest[: end.start()] if end else rest
    lead = line.lstrip(_EDGES)
    if number := _leading_number(lead):
        return number
    if formula and formula.start() <= len(line) and (sentence or formula.start() == 0):
        return _joined_formulas(rest, formula)
    text = re.sub(r"(?<!\.)\.$", "", line.strip(_EDGES)).strip(_EDGES)
    return text or None


def _leading_number(text: str) -> str | None:
    """A plain number at the start, with its currency, scale word and unit, without the sentence after it."""
    match = _LEADING_NUMBER.match(text)
    if match is None or _LINKED.match(text, match.end()):
        return None
    if compound := _compound(_COMPOUND.match(text)):
        return compound
    scale = _SCALE.match(text, match.end())
    end, number = (scale.end(), scale.group()) if scale else (match.end(), "")
    return match["number"].strip() + number + _unit_after(text, end)


def _compound(match: re.Match[str] | None) -> str | None:
    """The text of measures that add up, ``3 hours and 20 minutes``; ``None`` if it is something else."""
    if match is None:
        return None
    units = [read_unit(normalized(name)) for name in _MEASURE.findall(match.group())]
    known = [unit.dimensions for unit in units if unit is not None and not unit.labels]
    return match.group() if len(known) == len(units) and len({*known}) == 1 else None


def _unit_after(text: str, start: int) -> str:
    """The unit at ``start``, with a space before it; empty if what is there is just the sentence going on."""
    rest = text[start : start + _LONGEST_UNIT]
    end = _SENTENCE_END.search(rest)
    rest = re.split(r"[,;:]", rest[: end.start()] if end else rest, maxsplit=1)[0]
    words = rest.strip(_EDGES + ",;!").split()
    if not words or rest[:1] not in _EDGES:
        return ""
    for number in range(min(len(words), 4), 0, -1):
        piece = " ".join(words[:number])
        unit = read_unit(normalized(piece))
        if unit is not None and not unit.labels and (piece != "in" or number == len(words)):
            return f" {piece}"
    piece = " ".join(words)
    return f" {piece}" if read_unit(normalized(piece)) is not None else ""


def _joined_formulas(text: str, first: re.Match[str]) -> str | None:
    formulas, match = [], first
    while True:
        formulas.append(next(group for group in match.groups() if group is not None).strip())
        link = _BETWEEN_FORMULAS.match(text, match.end())
        after = _FORMULA.match(text, link.end()) if link else None
        if after is None:
            break
        match = after
    percent = r"\%" if re.match(r"\s*(?:\\?%|percent\b)", text[match.end() :]) else ""
    unit = "" if percent or len(formulas) > 1 else _unit_after(text, match.end())
    return (", ".join(formulas) + percent + unit).strip() or None


def _last_formula_or_number(response: str) -> str | None:
    tail = response[-_LONGEST_ANSWER:]
    formula, number = _last(_FORMULA, tail), _last(_LAST_NUMBER, tail)
    if formula is not None and (number is None or number.start() < formula.end()):
        inner = next(group for group in formula.groups() if group is not None).strip()
        return inner + _unit_after(tail, formula.end()) if inner else None
    if number is None:
        return None
    last = _last(_COMPOUND, tail)
    if last is not None and last.end() > number.start() and (compound := _compound(last)):
        return compound
    scale = _SCALE.match(tail, number.end())
    end = scale.end() if scale else number.end()
    return _bare_formula(tail, number) or tail[number.start() : end].strip() + _unit_after(tail, end)


def _bare_formula(text: str, number: re.Match[str]) -> str | None:
    r"""The formula without dollars of which a number is only a part: ``\frac{1}{2}`` around its 2."""
    start = max(text.rfind(space, 0, number.start()) for space in " \n\t") + 1
    word = text[start:].split()[0].strip(_EDGES + ".,;:!?")
    is_part = text[number.start() - 1 : number.start()] in ("{", "^", "_") or text[number.end() :][:1] == "}"
    if not is_part:
        word = word.rpartition("=")[2]
    if not word or not (is_part or _PARTS_OF_FORMULAS.search(word)):
        return None
    if re.match(r"10[\^⁰¹²³⁴⁵⁶⁷⁸⁹⁻]", word) and (mantissa := _MANTISSA.search(text, 0, start)):
        word = mantissa.group() + word
    balanced = all(word.count(opening) == word.count(closing) for opening, closing in ("{}", "()"))
    return word if balanced else None
