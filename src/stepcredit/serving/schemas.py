"""What requests and answers look like; OpenAPI is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator


def _encodable(text: str) -> str:
    """Refuse halves of surrogate pairs, which JSON can spell and no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a surrogate pair, which is not valid text") from error
    return text


Text = Annotated[StrictStr, AfterValidator(_encodable)]


class TextPart(BaseModel):
    """A part of a turn's content."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"] = "text"
    text: Text


class Turn(BaseModel):
    """One chat turn."""

    model_config = ConfigDict(extra="forbid")
    role: Text = Field(examples=["user"], min_length=1)
    content: Text | list[TextPart] | None = Field(examples=["What is 2 + 3?"])
    name: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def _only_assistants_are_silent(self) -> Turn:
        if self.content is None and self.role != "assistant":
            raise ValueError("only an assistant's turn has no content")
        return self


class ScoreRequest(BaseModel):
    """Responses to one prompt."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"prompt": "7*8+5-3=", "responses": ["7*8=6\n6+5=1\n1-3=8\n#8", "7*8=6\n6+5=1\n1-3=7\n#7"]}
            ]
        },
    )
    prompt: Text | Annotated[list[Turn], Field(min_length=1)] = Field(
        description="A user's text, or a conversation; one that ends in an assistant's turn is continued."
    )
    responses: list[Text | Annotated[list[Turn], Field(min_length=1)]] = Field(
        min_length=1,
        description="The assistant's texts, or lists of turns, of which the assistant's are scored.",
    )
    tools: list[dict[str, Any]] | None = Field(
        default=None, description="Functions that the assistant may call, for the chat template."
    )
    steps: list[list[Text] | None] | None = Field(
        default=None,
        description="The texts of each response's steps; null splits one by the model's rule.",
    )
    tokens: StrictBool = Field(default=False, description="Whether scores hold a reward per token.")
    finished: StrictBool = Field(
        default=True,
        description="Whether the responses have ended; only then is an end-of-turn token scored.",
    )
    model: Text | None = Field(default=None, description="One of /v1/models; the default is the first.")


class BestRequest(ScoreRequest):
    """Responses to one prompt, to pick from."""

    by: Text = Field(
        default="reward", description="`reward`, or an aggregate of the step rewards such as `min`."
    )


class StepJSON(BaseModel):
    """A step and what it is worth, as in a score file."""

    text: str
    start: int
    end: int
    reward: float
    value: float


class ScoreJSON(BaseModel):
    """A response's score, as in a score file."""

    model_config = ConfigDict(extra="allow")
    id: str = Field(description="The response's place in the request.")
    reward: float
    steps: list[StepJSON]
    aggregates: dict[str, float]
    num_tokens: int


class ScoreAnswer(BaseModel):
    """Scores in the order of the responses."""

    model: str
    scores: list[ScoreJSON]


class BestAnswer(ScoreAnswer):
    """The place of the best response (the first of equals), and all scores."""

    index: int


class Problem(BaseModel):
    """What is wrong with a request."""

    message: str
    field: str | None = Field(description="Where in the request, e.g. `responses.2`.")


class ErrorAnswer(BaseModel):
    """An answer with a status of 400 or above."""

    error: Problem


class ModelJSON(BaseModel):
    """A model, as OpenAI's interface lists them."""

    id: str
    object: str = "model"
    owned_by: str = "stepcredit"
    scorer: str = Field(description="Kind, model and settings, as in `ResponseScore.scorer`.")
    steps: str = Field(description="How responses are split into steps.")


class ModelsAnswer(BaseModel):
    """All models."""

    object: str = "list"
    data: list[ModelJSON]


class RewardRequest(BaseModel):
    """OpenRLHF's request to a remote reward model."""

    query: list[Text] = Field(min_length=1, description="Prompt and response as one text.")
    prompts: list[Text] | None = Field(default=None, description="The prompt part of each text.")
    labels: list[Any] | None = Field(default=None, description="Accepted and ignored.")


class PoolingRequest(BaseModel):
    """vLLM's request for `/pooling` and `/classify`, of which these fields are looked at."""

    model: Text | None = None
    input: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    messages: Annotated[list[Turn], Field(min_length=2)] | None = None
