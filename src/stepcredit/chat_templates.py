"""A tokenizer's chat template, with what it is given besides the conversation: arguments, a date, tools.

These settings lie with the tokenizer, as its template does, so that training, scoring, search and servers
see the same text. Templates may ask for today's date; they are given a fixed one, so that a row has the same
score on any day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from stepcredit.conversations import content_text, for_template
from stepcredit.errors import DataError, UserError
from stepcredit.options import named_values, option
from stepcredit.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_DATE = "2024-07-26"
"""The date that Llama 3.1's template falls back to where it is given no clock."""

Boundary = Literal["together", "apart"]
"""Whether prompt and response are tokenised as one text, or each by itself, as samplers draw them."""

_OURS = ("messages", "tools", "documents", "add_generation_prompt", "chat_template", "tokenize")
_ATTRIBUTE = "stepcredit_chat"
# transformers lets no functions into a template, so that the clock is one of the template's own language.
_CLOCK = (
    "{%- macro strftime_now(format) %}{%- set ns = namespace(text=format) %}"
    "{%- for form, text in stepcredit_clock.items() %}{%- set ns.text = ns.text | replace(form, text) %}"
    "{%- endfor %}{{- ns.text }}{%- endmacro %}"
)
_FORMS = [f"%{flag}{letter}" for flag in ("-", "") for letter in "aAwdbBmyYHIpMSfjUWcxXGuVe"] + ["%%"]
_PROBE = "stepcredit0probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """What decides, beside tokenizer and template, how a conversation becomes tokens.

    Attributes:
        arguments: Variables of the template, e.g. ``{"enable_thinking": False}``.
        date: What a template that reads the clock is given, ``YYYY-MM-DD``.
        boundary: How prompt and response are tokenised.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    date: str = DEFAULT_DATE
    boundary: Boundary = "together"


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How conversations become tokens; a model with a prm.json keeps the settings in it."""

    template_arg: tuple[str, ...] = option(
        "argument of the chat template, e.g. enable_thinking=false (may be repeated)",
        default=(),
        metavar="NAME=VALUE",
    )
    template_date: str | None = option(
        f"date for chat templates that ask for today's; default is the model's, else {DEFAULT_DATE}, so that "
        "results do not change from day to day",
        default=None,
        metavar="YYYY-MM-DD",
    )
    boundary: str | None = option(
        "tokenise prompt and response together or apart; apart is how samplers draw a response whose first "
        "token would merge with the prompt's last; default is the model's, else together",
        default=None,
        choices=("together", "apart"),
    )

    def __post_init__(self) -> None:
        parse_arguments(self.template_arg)
        if self.template_date is not None:
            check_date(self.template_date)

    def settings(self, own: ChatSettings | None = None, *, where: object = None) -> ChatSettings:
        """The settings asked for, else those of a reward model.

        Args:
            own: What a reward model was trained with; other settings than these are refused.

        Raises:
            UserError: Naming the first option that is not as the model was trained.
        """
        asked: dict[str, Any] = {
            "arguments": parse_arguments(self.template_arg) or None,
            "date": None if self.template_date is None else check_date(self.template_date),
            "boundary": self.boundary,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        if own is None:
            return replace(ChatSettings(), **given)
        for name, value in given.items():
            trained = getattr(own, name)
            if value != trained:
                flag = {"arguments": "--template-arg", "date": "--template-date"}.get(name, "--boundary")
                raise UserError(
                    f"{flag} {_shown(value)} is not what it was trained with ({_shown(trained)})",
                    where=None if where is None else str(where),
                    hint=f"leave {flag} out; prm.json has what it was trained with",
                )
        return own

    def determining(self) -> dict[str, Any]:
        """What is not the default, for a manifest."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def set_chat_settings(tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> None:
    """Give a tokenizer its settings; they are not saved with it."""
    setattr(tokenizer, _ATTRIBUTE, settings)


