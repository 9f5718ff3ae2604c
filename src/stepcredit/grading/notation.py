r"""One spelling for answers: Unicode, LaTeX and plain text become the same LaTeX, of a small vocabulary.

After it, fractions and roots have braces, delimiters have no ``\left``, text stands without its command,
``\usd`` marks a dollar sign, ``\deg`` a degree sign, and there is one kind of space.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "×": r"\times ", "✕": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "÷": r"\div ", "∕": "/", "⁄": "/", "π": r"\pi ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ",
    "μ": r"\mu ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∞": r"\infty ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ",
    "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "°": r"\deg ", "º": r"\deg ", "±": r"\pm ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "Ω": r"\Omega ", "Δ": r"\Delta ",
    "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
    "…": r"\ldots ", "⋯": r"\ldots ", "∣": r"\mid ", "⟨": r"\langle ", "⟩": r"\rangle ", "′": "'", "’": "'",
    "，": ",", "；": ";", "：": ":", "。": ".", "（": "(", "）": ")", "\u00a0": " ", "∘": r"\deg ",
    "€": r"\eur ", "£": r"\gbp ", "¥": r"\yen ", "₹": r"\inr ", "¢": " cents ",
}  # fmt: skip
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))
_COMMANDS = {
    r"leqslant|leqq|leq|le": "le", r"geqslant|geqq|geq|ge": "ge", r"neq|ne": "ne",
    r"dfrac|tfrac|cfrac|frac": "frac", r"dbinom|tbinom|binom": "binom",
    r"dots[cbm]?|ldots|cdots|textellipsis": "ldots",
    r"varnothing|emptyset": "emptyset", r"lbrace": "{", r"rbrace": "}", r"lvert|rvert|vert": "|",
    r"backslash|smallsetminus|setminus": "setminus", r"degrees?|deg": "deg", r"reals?|Reals|R": "mathbb{R}",
    r"infin|infty": "infty", r"lt": "<", r"gt": ">", r"div": "div", r"euro?s?": "eur", r"pounds": "gbp",
    r"lbrack": "[", r"rbrack": "]", r"percent": "%", r"approxeq|approx": "approx", r"times": "times",
}  # fmt: skip
_COMMAND = re.compile(
    r"\\(?:"
    + "|".join(f"(?P<c{number}>{names})" for number, names in enumerate(_COMMANDS))
    + r")(?![A-Za-z])"
)
_SPELLED = list(_COMMANDS.values())
_SIZES = re.compile(
    r"\\(?:m?left|m?right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|rm|bf|it|sf|tt|hfill|Rightarrow"
    r"|implies|therefore|boldsymbol)(?![A-Za-z])|\\!|\\/"
)
_SPACES = re.compile(
    r"\\(?:quad|qquad|enspace|thinspace|space|hspace\*?\{[^{}]*\})(?![A-Za-z])|(?<!\\)\\[,;:> ]|~|\\$"
)
_TEXT = re.compile(
    r"\\(?:text(?:normal|rm|bf|it|sf|tt|up)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|emph|bm|underline|operatorname\*?)"
    r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_UPRIGHT = r"\\(?:text|mathrm|mbox|rm)\s*\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?"
_UNIT_FRACTION = re.compile(
    rf"\\frac\s*\{{\s*({_UPRIGHT})\s*\}}\s*\{{\s*({_UPRIGHT}(?:\s*(?:\\cdot|\\times)?\s*{_UPRIGHT})*)\s*\}}"
)
_UNIT_LETTERS = {"m": "meter", "s": "second", "g": "gram", "h": "hour", "L": "liter", "l": "liter",
                 "N": "newton", "J": "joule", "W": "watt", "V": "volt"}  # fmt: skip
_UPRIGHT_UNIT = re.compile(
    r"(?:(?<=[\d)}|])|(?<=\\pi))(?<!circ\})\s*\\(?:text|mathrm|mbox)\s*\{\s*([msghLlNJWV](?:\s*/\s*[msghLl])?)\s*\}"
)
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|lcm|det|sqrt|theta|"
    "alpha|beta|gamma|lambda|omega|infty|binom|frac"
)
_PLAIN_FUNCTION = re.compile(
    rf"(?<![\\A-Za-z])((?:{_FUNCTIONS})(?=[\s\d({{^_\\+\-*/),]|$|[a-z]\b)|(?:min|max)(?=\())"
)
_ARGUMENTS = {"frac": 2, "binom": 2, "sqrt": 1}
_WITH_ARGUMENTS = re.compile(r"\\(frac|binom|sqrt)(?![A-Za-z])")
_ARGUMENT = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})?|\d|[A-Za-z]")
_CLOSING = {"{": "}", "(": ")", "[": "]"}
_REWRITTEN: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\{\s*,\s*\}"), ","),
    (re.compile(r"(?i)(?<![a-z\\])per\s?cent(?:age)?(?![a-z])|(?<![A-Za-z\\])pct(?![A-Za-z])"), r"\\%"),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"\^\s*(?:\{\s*\\(?:circ|deg)\s*\}|(?:\\(?:circ|deg)|o)(?![A-Za-z]))"), r"\\deg "),
    (re.compile(r"(?<=[\d)}])\s*degrees?(?![A-Za-z])"), r"\\deg "),
    (re.compile(r"\+\s?/\s?-"), r"\\pm "),
    (re.compile(r"^(?!.*\\pm(?![A-Za-z]))(.*?)\\mp(?![A-Za-z])"), r"\1\\pm "),
    (re.compile(r"(?i)^\s*(?:negative|minus)\s+(?=[\d.\\])"), "-"),
    (re.compile(r"^\s*(\d*(?:(?<!1)(?:1(?=\W*st)|2(?=\W*nd)|3(?=\W*rd))|(?:[04-9]|1[1-3])(?=\W*th)))"
                r"\s*(?:\^\s*\{?\s*)?(?:st|nd|rd|th)\s*\}?\s*$"), r"\1"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"\\not\s*="), r"\\ne "),
    (re.compile(r"(?<![\d)}\]!])\s*!="), r"\\ne "),
    (re.compile(r"\*"), r"\\cdot "),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), r"\\times "),
    (re.compile(r"(?<=\d)\s+[xX]\s+(?=\d)"), r"\\times "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"(?<![\\A-Za-z])[uU](?=\s*[(\[\\].*[)\]]\s*$)(?<=\)\s[uU])"), r"\\cup "),
    (re.compile(r"\.{3,}"), r"\\ldots "),
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"(\\mathbb\{[A-Z]\})\s*[-/]\s*(?=\\\{)"), r"\1\\setminus "),
    (re.compile(r"\^\s*([-+]\s*\d+(?:\.\d+)?)"), r"^{\1}"),
    (re.compile(r"_\s*(\d)"), r"_{\1}"),
    (re.compile(r"\^\s*(\d+)(?=\s+\d)"), r"^{\1}"),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\(?\\(?:pmod|bmod|mod)\s*\{?\s*(\w+)\s*\}?\)?|\(mod (\w+)\)"), r"\\pmod{\1\2}"),
    (re.compile(r"(?<=\d)\s*[lL]bs?\.?$"), " lb"),
]  # fmt: skip


@lru_cache(maxsize=8192)
def normalized(text: str) -> str:
    r"""The text in the vocabulary of this module.

    >>> normalized("$2½$"), normalized("4sqrt(2)"), normalized(r"\text{ 5 cm}")
    ('2 \\frac{1}{2}', '4\\sqrt{2}', '5 cm')
    """
    text = _without_delimiters(_plain_symbols(text))
    text = _COMMAND.sub(_spelled, _SIZES.sub("", text))
    text = re.sub(r"(?<=\d)(?:\\,|\\!|\\ )(?=\d{3}(?!\d))", ",", text)  # thousands: 12\,000
    text = re.sub(r"(?<![\d.,'])(\d{1,3})((?:'\d{3})+)(?![\d'])", _swiss, text)  # thousands: 12'000
    text = _SPACES.sub(" ", text)
    text = _UNIT_FRACTION.sub(r" \1/\2 ", text)
    text = _UPRIGHT_UNIT.sub(_unit_in_full, text)
    while (plain := _TEXT.sub(r" \1 ", text)) != text:
        text = plain
    text = _PLAIN_FUNCTION.sub(r"\\\1", text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    text = " ".join(_braced(text).split())
    return _trimmed(text)


def _plain_symbols(text: str) -> str:
    """Replace what Unicode writes in one character."""
    characters = []
    for character in text:
        decomposed = unicodedata.normalize("NFKC", character)
        if "⁄" in decomposed:  # a vulgar fraction: ½
            top, _, bottom = decomposed.partition("⁄")
            characters.append(rf" \frac{{{top}}}{{{bottom}}} ")
        elif character in _SYMBOLS:
            characters.append(_SYMBOLS[character])
        else:
            characters.append(character)
    text = "".join(characters)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
    text = unicodedata.normalize("NFKC", text)
    return _SYMBOL.sub(lambda match: _SYMBOLS[match[0]], text)


def _without_delimiters(text: str) -> str:
    r"""Drop ``$...$``, ``\(...\)`` and ``\[...\]``; a dollar sign before a number is money."""
    text = re.sub(r"\\[()]|\\\[(?![\dA-Za-z.]+(?:ex|pt|em)\])|\\\]", " ", text.replace(r"\\", "\x00"))
    text = text.replace("\x00", r"\\").replace(r"\$", r"\usd ")
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*[-+]?[\d.])", r"\\usd ", text, count=1)
    return text.replace("$", " ")


def _swiss(match: re.Match[str]) -> str:
    return match[1] + match[2].replace("'", ",")


def _unit_in_full(match: re.Match[str]) -> str:
    r"""A unit's upright letter as a word, since without its command it could be a factor: ``\pi h``."""
    return " " + re.sub("[A-Za-z]", lambda letter: _UNIT_LETTERS[letter[0]], match[1]) + " "


