"""Chat templates in the style of several families, and what each writes, spelled out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from stepcredit.types import Message

_TOOLS = "{%- for tool in tools or [] %}{{- '# ' + tool.function.name + '\n' }}{%- endfor %}"
_CALLS = (
    "{%- for call in m.tool_calls or [] %}{{- ('\n' if m.content else '') + '<tool_call>' + "
    "call.function.name + ' ' + (call.function.arguments | tojson) + '</tool_call>' }}{%- endfor %}"
)

# As Qwen 3: earlier turns lose their thinking, and an argument closes the block.
QWEN = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    f"{_TOOLS}"
    "{%- for m in messages %}{%- set text = m.content %}"
    "{%- if m.role == 'assistant' and '</think>' in text and loop.index0 < ns.last %}"
    "{%- set text = text.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\n' + text }}" + _CALLS + "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{%- endif %}"
)
# As Qwen 3.5: the generation prompt opens the thinking.
QWEN_OPENED = QWEN.replace(
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}",
    "{{- '<think>\n' }}",
)
# As Llama 3.1: the date of the day in the system's turn, tools answer as "ipython".
LLAMA = (
    "{{- '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + "
    "strftime_now('%d %b %Y') + '\n' }}" + _TOOLS + "{{- '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + "
    "'<|end_header_id|>\n\n' + m.content }}" + _CALLS + "{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
# As Gemma: no system turn, the assistant is the model, tools answer as the user.
GEMMA = (
    "{%- if messages[0].role == 'system' %}{{- raise_exception('no system role') }}{%- endif %}"
    "{{- '<bos>' }}" + _TOOLS + "{%- for m in messages %}"
    "{{- '<start_of_turn>' + {'assistant': 'model', 'tool': 'user'}.get(m.role, m.role) + '\n' + m.content }}"
    + _CALLS
    + "{{- '<end_of_turn>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}"
    "{%- endif %}"
)
# With the assistant's own marks, which end before the end-of-turn in one and after the line end in the other.
MARKED = (
    f"{_TOOLS}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' %}"
    "{% generation %}{{- m.content }}" + _CALLS + "{% endgeneration %}{%- else %}{{- m.content }}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- endif %}"
)
MARKED_WIDELY = MARKED.replace(
    _CALLS + "{% endgeneration %}{%- else %}{{- m.content }}{%- endif %}{{- '<|im_end|>\n' }}",
    _CALLS
    + "{{- '<|im_end|>\n' }}{% endgeneration %}{%- else %}{{- m.content + '<|im_end|>\n' }}{%- endif %}",
)


@dataclass(frozen=True)
class Family:
    """A template, the control tokens that it needs, and what it writes around a turn."""

    template: str
    control: str
    head: str
    start: str
    roles: dict[str, str]
    header_end: str
    end: str
    after: str = ""

    def tokenizer(self, make_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> Any:
        """A tiny tokenizer with this template."""
        tokenizer: Any = make_tokenizer(self.control)
        tokenizer.chat_template = self.template
        return tokenizer

    def pieces(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> Iterator[tuple[str, bool]]:
        """The conversation in order: text, and whether the assistant wrote it."""
        names = "".join(f"# {tool['function']['name']}\n" for tool in tools)
        yield self.head.replace("TOOLS", names), False
        for message in messages:
            yield self.start + self.roles.get(message["role"], message["role"]) + self.header_end, False
            text = str(message["content"] or "")
            for call in message.get("tool_calls") or ():
                function = call["function"]
                arguments = function["arguments"]
                arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
                text += "\n" if message["content"] else ""
                text += f"<tool_call>{function['name']} {json.dumps(arguments)}</tool_call>"
            yield text + self.end, message["role"] == "assistant"
            yield self.after, False


_CHATML: dict[str, Any] = {
    "head": "TOOLS",
    "start": "<|im_start|>",
    "roles": {},
    "header_end": "\n",
    "end": "<|im_end|>",
    "after": "\n",
}
FAMILIES = {
    "qwen": Family(QWEN, "chatml", **_CHATML),
    "llama": Family(
        LLAMA,
        "llama3",
        head=(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
            "Today Date: 26 Jul 2024\nTOOLS<|eot_id|>"
        ),
        start="<|start_header_id|>",
        roles={"tool": "ipython"},
        header_end="<|end_header_id|>\n\n",
        end="<|eot_id|>",
    ),
    "gemma": Family(
        GEMMA,
        "gemma",
        head="<bos>TOOLS",
        start="<start_of_turn>",
        roles={"assistant": "model", "tool": "user"},
        header_end="\n",
        end="<end_of_turn>",
        after="\n",
    ),
    "marked": Family(MARKED, "chatml", **_CHATML),
    "marked-widely": Family(MARKED_WIDELY, "chatml", **_CHATML),
}

CALL: dict[str, Any] = {"type": "function", "function": {"name": "add", "arguments": '{"a": 3, "b": 4}'}}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {}}}
ASKED: list[Message] = [{"role": "user", "content": "What is 3 + 4?"}]
TURNS: list[Message] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "7"},
    {"role": "assistant", "content": "First add.\nThen check.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "7"},
    {"role": "tool", "content": "7"},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "Step 1: so\nthe answer is 7"},
]
