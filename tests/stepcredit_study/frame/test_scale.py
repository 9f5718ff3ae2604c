from __future__ import annotations

import pytest

from stepcredit.errors import UserError
from stepcredit.generators.options import GeneratorOptions
from stepcredit_study.frame.scale import SCALES, read_scale, resized


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", SCALES)
def test_every_recipe_is_read_and_every_method_has_settings(name: str, quick: bool) -> None:
    scale = read_scale(name, quick=quick)
    assert scale.is_lab == (name != "paper")
    assert scale.base in scale.generators
    assert set(scale.prompts) == {"train", "dev", "test"}
    for method in (*scale.methods, "verifier"):
        assert scale.config(method).step_rule == scale.training["step_rule"]
    assert scale.largest_n <= scale.sizes.test_responses


def test_the_lab_has_five_seeds_and_quick_ones_are_smaller() -> None:
    whole, quick = read_scale("lab"), read_scale("lab", quick=True)
    assert whole.seeds >= 5
    assert quick.seeds < whole.seeds
    assert quick.sizes.train_prompts < whole.sizes.train_prompts


def test_the_papers_scale_has_its_models_data_and_hyper_parameters() -> None:
    scale = read_scale("paper")
    assert scale.generators["llama-70b"] == "meta-llama/Llama-3.1-70B-Instruct"
    assert (scale.sizes.train_prompts, scale.sizes.train_responses) == (33_000, 8)
    assert (scale.sizes.test_prompts, scale.sizes.test_responses) == (500, 64)
    assert scale.sampling.temperature == 0.5
    for method in ("implicit-ce", "implicit-dpo", "implicit-nca", "implicit-kto"):
        config = scale.config(method)
        assert (config.beta, config.learning_rate, config.batch_size) == (0.05, 5e-7, 64)
        assert (config.epochs, config.max_tokens, config.precision) == (1, 8192, "bfloat16")
    assert scale.machine is not None
    assert scale.machine.devices == 8
    assert set(scale.parameters) == set(scale.generators)


def test_an_experiment_may_change_settings_and_sizes() -> None:
    scale = read_scale("lab")
    assert scale.config("implicit-ce", beta=7.0).beta == 7.0
    smaller = resized(scale, {"train_prompts": 3})
    assert (smaller.sizes.train_prompts, smaller.sizes.test_prompts) == (3, scale.sizes.test_prompts)


def test_fewer_test_responses_leave_fewer_numbers_to_choose_from() -> None:
    scale = read_scale("lab")
    assert resized(scale, {"test_responses": 32}).n == (4, 16)
    assert resized(scale, {"test_responses": 64}).n == (4, 16, 64)
    with pytest.raises(UserError, match=r"test_responses=15 is too small.*Use at least 16"):
        resized(scale, {"test_responses": 15})


def test_the_experiments_need_eight_training_responses() -> None:
    scale = read_scale("paper")
    assert resized(scale, {"train_responses": 8}).sizes.train_responses == 8
    with pytest.raises(UserError, match="the experiments compare fewer responses with 8"):
        resized(scale, {"train_responses": 7})


def test_a_launched_command_takes_all_devices_and_an_engine_what_it_is_told() -> None:
    scale = read_scale("paper")
    engine = GeneratorOptions(model="m", generator="vllm", tensor_parallel=2, data_parallel=3)
    assert (scale.devices("train"), scale.devices("sample", engine), scale.devices("score")) == (8, 6, 1)


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="Use lab, lab2, paper"):
        read_scale("moon")
    scale = read_scale("lab")
    with pytest.raises(UserError, match="no method 'magic'"):
        scale.config("magic")
    for sizes in ({"prompts": 3}, {"train_prompts": 0}):
        with pytest.raises(UserError, match="is not a size"):
            resized(scale, sizes)