def _spelled(match: re.Match[str]) -> str:
    assert match.lastgroup is not None
    word = _SPELLED[int(match.lastgroup[1:])]
    if word in "<>|[]":
        return word
    return f"\\{word}" + (" " if word[-1].isalpha() else "")


def _braced(text: str) -> str:
    r"""Give the arguments of fractions, binomials and roots, and exponents in parentheses, their braces."""
    text = re.sub(r"\\(frac|binom|sqrt)\s+(?=[{\[(\d\\A-Za-z])", r"\\\1 ", text)
    position = 0
    while match := _WITH_ARGUMENTS.search(text, position):
        start = position = match.end()
        for _ in range(_ARGUMENTS[match[1]]):
            start = _skip(text, start)
            if match[1] == "sqrt" and text[start : start + 1] == "[":
                start = _skip(text, (_closing(text, start) or start) + 1)
            end = _argument_end(text, start, match[1])
            if end is None:
                break
            inner = text[start:end]
            if inner[0] != "{":
                inner = inner[1:-1] if inner[0] == "(" else inner
                text = f"{text[:start]}{{{inner}}}{text[end:]}"
                end = start + len(inner) + 2
            start = end
    text = re.sub(r"(?<=\\frac|\\sqrt)\s+(?=[{\[])|(?<=\\binom)\s+(?=\{)", "", text)
    position = 0
    while (caret := text.find("^(", position)) >= 0:
        position = caret + 1
        if (end := _closing(text, caret + 1)) is not None:
            text = f"{text[: caret + 1]}{{{text[caret + 2 : end]}}}{text[end + 1 :]}"
    return text


