"""The two published conventions against a second implementation, written from their description."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stepcredit import ImplicitPRM
from stepcredit.encoding import BestOfNEncoding, EncodingError, ProcessBenchEncoding
from stepcredit.steps import StepRule
from stepcredit.types import Rollout

COEFFICIENT = 0.1
PROMPT = "Tom had 3 boxes."
LISTED = ["He had 3.", "Then Step by step\nhe got 9 more. ", "12"]
TEMPLATES = ["chatml", "llama3"]


@pytest.fixture(params=TEMPLATES)
def pair(request: Any, tmp_path: Path, make_model: Any, make_tokenizer: Any) -> tuple[Path, Path]:
    for seed, name in enumerate(("policy", "reference")):
        make_model(seed).save_pretrained(str(tmp_path / name))
        make_tokenizer(request.param).save_pretrained(str(tmp_path / name))
    return tmp_path / "policy", tmp_path / "reference"


def log_probs(model: Any, ids: list[int]) -> torch.Tensor:
    """Entry p belongs to token p + 1."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model.double()(input_ids=tokens).logits[0, :-1]
    return torch.log_softmax(logits, -1).gather(1, tokens[0, 1:, None])[:, 0]


def published(
    tokenizer: Any, models: list[Any], steps: list[str], tidy: Callable[[str], str], *, mask_labels: bool
) -> list[float]:
    """Cumulative rewards at the boundaries, as the scripts compute them."""

    def conversation(count: int) -> str:
        messages = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "\n\n".join(steps[:count])},
        ]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))

    boundaries = []
    for count in range(len(steps) + 1):
        text = conversation(count).strip()
        if count < len(steps):
            text = tidy(text)
        if 0 < count < len(steps):
            text += "\n\n"
        boundaries.append(len(tokenizer(text, add_special_tokens=False)["input_ids"]) - 2)
    ids = tokenizer(conversation(len(steps)), add_special_tokens=False)["input_ids"]
    ratios = log_probs(models[0], ids)
    if len(models) > 1:
        ratios = ratios - log_probs(models[1], ids)
    # A mask over labels counts tokens, one more than entries of the shifted log-probabilities.
    ratios[: boundaries[0] - 1 if mask_labels else boundaries[0]] = 0
    cumulative = COEFFICIENT * torch.cumsum(ratios, 0)
    return [float(cumulative[min(b, len(cumulative) - 1)]) for b in boundaries[1:]]


def load(pair: tuple[Path, Path], convention: str, *, free: bool = False) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(
        pair[0],
        reference=None if free else pair[1],
        beta=COEFFICIENT,
        reference_free=free,
        convention=convention,
    )


def tokenizer_of(scorer: ImplicitPRM) -> Any:
    encoding = scorer.encoding
    assert isinstance(encoding, ProcessBenchEncoding | BestOfNEncoding)
    return encoding.tokenizer


@pytest.mark.parametrize("free", [False, True])
def test_processbench(pair: tuple[Path, Path], free: bool, make_model: Any) -> None:
    scorer = load(pair, "processbench", free=free)
    models = [make_model(0)] if free else [make_model(0), make_model(1)]
    steps = [f"Step {i}: {text}" for i, text in enumerate(LISTED, 1)]
    expected = published(tokenizer_of(scorer), models, steps, lambda text: text, mask_labels=False)
    rollout = Rollout(
        id="1", prompt_id="1", prompt=PROMPT, response="\n\n".join(LISTED), extras={"steps": LISTED}
    )
    (score,) = scorer.score_all([rollout])
    assert [step.value for step in score.steps] == pytest.approx(expected, abs=1e-5)
    assert score.reward == score.steps[-1].value
    assert score.scored_text == "\n\n".join(steps)
    assert "".join(step.text for step in score.steps) == score.scored_text


@pytest.mark.parametrize("free", [False, True])
def test_best_of_n(pair: tuple[Path, Path], free: bool, make_model: Any) -> None:
    def without_llama3_tail(text: str) -> str:
        text = re.sub(r"<\|start_header_id\|>assistant<\|end_header_id\|>$", "", text)
        return re.sub(r"<\|eot_id\|>$", "", text)

    scorer = load(pair, "best-of-n", free=free)
    models = [make_model(0)] if free else [make_model(0), make_model(1)]
    response = "Step 1: He had 3.\n\nStep 7: Then Step by step\nhe got 9 more. Step 8: 12"
    steps = ["Step 1: He had 3.", "Step 2: Then step by step\nhe got 9 more.", "Step 3: 12"]
    values = published(tokenizer_of(scorer), models, steps, without_llama3_tail, mask_labels=True)
    rewards = [after - before for before, after in zip([0.0, *values], values, strict=False)]
    score = scorer.score(PROMPT, response)
    assert score.scored_text == "\n\n".join(steps)
    assert [step.reward for step in score.steps] == pytest.approx(rewards, abs=1e-5)
    assert score.aggregates["min"] == pytest.approx(min(rewards), abs=1e-5)
    assert score.aggregates["sum"] == pytest.approx(sum(rewards), abs=1e-5)
    assert score.aggregates["cumulative_min"] == pytest.approx(min(values), abs=1e-5)
    assert score.aggregates["cumulative_sum"] == pytest.approx(sum(values), abs=2e-5)


def test_the_clean_convention_reports_no_cumulative_aggregates(pair: tuple[Path, Path]) -> None:
    assert "cumulative_min" not in load(pair, "clean").score(PROMPT, "a").aggregates


def test_responses_without_listed_steps_are_cut_by_the_rule(make_tokenizer: Any) -> None:
    encoding = ProcessBenchEncoding(make_tokenizer(), StepRule("newline"))
    encoded = encoding.encode(Rollout(id="1", prompt_id="1", prompt=PROMPT, response="a\n\nb\n"))
    assert encoded.scored_text == "Step 1: a\n\nStep 2: b"


def test_a_response_without_step_numbers_is_one_step(make_tokenizer: Any) -> None:
    encoding = BestOfNEncoding(make_tokenizer(), StepRule("auto"))
    encoded = encoding.encode(Rollout(id="1", prompt_id="1", prompt=PROMPT, response="a\n\nb\n"))
    assert encoded.scored_text == "Step 1: a\n\nb"


def test_token_ends_are_offsets_in_the_rewritten_text(make_tokenizer: Any) -> None:
    for template in TEMPLATES:
        encoding = BestOfNEncoding(make_tokenizer(template), StepRule("auto"))
        encoded = encoding.encode(Rollout(id="1", prompt_id="1", prompt=PROMPT, response="Step 1: pens"))
        assert encoded.scored_text is not None
        assert len(encoded.token_ends) == encoded.encoded.num_scored
        assert encoded.token_ends[-1] == len(encoded.scored_text)
        ends = encoded.token_ends
        shown = [encoded.scored_text[a:b] for a, b in zip((0, *ends), ends, strict=False)]
        assert [text for text in shown if text] == ["Step", " ", "1", ":", " pens"]


@pytest.mark.parametrize("response", ["", "  \n"])
def test_nothing_to_score_is_an_encoding_error(response: str, make_tokenizer: Any) -> None:
    for encoding in (
        BestOfNEncoding(make_tokenizer(), StepRule("auto")),
        ProcessBenchEncoding(make_tokenizer(), StepRule("auto")),
    ):
        with pytest.raises(EncodingError) as caught:
            encoding.encode(Rollout(id="1", prompt_id="1", prompt=PROMPT, response=response))
        assert caught.value.kind == "nothing-to-score"
