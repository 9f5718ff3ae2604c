from __future__ import annotations

import shlex
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from stepcredit.cli.commands import COMMANDS
from stepcredit.cli.parser import OneLineParser, add_settings
from stepcredit.searching.options import SearchOptions
from stepcredit.settings import build
from stepcredit_study.frame.experiment import Experiment, load_experiment
from stepcredit_study.frame.planning import PlannedCommand, plan, total_line
from stepcredit_study.frame.scale import Machine, Scale, read_scale, resized
from stepcredit_study.frame.world import World
from stepcredit_study.reproduce import NAMES

PARAMETERS = 8.03e9
MODULES = [f"stepcredit_study.claims.{name.replace('-', '_')}" for name in NAMES]


def made_up(prepare: Any) -> Experiment:
    def unused(*arguments: Any) -> Any:
        raise AssertionError("a plan measures nothing")

    return Experiment("made-up", prepare, unused, unused)


@pytest.fixture
def paper() -> Scale:
    """The paper's, with round numbers: 100 and 400 tokens, 5 steps, 1e15 operations a second in all."""
    machine = Machine(
        devices=8, device_flops=2.5e14, utilisation=0.5, prompt_tokens=100, response_tokens=400, steps=5
    )
    return replace(read_scale("paper"), machine=machine)


def costs(prepare: Any, scale: Scale, tmp_path: Path) -> dict[str, PlannedCommand]:
    """Command to its last planned use."""
    return {command.command: command for command in plan([made_up(prepare)], scale, tmp_path)}


@cache
def parser_of(module: str) -> tuple[type, OneLineParser]:
    options_class = import_module(module).Options
    parser = OneLineParser(allow_abbrev=False)
    add_settings(parser, options_class)
    return options_class, parser


def parse(line: str) -> Any:
    """The options that a planned line gives to the command that it names."""
    words = shlex.split(line)
    start = max(place for place, word in enumerate(words) if word == "stepcredit") + 1
    table = {tuple(command.name.split()): command for command in COMMANDS}
    length = 2 if tuple(words[start : start + 2]) in table else 1
    options_class, parser = parser_of(table[tuple(words[start : start + length])].module)
    return build(options_class, vars(parser.parse_intermixed_args(words[start + length :])))


