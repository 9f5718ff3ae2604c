"""The labs' tokenizers: one token per character or known word, as ordinary fast Hugging Face tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from stepcredit.lab.task import ANSWER_MARK, OPERATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END_OF_TURN = "<|pad|>", "<|unknown|>", "<|end|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
CHARACTERS: Final = "0123456789" + "".join(OPERATIONS) + "=:" + ANSWER_MARK + "\n"
CONTEXT_LENGTH: Final = 256
"""Longest sequence of the first lab, in tokens."""

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    + ASSISTANT
    + "{{ message['content'] }}"
    + END_OF_TURN
    + "{% else %}"
    "" + USER + "{{ message['content'] }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def make_tokenizer(
    words: Sequence[str] = (), *, context_length: int = CONTEXT_LENGTH
) -> PreTrainedTokenizerFast:
    """Build a tokenizer.

    What is outside the task becomes ``<|unknown|>``, a token per character, or per word of small letters
    where there are words, so offsets stay right for any text.

    Args:
        words: Tokens beside the characters of the task: words of small letters, with a space before them
            or without, and further characters.
        context_length: Longest sequence in tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, UNKNOWN, END_OF_TURN, USER, ASSISTANT]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(
        Regex(r" ?[a-z]+|[\s\S]" if words else r"[\s\S]"), behavior="isolated"
    )
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END_OF_TURN,
        extra_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=context_length,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
