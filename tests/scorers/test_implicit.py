import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stepcredit import ImplicitPRM
from stepcredit.checkpoints import PRMCard, Reference, save_prm, weights_hash
from stepcredit.encoding import EncodingError
from stepcredit.errors import CheckpointError, UserError
from stepcredit.logprobs import CachedTokenLogProbs
from stepcredit.types import Encoded, ResponseScore, Rollout

BETA = 0.3
PROMPT = "Tom had 3 pens."
RESPONSES = ["Step 1: 3\nStep 2: é😀\n", "3", "a\n\nb\nc", "", "pens\nleaves"]
Pair = tuple[Path, Path]


def load(pair: Pair, **options: Any) -> ImplicitPRM:
    policy, reference = pair
    defaults: dict[str, Any] = {"reference": reference, "beta": BETA, "steps": "newline"}
    return ImplicitPRM.from_pretrained(policy, **(defaults | options))


def rollouts() -> list[Rollout]:
    rows = []
    for index, response in enumerate([*RESPONSES, RESPONSES[0]]):
        for prompt in (PROMPT, "And 4?"):
            name = f"{prompt[0]}{index}"
            rows.append(Rollout(id=name, prompt_id=prompt[0], prompt=prompt, response=response))
    return rows


def naive_log_probs(model: Any, token_ids: list[int]) -> torch.Tensor:
    """Of every token but the first, by the model's own logits in float64."""
    ids = torch.tensor([token_ids])
    with torch.no_grad():
        logits = model.double()(input_ids=ids).logits[0, :-1]
    return torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]


def naive_steps(scorer: ImplicitPRM, models: list[Any], prompt: str, response: str) -> list[float]:
    """Step rewards from one tokenisation of the whole text, token by token."""
    tokenizer: Any = scorer.encoding.tokenizer  # type: ignore[attr-defined]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer(text + response + "<|im_end|>", add_special_tokens=False, return_offsets_mapping=True)
    log_ratios = naive_log_probs(models[0], whole["input_ids"])
    if len(models) > 1:
        log_ratios = log_ratios - naive_log_probs(models[1], whole["input_ids"])
    step_ends = [
        i + 1 for i, c in enumerate(response) if c == "\n" and response[i + 1 : i + 2] not in ("", "\n")
    ]
    rewards = [0.0] * (len(step_ends) + 1)
    for (start, _), log_ratio in zip(whole["offset_mapping"][1:], log_ratios.tolist(), strict=True):
        if start >= len(text):
            rewards[sum(start - len(text) >= end for end in step_ends)] += BETA * log_ratio
    return rewards


@pytest.mark.parametrize("reference_free", [False, True])
@pytest.mark.parametrize("response", RESPONSES)
def test_step_rewards_against_a_naive_float64_computation(
    saved_pair: Pair, make_model: Callable[..., Any], reference_free: bool, response: str
) -> None:
    free = {"reference": None, "reference_free": True} if reference_free else {}
    scorer = load(saved_pair, **free)
    models = [make_model(0)] if reference_free else [make_model(0), make_model(1)]
    score = scorer.score(PROMPT, response)
    expected = naive_steps(scorer, models, PROMPT, response)
    assert [step.reward for step in score.steps] == pytest.approx(expected, abs=2e-5)
    assert [step.value for step in score.steps] == pytest.approx(np.cumsum(expected), abs=4e-5)
    assert score.reward == score.steps[-1].value
    assert "".join(step.text for step in score.steps) == response
    assert score.aggregates["min"] == min(step.reward for step in score.steps)


def test_a_reference_floor_bounds_what_a_rare_token_can_earn(saved_pair: Pair) -> None:
    floor = 0.01
    plain = load(saved_pair, with_tokens=True).score(PROMPT, RESPONSES[0])
    bounded = load(saved_pair, with_tokens=True, reference_floor=floor).score(PROMPT, RESPONSES[0])
    alone = ImplicitPRM.from_pretrained(
        saved_pair[1], beta=1.0, reference_free=True, steps="newline", with_tokens=True
    ).score(PROMPT, RESPONSES[0])
    reference = np.array(alone.token_rewards)
    excess = np.maximum(0.0, np.log(floor) - reference)
    assert 0 < (excess > 0).sum() < len(excess)
    expected = np.array(plain.token_rewards) - BETA * excess
    assert np.array(bounded.token_rewards) == pytest.approx(expected, abs=1e-5)
    assert sum(step.reward for step in bounded.steps) == pytest.approx(expected.sum(), abs=1e-4)
    assert "reference floor 0.01" in bounded.scorer


