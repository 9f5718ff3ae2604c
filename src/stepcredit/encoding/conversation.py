"""The format of outcome models: the whole conversation by the chat template, read at its end."""

from __future__ import annotations

from stepcredit.chat_templates import render
from stepcredit.conversations import answered, as_messages, tools_of
from stepcredit.encoding.base import EncodedSteps, StepEncoding, check_length
from stepcredit.steps import steps_at
from stepcredit.types import Encoded, Rollout


class ConversationEncoding(StepEncoding):
    """Prompt and response as one finished conversation; the response is one step, whatever the step rule."""

    name = "conversation"
    has_template = True

    def encode(self, rollout: Rollout) -> EncodedSteps:
        """Encode one rollout."""
        whole = answered(rollout.prompt, rollout.response)
        if rollout.turns is not None:
            whole = [*as_messages(rollout.prompt), *rollout.turns]
        tools = tools_of(rollout.extras, rollout.id)
        text = render(self.tokenizer, whole, add_generation_prompt=False, tools=tools)
        token_ids = tuple(self.ids(text))
        check_length(token_ids, self.max_tokens, rollout.id)
        encoded = Encoded(token_ids, 1, (len(token_ids) - 1,))
        return EncodedSteps(encoded=encoded, steps=steps_at(rollout.response, [len(rollout.response)]))
