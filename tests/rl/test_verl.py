"""The reward manager against verl's own classes; verl is installed beside the project (see CONTRIBUTING)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.rl.conftest import PROMPT, RIGHT, WRONG, ids_of, lab_prm, messages

from stepcredit.checkpoints import PRMCard, Reference, load_tokenizer, save_prm, weights_hash
from stepcredit.errors import UserError
from stepcredit.lab.policies import policy_path
from stepcredit.rl import token_rewards

pytest.importorskip("verl.experimental.reward_loop.reward_manager.base")


@pytest.fixture(scope="module")
def prm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("verl") / "prm"
    folder.mkdir()
    reference = Reference.local(policy_path("mid"), folder, weights_hash(policy_path("mid")))
    card = PRMCard(reference=reference, beta=0.5, step_rule="newline")
    model = AutoModelForCausalLM.from_pretrained(str(policy_path("strong")))
    save_prm(model, load_tokenizer(policy_path("strong")), card, folder)
    return folder


def configuration(prm: Path, **settings: Any) -> Any:
    from omegaconf import OmegaConf

    manager = {
        "source": "importlib",
        "name": "StepRewardManager",
        "module": {"path": "pkg://stepcredit.rl.verl"},
    }
    return OmegaConf.create(
        {"reward": {"reward_manager": manager, "reward_kwargs": {"prm": str(prm), **settings}}}
    )


def loaded(prm: Path, **settings: Any) -> Any:
    """As verl's workers make it."""
    from verl.trainer.ppo.reward import load_reward_manager

    def outcome(solution_str: str, ground_truth: str, **_: Any) -> dict[str, Any]:
        return {"score": float(solution_str.endswith(f"#{ground_truth}"))}

    manager = load_reward_manager(
        configuration(prm, **settings),
        load_tokenizer(policy_path("mid")),
        reward_router_address=None,
        reward_model_tokenizer=None,
    )
    manager.compute_score = outcome
    return manager


def batch(**fields: Any) -> Any:
    """Two responses as verl pads them: prompts on the left, responses on the right."""
    from verl import DataProto

    tokenizer: Any = load_tokenizer(policy_path("mid"))
    prompt = lab_prm().encoding.prompt_ids(PROMPT)  # type: ignore[attr-defined]
    responses = [ids_of(tokenizer, RIGHT), ids_of(tokenizer, WRONG[:11], finished=False)]
    width = len(responses[0]) + 2
    pad = tokenizer.pad_token_id
    prompts = torch.tensor([[pad, *prompt]] * 2)
    padded = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in responses])
    masks = [[0, *[1] * len(prompt), *[1] * len(ids), *[0] * (width - len(ids))] for ids in responses]
    return DataProto.from_dict(
        tensors={"prompts": prompts, "responses": padded, "attention_mask": torch.tensor(masks), **fields},
        non_tensors={
            "data_source": np.array(["lab"] * 2, dtype=object),
            "reward_model": np.array([{"ground_truth": "8"}] * 2, dtype=object),
            "raw_prompt": np.array([messages(PROMPT)] * 2 + [None], dtype=object)[:2],
        },
    )


def scores(manager: Any, data: Any) -> list[dict[str, Any]]:
    async def all_of_them() -> list[dict[str, Any]]:
        return [await manager.run_single(data[place : place + 1]) for place in range(len(data))]

    return asyncio.run(all_of_them())


def test_verl_loads_the_manager_by_path_and_lays_its_rewards_on_tokens(prm_folder: Path) -> None:
    data, manager = batch(), loaded(prm_folder)
    results = scores(manager, data)
    rows = type(manager).assemble_rm_scores(data, [result["reward_score"] for result in results])
    assert rows.shape == data.batch["responses"].shape
    assert rows.dtype == torch.float32
    prm = lab_prm()
    prompt = list(prm.encoding.prompt_ids(PROMPT))  # type: ignore[attr-defined]
    for place, text in enumerate((RIGHT, WRONG[:11])):
        ids = ids_of(prm.encoding.tokenizer, text, finished=place == 0)  # type: ignore[attr-defined]
        (expected,) = token_rewards(prm, [prompt], [ids])
        expected[-1] += place == 0
        assert rows[place, : len(ids)].numpy() == pytest.approx(expected, abs=1e-5)
        assert not rows[place, len(ids) :].any()
    assert [result["reward_extra_info"]["clipped"] for result in results] == [0.0, 1.0]
    assert [result["reward_extra_info"]["acc"] for result in results] == [1.0, 0.0]


def test_tokens_of_tools_get_no_rewards(prm_folder: Path) -> None:
    data = batch()
    mask = data.batch["attention_mask"][:, -data.batch["responses"].size(1) :].clone()
    mask[:, 3:7] = 0
    data = batch(response_mask=mask)
    manager = loaded(prm_folder, outcome_weight=0.0)
    for result in scores(manager, data):
        assert not result["reward_score"].tokens[3:7].any()
        assert "acc" not in result["reward_extra_info"]


def test_as_a_number_a_reward_is_what_verls_agent_loop_puts_on_the_last_token(prm_folder: Path) -> None:
    score: Any = scores(loaded(prm_folder), batch()[0:1])[0]["reward_score"]
    assert float in type(score).__mro__
    (number,) = torch.tensor([score], dtype=torch.float32).tolist()
    assert number == pytest.approx(score.tokens.sum(), abs=1e-5)


def test_settings_that_there_are_not_are_refused(prm_folder: Path) -> None:
    with pytest.raises(UserError, match=r"reward\.reward_kwargs.*wieght"):
        loaded(prm_folder, wieght=1.0)


def test_compute_score_takes_what_verls_naive_manager_gives(prm_folder: Path) -> None:
    from stepcredit.rl.verl import compute_score

    row: dict[str, Any] = {"data_source": "lab", "ground_truth": "8", "prm": str(prm_folder)}
    row["grader"] = "math"
    result = compute_score(solution_str=RIGHT, extra_info={"prompt": PROMPT, "num_turns": 2}, **row)
    assert result["acc"] == 1.0
    assert result["process_reward"] == pytest.approx(
        lab_prm().score(PROMPT, RIGHT).aggregates["min"], abs=1e-5
    )
    assert result["score"] == pytest.approx(1.0 + result["process_reward"])
    problem = {"task": "chain_sum", "seed": 0, "size": 1, "settings": {}, "index": 0}
    of_task = {"prompt": PROMPT, "reasoning_gym": problem}
    by_task = compute_score(solution_str=RIGHT, extra_info=of_task, **{**row, "grader": "reasoning-gym"})
    assert by_task["acc"] == 0.0
    from_parquet = np.array([{"role": "user", "content": PROMPT}], dtype=object)
    assert compute_score(solution_str=RIGHT, extra_info={"prompt": from_parquet}, **row) == result
    with pytest.raises(UserError, match=r"holds no prompt.*extra_info\.prompt"):
        compute_score(solution_str=RIGHT, **row)