def test_a_reference_floor_needs_a_reference_and_is_a_probability(saved_pair: Pair) -> None:
    with pytest.raises(UserError, match="--reference-floor: needs a reference"):
        load(saved_pair, reference=None, reference_free=True, reference_floor=0.1)
    with pytest.raises(ValueError, match="must lie in"):
        load(saved_pair, reference_floor=1.0)


def test_an_unfinished_response_has_no_end_of_turn(saved_pair: Pair) -> None:
    scorer = load(saved_pair, with_tokens=True)
    whole = scorer.score(PROMPT, RESPONSES[0])
    begun = scorer.score(PROMPT, RESPONSES[0], finished=False)
    assert whole.token_rewards is not None
    assert begun.token_rewards is not None
    assert begun.token_rewards == pytest.approx(whole.token_rewards[:-1], abs=1e-6)
    assert begun.reward == pytest.approx(sum(whole.token_rewards[:-1]), abs=1e-6)
    assert abs(begun.reward - whole.reward) > 1e-3
    with pytest.raises(EncodingError, match="has no tokens"):
        scorer.score(PROMPT, "", finished=False)


def test_order_window_and_duplicates_change_nothing(saved_pair: Pair) -> None:
    alone = load(saved_pair)
    expected = [alone.score(row.prompt, row.response) for row in rollouts()]
    for window in (1, 3, 1000):
        scores = list(load(saved_pair, window=window).score_all(iter(rollouts())))
        assert [(score.id, score.prompt_id) for score in scores] == [(r.id, r.prompt_id) for r in rollouts()]
        for score, one in zip(scores, expected, strict=True):
            assert score.reward == pytest.approx(one.reward, abs=1e-5)
            assert [s.reward for s in score.steps] == pytest.approx([s.reward for s in one.steps], abs=1e-5)


def test_equal_responses_of_a_prompt_are_computed_once(saved_pair: Pair) -> None:
    scorer = load(saved_pair)
    asked: list[int] = []
    policy = scorer.policy

    class Counting:
        fingerprint = policy.fingerprint

        def of(self, encoded: Any) -> Any:
            asked.append(len(encoded))
            return policy.of(encoded)

    scorer.policy = Counting()
    assert len(list(scorer.score_all(rollouts()))) == 2 * (len(RESPONSES) + 1)
    assert asked == [2 * len(RESPONSES)]


def test_a_window_is_read_only_when_it_is_needed(saved_pair: Pair) -> None:
    read: list[str] = []

    def reading() -> Any:
        for row in rollouts():
            read.append(row.id)
            yield row

    scores = load(saved_pair, window=2).score_all(reading())
    next(scores)
    assert len(read) == 2


def test_what_cannot_be_encoded_raises_or_is_handed_over(saved_pair: Pair) -> None:
    long = Rollout(id="long", prompt_id="p", prompt=PROMPT, response="a " * 600)
    rows = [*rollouts(), long, *[replace(row, id=row.id + "x") for row in rollouts()]]
    with pytest.raises(EncodingError, match=r"long: .*context of 512"):
        list(load(saved_pair).score_all(rows))
    left_out: list[EncodingError] = []
    scores = list(load(saved_pair).score_all(rows, on_skip=left_out.append))
    assert [error.kind for error in left_out] == ["too-long"]
    assert [score.id for score in scores] == [row.id for row in rows if row is not long]


def test_token_rewards_add_up_to_the_steps(saved_pair: Pair) -> None:
    score = load(saved_pair, with_tokens=True).score(PROMPT, RESPONSES[0])
    assert score.token_rewards is not None
    assert score.token_ends is not None
    assert len(score.token_rewards) == len(score.token_ends) == score.num_tokens
    assert sum(score.token_rewards) == pytest.approx(score.reward)
    starts = (0, *score.token_ends[:-1])
    first = [
        reward
        for start, reward in zip(starts, score.token_rewards, strict=True)
        if start < score.steps[0].end
    ]
    assert sum(first) == pytest.approx(score.steps[0].reward)
    assert load(saved_pair).score(PROMPT, "x").token_rewards is None


