"""``stepcredit search``: ordinary rollouts, the chosen one first, and trees beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.processes import partial_rows, run_until_killed
from tests.servers.stub_server import Reply, stub_server

from stepcredit.checkpoints import load_tokenizer
from stepcredit.data import read_rollouts, write_rows
from stepcredit.errors import UserError
from stepcredit.grading.options import GraderOptions
from stepcredit.grading.reasoning_gym import FIELD
from stepcredit.lab.policies import policy_path
from stepcredit.lab.task import make_prompts
from stepcredit.pipelines import grade, score, search
from stepcredit.pipelines.search import Options, PolicyOptions, StepSampling, trees_path
from stepcredit.runs import read_manifest
from stepcredit.searching import STRATEGIES
from stepcredit.searching.options import SearchOptions

POLICY, BETTER = str(policy_path("mid")), str(policy_path("strong"))
NUM_PROBLEMS = 3
ANSWERS = GraderOptions(grader="exact", answer_pattern=r"#(\d)\s*$", num_workers=1)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": prompt.id, "prompt": prompt.prompt, "answer": prompt.answer}
        for prompt in make_prompts("train", seed=0, count=NUM_PROBLEMS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _options(prompts: Path, out: Path, *, strategy: str = "beam", **changes: Any) -> Options:
    """The reward model knows better than the policy: log-ratio of the strong policy to the middle one."""
    settings = {"width": 8, "expand": 4, **changes.pop("search", {})}
    return Options(
        **{
            "prompts": prompts,
            "out": out,
            "prm": BETTER,
            "reference": POLICY,
            "beta": 0.5,
            "steps": "newline",
            "search": SearchOptions(strategy=strategy, **settings),
            "policy": PolicyOptions(model=POLICY),
            "draw": StepSampling(max_new_tokens=64),
            "grading": ANSWERS,
            **changes,
        }
    )


def _trees(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trees_path(out).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_candidates_are_rollouts_that_other_commands_read(
    strategy: str, prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "rollouts.jsonl"
    result = search.run(_options(prompts, out, strategy=strategy))
    rollouts = list(read_rollouts(out))
    assert (result.num_prompts, result.num_rollouts) == (NUM_PROBLEMS, len(rollouts))
    first = [rollout for rollout in rollouts if rollout.index == 0]
    assert [rollout.extras["search"]["chosen"] for rollout in first] == [True] * NUM_PROBLEMS
    graded, scores = tmp_path / "graded.jsonl", tmp_path / "scores.jsonl"
    grade.run(grade.Options(rollouts=out, out=graded, grader="exact", answer_pattern=ANSWERS.answer_pattern))
    assert {rollout.correct for rollout in read_rollouts(graded)} <= {True, False}
    score.run(score.Options(input=out, out=scores, prm=BETTER, reference=POLICY, beta=0.5, steps="newline"))
    # What the search compared is what `score` says of the whole response.
    values = [json.loads(line)["steps"][-1]["value"] for line in scores.read_text().splitlines()]
    worths = [rollout.extras["search"]["worth"] for rollout in rollouts]
    assert worths == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("strategy", ["beam", "particle", "lookahead"])
def test_remembering_changes_nothing_but_the_work(strategy: str, prompts: Path, tmp_path: Path) -> None:
    remembering, stateless = tmp_path / "state.jsonl", tmp_path / "stateless.jsonl"
    search.run(_options(prompts, remembering, strategy=strategy))
    search.run(_options(prompts, stateless, strategy=strategy, state=False))
    for ours, theirs in zip(_trees(remembering), _trees(stateless), strict=True):
        for node, twin in zip(ours["nodes"], theirs["nodes"], strict=True):
            assert {**node, "worth": 0, "reward": 0} == {**twin, "worth": 0, "reward": 0}
            if node["worth"] is not None:
                assert node["worth"] == pytest.approx(twin["worth"], abs=1e-4)


def test_the_size_of_a_batch_changes_nothing(prompts: Path, tmp_path: Path) -> None:
    large, small = tmp_path / "large.jsonl", tmp_path / "small.jsonl"
    search.run(_options(prompts, large))
    search.run(_options(prompts, small, policy=PolicyOptions(model=POLICY, batch_samples=3)))
    for ours, theirs in zip(_trees(large), _trees(small), strict=True):
        assert [node["text"] for node in ours["nodes"]] == [node["text"] for node in theirs["nodes"]]


def test_a_budget_in_tokens_is_spent_per_problem(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    search.run(_options(prompts, out, search={"width": 4, "budget": 400}))
    for tree in _trees(out):
        # The round under way when it is spent is finished: at most one more response for each beam.
        assert 400 <= tree["generated_tokens"] < 400 + 4 * 64
        assert [node["parent"] for node in tree["nodes"]].count(0) > 4


@pytest.mark.parametrize("strategy", ["best-of-n", "beam"])
def test_a_server_that_keeps_the_stop_serves_every_strategy(
    strategy: str, prompts: Path, tmp_path: Path
) -> None:
    tokenizer: Any = load_tokenizer(POLICY)

    def write(number: int, body: dict[str, Any]) -> Reply:
        written = tokenizer.decode(body["prompt"]).partition("<|assistant|>")[2].count("\n")
        digit = body["seed"] % 10 if body["temperature"] else 5
        lines = [*[f"{digit}+{digit}={digit}\n"] * (2 - written), f"#{digit}"]
        text = lines[0] if body.get("include_stop_str_in_output") else "".join(lines)
        choice = {"text": text, "finish_reason": "stop"}
        return Reply({"choices": [choice], "usage": {"completion_tokens": len(text)}})

    trees = []
    with stub_server() as server:
        server.answer = write
        policy = PolicyOptions(
            model="lab", generator="openai", api="completions", base_url=server.url, tokenizer=POLICY
        )
        for name in ("once.jsonl", "again.jsonl"):
            search.run(_options(prompts, tmp_path / name, strategy=strategy, policy=policy))
            trees.append(_trees(tmp_path / name))
        asked = [body for body in server.seen if body.get("include_stop_str_in_output")]
    assert trees[0] == trees[1]
    assert all(rollout.response[-2] == "#" for rollout in read_rollouts(tmp_path / "once.jsonl"))
    assert bool(asked) == (strategy != "best-of-n")
    assert all(body["stop"] == ["\n"] for body in asked)


def test_what_is_written_adds_up(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = search.run(_options(prompts, out))
    trees = _trees(out)
    assert [tree["prompt_id"] for tree in trees] == [rollout.prompt_id for rollout in read_rollouts(out)][::2]
    generated = sum(node["num_tokens"] for tree in trees for node in tree["nodes"])
    ledger = (read_manifest(out) or {})["ledger"]
    assert result.ledger["generated_tokens"] == ledger["generated_tokens"] == generated
    assert ledger["scored_tokens"] == sum(tree["scored_tokens"] for tree in trees) > 0
    # The lab's models are of one size: one draws, two score.
    assert ledger["scoring_parameters"] == 2 * ledger["model_parameters"] > 0
    operations = 2 * ledger["model_parameters"] * (generated + 2 * ledger["scored_tokens"])
    assert ledger["flops"] == operations
    for tree in trees:
        assert [node["fate"] for node in tree["nodes"]].count("chosen") == 1
        for node in tree["nodes"][1:]:
            assert tree["nodes"][node["parent"]]["fate"] in ("kept", "lookahead")


def test_a_vote_takes_the_answer_that_weighs_most(prompts: Path, tmp_path: Path) -> None:
    best, vote = tmp_path / "best.jsonl", tmp_path / "vote.jsonl"
    search.run(_options(prompts, best, strategy="best-of-n"))
    search.run(_options(prompts, vote, strategy="weighted-best-of-n", search={"softmax_temperature": 1e6}))
    by_problem: dict[str, list[str]] = {}
    for rollout in read_rollouts(best):
        by_problem.setdefault(rollout.prompt_id, []).append(rollout.response[-1])
    for rollout in read_rollouts(vote):
        if rollout.index == 0:
            answers = by_problem[rollout.prompt_id]
            assert answers.count(rollout.response[-1]) == max(map(answers.count, answers))


def test_a_grader_that_reads_the_prompts_row_finds_the_same_answers(prompts: Path, tmp_path: Path) -> None:
    exact, of_task = tmp_path / "exact.jsonl", tmp_path / "task.jsonl"
    search.run(_options(prompts, exact, strategy="weighted-best-of-n"))
    problem = {"task": "chain_sum", "seed": 0, "size": NUM_PROBLEMS, "settings": {}}
    rows = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    write_rows(prompts, ({**row, FIELD: {**problem, "index": number}} for number, row in enumerate(rows)))
    grading = replace(ANSWERS, grader="reasoning-gym")
    search.run(_options(prompts, of_task, strategy="weighted-best-of-n", grading=grading))
    assert [r.response for r in read_rollouts(of_task)] == [r.response for r in read_rollouts(exact)]


def test_a_vote_by_other_rules_of_grading_is_another_search(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = _options(prompts, tmp_path / "vote.jsonl", strategy="weighted-best-of-n")
    search.run(options)
    assert search.run(options).already_complete
    monkeypatch.setattr("stepcredit.grading.simple.RULES", 1000)
    with pytest.raises(UserError, match="--overwrite"):
        search.run(options)


def test_only_what_was_chosen_is_written_on_request(prompts: Path, tmp_path: Path) -> None:
    whole, chosen = tmp_path / "all.jsonl", tmp_path / "chosen.jsonl"
    search.run(_options(prompts, whole))
    search.run(_options(prompts, chosen, keep="chosen"))
    assert [r.response for r in read_rollouts(chosen)] == [
        r.response for r in read_rollouts(whole) if r.index == 0
    ]


def test_a_killed_search_goes_on_and_leaves_what_one_run_leaves(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    pieces = {"stepcredit.pipelines.search._PROBLEMS_IN_PIECE": 2}
    monkeypatch.setattr(search, "_PROBLEMS_IN_PIECE", 2)
    search.run(_options(prompts, whole))
    words = f"search {prompts} --out {killed} --prm {BETTER} --reference {POLICY} --beta 0.5 --steps newline"
    words += f" --model {POLICY} --width 8 --expand 4 --max-new-tokens 64"
    run_until_killed(words.split(), tmp_path / "log", rows=3, settings=pieces)
    assert partial_rows(killed) == 3
    search.run(_options(prompts, killed))
    assert killed.read_bytes() == whole.read_bytes()
    assert trees_path(killed).read_bytes() == trees_path(whole).read_bytes()
    for part in ("ledger", "counts"):
        assert (read_manifest(killed) or {})[part] == (read_manifest(whole) or {})[part]


def test_trees_that_were_cut_are_noticed(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    search.run(_options(prompts, out))
    trees = trees_path(out)
    trees.write_bytes(trees.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"out\.jsonl: was changed since .*: out\.jsonl\.trees\.jsonl has"):
        search.run(_options(prompts, out))
    trees.unlink()
    with pytest.raises(UserError, match=r"was changed since .*: out\.jsonl\.trees\.jsonl is missing"):
        search.run(_options(prompts, out))


def test_done_is_done(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = search.run(_options(prompts, out))
    again = search.run(_options(prompts, out))
    assert again == replace(first, already_complete=True)
    with pytest.raises(UserError, match="already exists"):
        search.run(_options(prompts, out, seed=1))


def test_another_task_is_another_search(tmp_path: Path) -> None:
    out = tmp_path / "rollouts.jsonl"
    sums = _options(Path("reasoning-gym:chain_sum"), out, limit=1, search={"width": 4, "depth": 1})
    assert not search.run(sums).already_complete
    assert search.run(sums).already_complete
    with pytest.raises(UserError, match="--overwrite"):
        search.run(replace(sums, prompts=Path("reasoning-gym:products")))


def test_the_page_shows_every_tree(prompts: Path, tmp_path: Path) -> None:
    page = tmp_path / "trees.html"
    search.run(_options(prompts, tmp_path / "out.jsonl", html=page))
    text = page.read_text(encoding="utf-8")
    assert text.count('class="tree"') == NUM_PROBLEMS
    assert text.count("✓ chosen") == NUM_PROBLEMS
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_may_not_be_the_input(prompts: Path, tmp_path: Path) -> None:
    before = prompts.read_bytes()
    with pytest.raises(UserError, match=r"is the input itself. Choose another --html"):
        search.run(_options(prompts, tmp_path / "out.jsonl", html=prompts))
    assert prompts.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"search": {"width": 6}}, "--width: 6 is not a multiple of --expand 4"),
        ({"search": {"softmax_temperature": 0.0}}, "--softmax-temperature: must be above 0"),
        ({"search": {"budget": 0}}, "--budget: must be at least 1"),
        ({"steps": "step-number"}, "--steps: the step rule 'step-number' does not say"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], problem: str, prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        search.run(_options(prompts, tmp_path / "out.jsonl", **changes))