def chat_settings(tokenizer: PreTrainedTokenizerBase) -> ChatSettings:
    """A tokenizer's settings."""
    settings = getattr(tokenizer, _ATTRIBUTE, None)
    return settings if isinstance(settings, ChatSettings) else ChatSettings()


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments of the template as the command line writes them: ``NAME=VALUE``, where JSON values are read.

    Raises:
        UserError: One has no name, or one that the template is given anyway.
    """
    arguments = named_values(texts, "--template-arg", hint="write enable_thinking=false")
    for name in arguments:
        if name in _OURS:
            raise UserError(f"{name} cannot be set", where="--template-arg", hint="leave it out")
    return arguments


def check_date(text: str) -> str:
    """A date as ``YYYY-MM-DD``.

    Raises:
        UserError: It is none.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError as error:
        raise UserError(
            f"{text!r} is not a date", where="--template-date", hint="write YYYY-MM-DD, e.g. 2024-07-26"
        ) from error


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Any] | None = None,
) -> str:
    """The conversation as text, by the tokenizer's chat template.

    Raises:
        DataError: The template refuses the conversation, e.g. for its order of roles.
    """
    tokenizer_of_any_kind: Any = tokenizer
    try:
        text: str = tokenizer_of_any_kind.apply_chat_template(
            [for_template(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **template_variables(tokenizer, tools),
        )
    except MemoryError:
        raise
    except Exception as error:  # Templates raise whatever they like.
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"the chat template refuses the prompt ({lines[0][:200]})", hint="check the roles and their order"
        ) from error
    return text


def template_variables(
    tokenizer: PreTrainedTokenizerBase, tools: Sequence[Any] | None = None, date: str | None = None
) -> dict[str, Any]:
    """What ``apply_chat_template`` is given besides the conversation: arguments, tools and the fixed clock.

    Args:
        tools: Schemas of functions that the assistant may call.
        date: In the place of the settings' own.
    """
    settings = chat_settings(tokenizer)
    variables = dict(settings.arguments)
    if tools:
        variables["tools"] = list(tools)
    template = str(tokenizer.get_chat_template(None, variables.get("tools")))
    if "strftime_now" in template:
        now = datetime.fromisoformat(date or settings.date)
        variables["stepcredit_clock"] = {form: now.strftime(form) for form in _FORMS}
        # The first line end after a block is not written.
        variables["chat_template"] = _CLOCK + "\n" * template.startswith("\n") + template
    return variables


def reads_clock(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a plain question is formatted differently on another day."""
    if "strftime_now" not in json.dumps(getattr(tokenizer, "chat_template", None)):
        return False
    tokenizer_of_any_kind: Any = tokenizer
    try:
        texts = {
            str(
                tokenizer_of_any_kind.apply_chat_template(
                    [{"role": "user", "content": "?"}],
                    tokenize=False,
                    add_generation_prompt=True,
                    **template_variables(tokenizer, date=date),
                )
            )
            for date in ("2001-02-03", "2014-11-25")
        }
    except Exception:
        return False  # What it refuses is said where it is used.
    return len(texts) > 1


def generated_spans(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> list[tuple[int, int]]:
    """What the template marks by ``{% generation %}``: ranges of characters of the rendered text."""
    from transformers.utils.chat_template_utils import render_jinja_template

    variables = template_variables(tokenizer, tools)
    template = str(
        variables.pop("chat_template", None)
        or tokenizer.get_chat_template(None, list(tools) if tools else None)
    )
    if re.search(r"\{%-?\s*generation\s*-?%\}", template) is None:
        return []
    rendered: Any = render_jinja_template(
        conversations=[[for_template(message) for message in messages]],
        chat_template=template,
        return_assistant_tokens_mask=True,
        **{**tokenizer.special_tokens_map, **variables},
    )
    return [(int(start), int(end)) for start, end in rendered[1][0]]


def with_reasoning(tokenizer: PreTrainedTokenizerBase, message: Message) -> Message:
    """A turn whose thinking is part of its content, where the template does not look for it elsewhere."""
    thinking = message.get("reasoning_content")
    template = json.dumps(getattr(tokenizer, "chat_template", None))
    if not thinking or "reasoning_content" in template:
        return message
    turn: Message = {**message, "content": f"<think>\n{thinking}\n</think>\n\n{content_text(message)}"}
    del turn["reasoning_content"]
    return turn


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> str:
    """Everything before the first character of the response.

    A conversation that ends in an assistant's turn is continued there. A template without a generation prompt
    is given the assistant's header that it writes in a finished conversation, unless that is only a blank,
    which then belongs to the response's first token.

    Raises:
        DataError: The template refuses the conversation, or changes the turn that is to be continued.
    """
    if messages and messages[-1]["role"] == "assistant":
        return _started_turn(tokenizer, messages, tools)
    prompted = render(tokenizer, messages, add_generation_prompt=True, tools=tools)
    if prompted != render(tokenizer, messages, add_generation_prompt=False, tools=tools):
        return prompted
    answered = with_probe(tokenizer, messages, tools)
    header = answered[len(prompted) : answered.rfind(_PROBE)] if answered.startswith(prompted) else ""
    return prompted + header if header.strip() else prompted


def text_after_answer(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes after the assistant's text, at the end of a conversation."""
    answered = with_probe(tokenizer, [{"role": "user", "content": "?"}])
    return answered[answered.rfind(_PROBE) + len(_PROBE) :] if _PROBE in answered else ""


def with_probe(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None = None
) -> str:
    """The conversation with a short answer, finished."""
    answer: Message = {"role": "assistant", "content": _PROBE}
    return render(tokenizer, [*messages, answer], add_generation_prompt=False, tools=tools)


def _started_turn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Any] | None
) -> str:
    last = messages[-1]
    if last.get("tool_calls"):
        raise DataError(
            "the prompt ends in an assistant's turn that calls a tool, which no response can continue",
            hint="end it with the tool's answer",
        )
    start = content_text(last)
    marked: Message = {**last, "content": start + _PROBE}
    text = render(tokenizer, [*messages[:-1], marked], add_generation_prompt=False, tools=tools)
    before = text[: max(text.rfind(_PROBE), 0)]
    if not before.endswith(start):
        raise DataError(
            "the chat template changes the assistant's turn that the response continues",
            hint="put the start of the turn into the response",
        )
    return before