def test_a_model_that_gives_no_number_is_reported(saved_pair: Pair) -> None:
    scorer = load(saved_pair)

    class Broken:
        fingerprint = "broken"

        def of(self, encoded: Any) -> Any:
            return [np.full(item.num_scored, np.nan, np.float32) for item in encoded]

    scorer.policy = Broken()
    with pytest.raises(UserError, match="reward of nan"):
        scorer.score(PROMPT, "a")


def test_a_cache_keeps_the_references_log_probabilities(saved_pair: Pair, tmp_path: Path) -> None:
    expected = load(saved_pair, cache=tmp_path / "cache").score(PROMPT, RESPONSES[0])
    again = load(saved_pair, cache=tmp_path / "cache")
    assert isinstance(again.reference, CachedTokenLogProbs)
    assert again.score(PROMPT, RESPONSES[0]) == expected
    assert again.reference.counts.hits == 1
    assert again.reference.counts.misses == 0


class Constant:
    """Log-probabilities of a model that is somewhere else."""

    fingerprint = "constant"

    def __init__(self, log_prob: float) -> None:
        self.log_prob = log_prob

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        return [np.full(item.num_scored, self.log_prob, np.float32) for item in encoded]


def test_models_may_be_somewhere_else(saved_prm: Pair, tmp_path: Path, make_tokenizer: Any) -> None:
    (saved_prm[0] / "model.safetensors").unlink()
    prm = ImplicitPRM.from_pretrained(saved_prm[0], Constant(-2.0), policy=Constant(-1.5))
    score = prm.score(PROMPT, RESPONSES[0])
    assert score.reward == pytest.approx(BETA * 0.5 * score.num_tokens)
    with pytest.raises(EncodingError, match=r"context of 512"):
        prm.score(PROMPT, "a " * 600)
    make_tokenizer().save_pretrained(str(tmp_path / "only-tokenizer"))
    bare = ImplicitPRM.from_pretrained(
        tmp_path / "only-tokenizer", Constant(-2.0), beta=1.0, policy=Constant(-1.5)
    )
    assert bare.score(PROMPT, "a " * 600).num_tokens > 512


@pytest.fixture
def saved_prm(saved_pair: Pair, make_model: Any, make_tokenizer: Any) -> tuple[Path, Path]:
    """A PRM directory with its prm.json, and its reference's directory."""
    policy, reference = saved_pair
    card = PRMCard(
        beta=BETA,
        objective="ce",
        step_rule="newline",
        reference=Reference.local(reference, policy, weights_hash(reference)),
    )
    save_prm(make_model(0), make_tokenizer(), card, policy)
    return policy, reference


def test_a_saved_prm_loads_with_its_reference_beta_and_step_rule(saved_prm: Pair, saved_pair: Pair) -> None:
    prm = ImplicitPRM.from_pretrained(saved_prm[0])
    expected = load(saved_pair).score(PROMPT, RESPONSES[0])
    assert without_name(prm.score(PROMPT, RESPONSES[0])) == without_name(expected)
    assert prm.beta == BETA


def edit_card(directory: Path, **fields: Any) -> None:
    content = json.loads((directory / "prm.json").read_text()) | fields
    (directory / "prm.json").write_text(json.dumps(content))


