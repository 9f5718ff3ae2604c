from __future__ import annotations

from pathlib import Path

import numpy as np

from stepcredit.data import read_scores, rollout_to_json, write_rows
from stepcredit.pipelines import score
from stepcredit.types import Rollout
from stepcredit_study.analyses.step_tokens import means_and_lengths

RESPONSES = ("12 - 4 = 8\n8 * 3 = 24\n#### 24", "5\n7 + 60 = 67")


def test_the_references_step_is_its_mean_over_tokens(small_model: Path, tmp_path: Path) -> None:
    rows = [
        Rollout(id=str(n), prompt_id="p", prompt="How many?", response=text, finish_reason="stop")
        for n, text in enumerate(RESPONSES)
    ]
    data, out = tmp_path / "data.jsonl", tmp_path / "scores.jsonl"
    write_rows(data, map(rollout_to_json, rows))
    score.run(
        score.Options(
            input=data,
            prm=str(small_model),
            out=out,
            family="log-probability",
            aggregate="mean",
            steps="newline",
            tokens=True,
        )
    )
    by_tokens = means_and_lengths(out)
    assert list(by_tokens) == [row.id for row in rows]
    for scored in read_scores(out):
        assert scored.token_rewards is not None
        assert scored.token_ends is not None
        groups: list[list[float]] = [[] for _ in scored.steps]
        for reward, end in zip(scored.token_rewards, scored.token_ends, strict=True):
            step = next((n for n, step in enumerate(scored.steps) if end <= step.end), len(groups) - 1)
            groups[step].append(reward)
        sums = [sum(group) for group in groups]
        np.testing.assert_allclose(sums, [step.reward for step in scored.steps], rtol=0, atol=1e-9)
        means, lengths = by_tokens[scored.id]
        expected = [total / len(group) for total, group in zip(sums, groups, strict=True)]
        np.testing.assert_allclose(means, expected, rtol=0, atol=1e-12)
        assert lengths.tolist() == [len(group) for group in groups]