@pytest.mark.parametrize("scale_name", ["lab", "paper"])
@pytest.mark.parametrize("module", MODULES, ids=NAMES)
def test_every_experiment_is_planned_without_a_file(module: str, scale_name: str, tmp_path: Path) -> None:
    experiment, scale = load_experiment(module), replace(read_scale(scale_name), seeds=1)
    assert experiment.name == module.rpartition(".")[2].replace("_", "-")
    if experiment.lab_only and not scale.is_lab:
        return
    commands = plan([experiment], scale, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    outs = [command.out for command in commands]
    assert len(set(outs)) == len(outs)
    for place, command in enumerate(commands):
        options = parse(command.line)
        assert options.out == command.out
        for word in shlex.split(command.line):
            # What a command reads was made before; what no command makes lies in these folders.
            path = Path(word)
            if path.is_relative_to(tmp_path / "out" / "store") and path != command.out:
                folder = path.relative_to(tmp_path / "out" / "store").parts[0]
                assert path in outs[:place] or folder in ("prompts", "policies", "label-true"), command.line
    assert total_line(commands).startswith(f"# {len(commands)} commands")


def test_experiments_share_what_they_have_in_common(tmp_path: Path) -> None:
    scale = read_scale("lab")
    experiments = [load_experiment(f"stepcredit_study.claims.{name}") for name in ("main", "voting")]
    apart = [{command.line for command in plan([one], scale, tmp_path)} for one in experiments]
    together = [command.line for command in plan(experiments, scale, tmp_path)]
    assert len(together) == len(set(together)) == len(apart[0] | apart[1])
    assert apart[0] & apart[1]


def test_every_seed_is_planned(tmp_path: Path) -> None:
    scale = read_scale("lab")
    one = plan([made_up(World.train_set)], replace(scale, seeds=1), tmp_path)
    three = plan([made_up(World.train_set)], replace(scale, seeds=3), tmp_path)
    assert len(three) == 3 * len(one)


def test_sampling_costs_a_forward_pass_a_token(paper: Scale, tmp_path: Path) -> None:
    planned = costs(lambda world: world.responses("test", policy="llama-70b"), paper, tmp_path)
    tokens = 500 * 100 + 500 * 64 * 400
    assert planned["sample"].tokens == tokens
    assert planned["sample"].flops == pytest.approx(2 * 70.6e9 * tokens)
    assert planned["sample"].hours == pytest.approx(2 * 70.6e9 * tokens / 1e15 / 3600)
    assert planned["grade"].flops == 0


def test_the_sizes_decide_how_much_of_a_file_of_prompts_is_answered(paper: Scale, tmp_path: Path) -> None:
    smaller = resized(paper, {"train_prompts": 200})
    planned = costs(World.train_set, smaller, tmp_path)["sample"]
    assert " --limit 200" in planned.line
    assert planned.tokens == 200 * 100 + 200 * 8 * 400
    more = costs(lambda world: world.responses("train", num_prompts=300), smaller, tmp_path)["sample"]
    assert " --limit 300" in more.line
    assert more.tokens == 300 * 100 + 300 * 8 * 400
    lab = costs(World.train_set, read_scale("lab"), tmp_path)["sample"]
    assert "--limit" not in lab.line


def test_training_costs_three_passes_recomputation_and_the_reference(paper: Scale, tmp_path: Path) -> None:
    planned = costs(lambda world: world.train("implicit-ce"), paper, tmp_path)["train"]
    tokens = 33_000 * 8 * 500
    assert planned.tokens == tokens
    assert planned.flops == pytest.approx((6 + 2 + 2) * PARAMETERS * tokens)
    assert planned.line.startswith("accelerate launch --num_processes 8 ")
    assert " -m stepcredit train " in planned.line


def test_pairs_a_head_and_mismatched_responses_are_reckoned_with(paper: Scale, tmp_path: Path) -> None:
    tokens = 33_000 * 8 * 500
    planned = {
        name: costs(lambda world, name=name: world.train(name), paper, tmp_path)["train"]
        for name in ("implicit-dpo", "implicit-kto", "outcome-head")
    }
    # At most 16 pairs of 1000 tokens for each of 33,000 prompts; the reference sees each response once.
    pairs = 33_000 * 16 * 1000
    assert planned["implicit-dpo"].flops == pytest.approx((8 * pairs + 2 * tokens) * PARAMETERS)
    assert planned["implicit-kto"].flops == pytest.approx((8 + 2 + 2 * 2) * PARAMETERS * tokens)
    assert planned["outcome-head"].flops == pytest.approx(8 * PARAMETERS * tokens)


def test_monte_carlo_labels_cost_a_prefix_and_its_completions(paper: Scale, tmp_path: Path) -> None:
    """Four prefixes a response, on average 200 tokens after a prompt of 100; 8 completions of 200."""
    planned = costs(lambda world: world.math_shepherd(), paper, tmp_path)["label math-shepherd"]
    tokens = 33_000 * 8 * 4 * (100 + 200 + 8 * 200)
    assert planned.tokens == tokens
    assert planned.flops == pytest.approx(2 * PARAMETERS * tokens)


def test_scoring_costs_a_pass_a_model_on_one_device(paper: Scale, tmp_path: Path) -> None:
    def prepare(world: World, method: str) -> Path:
        return world.score(world.test_set().distinct, world.train(method))

    tokens = 500 * 64 * 500
    for method, passes in (("implicit-ce", 2), ("outcome-head", 1)):
        planned = costs(lambda world, method=method: prepare(world, method), paper, tmp_path)["score"]
        flops = passes * 2 * PARAMETERS * tokens
        assert planned.flops == pytest.approx(flops)
        assert planned.hours == pytest.approx(flops / (1e15 / 8) / 3600)
    untrained = costs(
        lambda world: world.reference_log_probability(world.test_set().distinct), paper, tmp_path
    )["score"]
    assert untrained.flops == pytest.approx(2 * PARAMETERS * tokens)


def test_a_search_costs_what_it_draws_and_two_models_that_read_it(paper: Scale, tmp_path: Path) -> None:
    def prepare(world: World, strategy: str) -> Path:
        how = SearchOptions(strategy=strategy, width=16)
        return world.searched(how, world.train("implicit-ce"), policy="llama-70b").graded

    for strategy, drawn in (("beam", 16), ("lookahead", 32)):
        planned = costs(lambda world, strategy=strategy: prepare(world, strategy), paper, tmp_path)
        tokens = 500 * 100 + 500 * drawn * 400
        assert planned["search"].tokens == 3 * tokens
        assert planned["search"].flops == pytest.approx(2 * (70.6e9 + 2 * PARAMETERS) * tokens)
        assert planned["grade"].flops == 0


def test_parts_of_the_data_cost_their_share(paper: Scale, tmp_path: Path) -> None:
    def tokens(**part: Any) -> float | None:
        planned = costs(
            lambda world: world.train("implicit-ce", world.select(world.train_set(), **part)), paper, tmp_path
        )
        return planned["train"].tokens

    assert tokens(prompts=0.5) == 33_000 * 4 * 500
    assert tokens(responses=2) == 33_000 * 2 * 500
    assert tokens(one_response="1:1") == 33_000 * 500
    joined = costs(
        lambda world: world.train(
            "implicit-ce",
            world.select(world.train_set(), world.responses("train", policy="mistral-7b"), responses=4),
        ),
        paper,
        tmp_path,
    )
    assert joined["train"].tokens == 33_000 * 8 * 500


def test_what_is_not_known_is_not_in_the_sum(paper: Scale, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jsonl"
    commands = plan([made_up(lambda world: world.train("implicit-ce", elsewhere))], paper, tmp_path)
    train = commands[-1]
    assert (train.tokens, train.flops, train.hours) == (None, None, None)
    assert train.to_text() == train.line
    assert "1 of unknown size" in total_line(commands)


def test_a_plan_is_a_shell_script_and_says_how_it_reckons(paper: Scale, tmp_path: Path) -> None:
    commands = plan([made_up(lambda world: world.train("implicit-ce"))], paper, tmp_path)
    text = "\n".join([*(command.to_text() for command in commands), total_line(commands)])
    for line in text.splitlines():
        assert line.startswith(("# ", "stepcredit ", "accelerate launch "))
    total = sum(command.flops or 0 for command in commands)
    assert f"{total:.2e} operations" in total_line(commands)
    assert "# operations of train: training 6 x parameters x tokens" in total_line(commands)
    content = commands[-1].to_json()
    assert content["formula"].startswith("training 6 x")
    assert content["hours"] == commands[-1].hours


def test_the_lab_needs_no_reckoning(tmp_path: Path) -> None:
    commands = plan([made_up(World.train_set)], read_scale("lab"), tmp_path)
    assert all(command.flops is None for command in commands)
    assert total_line(commands) == f"# {len(commands)} commands"