def test_what_a_card_does_not_say_is_said(saved_prm: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    expected = ImplicitPRM.from_pretrained(saved_prm[0]).score(PROMPT, "a")
    assert "warning" not in capsys.readouterr().err
    content = json.loads((saved_prm[0] / "prm.json").read_text())
    reference = content["reference"] | {"weights_hash": None}
    edit_card(saved_prm[0], weights_hash=None, template_hash=None, reference=reference)
    assert ImplicitPRM.from_pretrained(saved_prm[0]).score(PROMPT, "a") == expected
    said = capsys.readouterr().err
    assert "policy: prm.json does not say which weights and chat template it was trained with" in said
    assert "prm.json has no weights_hash of the reference" in said


def test_a_card_without_reference_is_taken_as_reference_free_aloud(
    saved_prm: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ImplicitPRM.from_pretrained(saved_prm[0], reference_free=True).score(PROMPT, "a")
    edit_card(saved_prm[0], reference=None)
    assert ImplicitPRM.from_pretrained(saved_prm[0]).score(PROMPT, "a") == expected
    assert "policy: prm.json names no reference" in capsys.readouterr().err
    ImplicitPRM.from_pretrained(saved_prm[0], reference_free=True)
    edit_card(saved_prm[0], settings={"reference_free": True})
    ImplicitPRM.from_pretrained(saved_prm[0])
    assert "names no reference" not in capsys.readouterr().err


def test_a_prm_moves_with_its_reference(saved_prm: Pair, tmp_path: Path) -> None:
    expected = ImplicitPRM.from_pretrained(saved_prm[0]).score(PROMPT, "a\nb")
    (tmp_path / "elsewhere").mkdir()
    for directory in saved_prm:
        shutil.move(directory, tmp_path / "elsewhere" / directory.name)
    moved = ImplicitPRM.from_pretrained(tmp_path / "elsewhere/policy").score(PROMPT, "a\nb")
    assert moved == expected


def without_name(score: ResponseScore) -> ResponseScore:
    return replace(score, scorer="")


def test_a_missing_reference_is_named(saved_prm: Pair) -> None:
    shutil.rmtree(saved_prm[1])
    with pytest.raises(CheckpointError, match=r"the reference model .*reference is not there.*--reference"):
        ImplicitPRM.from_pretrained(saved_prm[0])
    assert ImplicitPRM.from_pretrained(saved_prm[0], reference_free=True).reference is None


def test_another_reference_is_refused(saved_prm: Pair, make_model: Any) -> None:
    make_model(7).save_pretrained(str(saved_prm[1]))
    with pytest.raises(CheckpointError, match="not the reference that the PRM was trained with"):
        ImplicitPRM.from_pretrained(saved_prm[0])


def test_a_mismatched_tokenizer_or_template_is_named(saved_prm: Pair, make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template + " "
    tokenizer.save_pretrained(str(saved_prm[0]))
    with pytest.raises(CheckpointError, match="the chat template differs"):
        ImplicitPRM.from_pretrained(saved_prm[0])
    make_tokenizer("llama3").save_pretrained(str(saved_prm[0]))
    with pytest.raises(CheckpointError, match="the tokenizer and the chat template differ"):
        ImplicitPRM.from_pretrained(saved_prm[0])


def test_a_reference_with_another_tokenizer_is_refused(saved_pair: Pair, make_tokenizer: Any) -> None:
    make_tokenizer("llama3").save_pretrained(str(saved_pair[1]))
    with pytest.raises(CheckpointError, match="reference: its tokenizer differs"):
        load(saved_pair)


def test_a_tokenizer_too_large_for_the_model_is_refused(saved_pair: Pair, make_model: Any) -> None:
    make_model(0, vocab_size=300).save_pretrained(str(saved_pair[0]))
    with pytest.raises(CheckpointError, match="ids up to 339, but the model has only 300 embeddings"):
        load(saved_pair)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": None}, "has no beta.*--beta"),
        ({"reference": None}, "names no reference.*--reference"),
        ({"reference_free": True}, "--reference: a reference-free score has no reference"),
        ({"beta": -1.0}, "--beta: must be above 0"),
        ({"steps": "lines"}, "no step rule 'lines'"),
        ({"convention": "mine"}, "no convention 'mine'"),
    ],
)
def test_what_is_missing_is_said(saved_pair: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(saved_pair, **options)


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a model directory"):
        ImplicitPRM.from_pretrained(tmp_path / "nothing")


def test_an_adapter_switched_off_is_its_own_reference(
    saved_pair: Pair, tmp_path: Path, make_tokenizer: Any
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    policy, _ = saved_pair
    torch.manual_seed(3)
    adapted: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(policy)),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    adapted.save_pretrained(str(adapter))
    make_tokenizer().save_pretrained(str(adapter))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(policy)
    adapted.merge_and_unload().save_pretrained(str(merged))
    make_tokenizer().save_pretrained(str(merged))
    expected = load((merged, policy)).score(PROMPT, RESPONSES[0])
    score = load((adapter, policy), reference=None).score(PROMPT, RESPONSES[0])
    assert [s.reward for s in score.steps] == pytest.approx([s.reward for s in expected.steps], abs=1e-5)
    assert abs(score.reward) > 1e-3
