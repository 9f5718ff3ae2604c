from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.rl.conftest import PROMPT, RIGHT, WRONG, ids_of, lab_prm

from stepcredit.errors import DataError, UserError
from stepcredit.lab.policies import policy_path
from stepcredit.rl import StepRewards, token_rewards
from stepcredit.rl.trajectories import _on_steps
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.kinds import load_scorer
from stepcredit.steps import StepRule


def prompt_ids(prm: ImplicitPRM) -> list[int]:
    return list(prm.encoding.prompt_ids(PROMPT))  # type: ignore[attr-defined]


def tokenizer_of(prm: ImplicitPRM) -> Any:
    return prm.encoding.tokenizer  # type: ignore[attr-defined]


def naive(token_ids: list[int], place: int) -> float:
    """Beta times the log-ratio of one token, by both models' logits in float64."""
    from transformers import AutoModelForCausalLM

    values = []
    for name in ("strong", "mid"):
        model = AutoModelForCausalLM.from_pretrained(str(policy_path(name))).double().eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([token_ids[:place]])).logits[0, -1]
        values.append(float(torch.log_softmax(logits, -1)[token_ids[place]]))
    return 0.5 * (values[0] - values[1])


def test_of_one_turn_they_are_those_of_the_text(prm: ImplicitPRM) -> None:
    ids = [ids_of(tokenizer_of(prm), text) for text in (RIGHT, WRONG)]
    by_ids = token_rewards(prm, [prompt_ids(prm)] * 2, ids)
    by_text = StepRewards(prm).per_token([PROMPT] * 2, ids)
    for left, right in zip(by_ids, by_text, strict=True):
        assert left == pytest.approx(right, abs=1e-6)


def test_of_several_turns_only_the_policys_tokens_are_rewarded(prm: ImplicitPRM) -> None:
    tokenizer = tokenizer_of(prm)
    turn, tool, rest = ids_of(tokenizer, "7*8=6\n"), ids_of(tokenizer, "<|user|>6+5<|assistant|>"), RIGHT[6:]
    response = [*turn, *tool, *ids_of(tokenizer, rest)]
    mask = [1] * len(turn) + [0] * len(tool) + [1] * (len(rest) + 1)
    (rewards,) = token_rewards(prm, [prompt_ids(prm)], [response], [mask])
    assert rewards[np.array(mask) == 0].tolist() == [0.0] * len(tool)
    whole = [*prompt_ids(prm), *response]
    for place in (0, len(turn) - 1, len(turn) + len(tool), len(response) - 1):
        assert rewards[place] == pytest.approx(naive(whole, len(prompt_ids(prm)) + place), abs=1e-5)


def test_each_turn_is_cut_into_steps_by_itself(prm: ImplicitPRM) -> None:
    tokenizer = tokenizer_of(prm)
    turn, tool = ids_of(tokenizer, "7*8=6\n6+5=1"), ids_of(tokenizer, "6")
    response = [*turn, *tool, *turn]
    mask = [1] * len(turn) + [0] * len(tool) + [1] * len(turn)
    tokens, steps = (
        token_rewards(prm, [prompt_ids(prm)], [response], [mask], layout=layout)[0]
        for layout in ("tokens", "steps")
    )
    ends = [5, len(turn) - 1, len(turn) + len(tool) + 5, len(response) - 1]
    assert np.flatnonzero(steps).tolist() == ends
    assert steps[5] == pytest.approx(tokens[:6].sum())
    assert steps[ends[1]] == pytest.approx(tokens[6 : len(turn)].sum())
    assert steps.sum() == pytest.approx(tokens.sum())


def test_an_empty_response_or_an_empty_mask_has_no_rewards(prm: ImplicitPRM) -> None:
    rewards = token_rewards(prm, [prompt_ids(prm)] * 2, [[], [5, 6]], [[], [0, 0]])
    assert [array.tolist() for array in rewards] == [[], [0.0, 0.0]]


def test_the_reference_floor_holds_here_too() -> None:
    prm, floored = lab_prm(), lab_prm(reference_floor=0.9)
    ids = ids_of(tokenizer_of(prm), WRONG)
    plain, bounded = (token_rewards(scorer, [prompt_ids(prm)], [ids])[0] for scorer in (prm, floored))
    assert (bounded <= plain + 1e-9).all()
    assert bounded.sum() < plain.sum() - 0.1


def test_what_does_not_match_is_refused_with_its_place(prm: ImplicitPRM) -> None:
    with pytest.raises(DataError, match="trajectory 1: has 2 tokens and a mask of 1"):
        token_rewards(prm, [[1], [1]], [[5], [5, 6]], [[1], [1]])
    with pytest.raises(DataError, match="there are 1 prompts, 2 responses and 2 masks"):
        token_rewards(prm, [[1]], [[5], [6]])
    with pytest.raises(DataError, match="trajectory 0: token 99 is not one of the reward model's"):
        token_rewards(prm, [[1]], [[99]])
    with pytest.raises(DataError, match="trajectory 0: has no prompt"):
        token_rewards(prm, [[]], [[5]])
    with pytest.raises(UserError, match="trajectory 0: has 301 tokens, more than the context of 256"):
        token_rewards(prm, [[5]], [[5] * 300])


def test_other_kinds_of_reward_models_are_refused() -> None:
    other = load_scorer(policy_path("mid"), family="log-probability", steps="newline")
    with pytest.raises(UserError, match="does not score tokens by their ids"):
        token_rewards(other, [[5]], [[5]])


def test_a_step_inside_the_token_of_another_one_has_no_reward_of_its_own() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<end>": 0, "a;b;c": 1, "x;": 2}, unk_token="<end>"))
    words.decoder = decoders.Fuse()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")
    encoding: Any = SimpleNamespace(tokenizer=tokenizer, step_rule=StepRule.parse("separator:;"))
    # a; and b; and cx; and x; where the second starts in the first token and so does the third.
    rewards = _on_steps(np.array([1.0, 10.0, 100.0]), [1, 2, 2], np.ones(3, dtype=bool), encoding)
    assert rewards.tolist() == [1.0, 10.0, 100.0]


@pytest.mark.parametrize("mask", [[0, 2], [-1, 1], [0, 0.5]])
def test_a_mask_of_other_numbers_is_refused(prm: ImplicitPRM, mask: Any) -> None:
    with pytest.raises(DataError, match="trajectory 0: has a mask of other numbers than 0 and 1"):
        token_rewards(prm, [prompt_ids(prm)], [[1, 2]], [mask])


def test_tensors_are_taken_too(prm: ImplicitPRM) -> None:
    prompt, response, mask = prompt_ids(prm), [1, 2], [0, 1]
    (expected,) = token_rewards(prm, [prompt], [response], [mask])
    tensors: Any = [torch.tensor([numbers]) for numbers in (prompt, response, mask)]
    (rewards,) = token_rewards(prm, *tensors)
    assert rewards.tolist() == expected.tolist()
