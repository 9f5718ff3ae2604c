"""Stop strings are found whatever a tokenizer's decoder does to a token that stands alone."""

from __future__ import annotations

from typing import Any

from tests.generators.naive import END, generate, make_request
from tokenizers import Tokenizer, decoders
from transformers import PreTrainedTokenizerFast


def _without_leading_space(tokenizer: Any) -> Any:
    """As Llama 2's and Mistral's: the first space of what is decoded is dropped."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    stripping: Any = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=tokenizer.pad_token,
        eos_token=tokenizer.eos_token,
        extra_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )
    stripping.chat_template = tokenizer.chat_template
    return stripping


def test_a_stop_that_ends_in_a_space_ends_a_step_where_decoders_drop_a_leading_one(
    model: Any, tokenizer: Any
) -> None:
    stripping = _without_leading_space(tokenizer)
    request = make_request("a", "1+2=", 40, temperature=1.6, stop=(" ",), keep_stop=True)
    drawn = generate(model, stripping, [request])
    stopped = [rollout.response for rollout in drawn.values() if " " in rollout.response]
    assert len(stopped) > 5
    assert all(response.index(" ") == len(response) - 1 for response in stopped)
    plain = generate(model, tokenizer, [request])
    assert [drawn[key].response for key in drawn] == [plain[key].response for key in drawn]
    assert stripping.eos_token_id == END