def _argument_end(text: str, start: int, command: str) -> int | None:
    """Where the argument ends that starts at ``start``; ``None`` if there is none."""
    if text[start : start + 1] == "{" or (command == "sqrt" and text[start : start + 1] == "("):
        closing = _closing(text, start)
        return None if closing is None else closing + 1
    if command == "sqrt" and (digits := re.compile(r"\d+(?:\.\d+)?").match(text, start)):
        return digits.end()
    token = _ARGUMENT.match(text, start)
    return None if token is None else token.end()


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] == " ":
        start += 1
    return start


def _closing(text: str, start: int) -> int | None:
    """Index of the bracket that closes the one at ``start``."""
    opening, closing, depth = text[start], _CLOSING[text[start]], 0
    for index in range(start, len(text)):
        if text[index] == opening:
            depth += 1
        elif text[index] == closing:
            depth -= 1
            if depth == 0:
                return index
    return None


def _trimmed(text: str) -> str:
    """Without the sentence's punctuation, and without braces or a box around everything."""
    while True:
        before = text
        text = text.strip(' "`').rstrip(",;").removesuffix(r"\\").strip()
        text = re.sub(r"(?<!\.)\.{1,2}$", "", text).rstrip()
        if text.startswith(("{", r"\boxed{", r"\fbox{")):
            opening = text.index("{")
            if _closing(text, opening) == len(text) - 1:
                text = text[opening + 1 : -1].strip()
        if text == before:
            return text
