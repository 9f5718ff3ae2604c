"""``stepcredit train``: what it leaves behind, what it refuses, and that it survives being killed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.processes import kill_when
from tests.tutor_rollouts import tutor_rollouts

from stepcredit.checkpoints import (
    LoadOptions,
    PRMCard,
    load_model,
    template_hash,
    tokenizer_hash,
    weights_hash,
)
from stepcredit.data import rollout_to_json, write_rows
from stepcredit.errors import CheckpointError, DataError, UserError
from stepcredit.lab.oracles import label_steps
from stepcredit.lab.tokenizer import make_tokenizer
from stepcredit.lab.tutor import WEAK
from stepcredit.objectives import OBJECTIVES
from stepcredit.pipelines.train import Options, run
from stepcredit.runs import hash_file
from stepcredit.scorers import load_scorer
from stepcredit.training.config import TrainConfig
from stepcredit.types import Rollout

SETTINGS = TrainConfig(
    beta=0.5, learning_rate=1e-3, batch_size=4, epochs=2.0, save_every=1, log_every=2, step_rule="newline"
)

PAIRED = [name for name, objective in OBJECTIVES.items() if objective.paired]


def make_rollouts(num_problems: int, samples: int) -> list[Rollout]:
    return tutor_rollouts(WEAK, num_problems, samples)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def write(path: Path, rollouts: Sequence[Rollout]) -> Path:
    write_rows(path, map(rollout_to_json, rollouts))
    return path


def options(model: Path | str, graded: Path, out: Path, **fields: Any) -> Options:
    settings = fields.pop("config", SETTINGS)
    return Options(
        graded=graded, model=str(model), out=out, config=settings, load=LoadOptions(device="cpu"), **fields
    )


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    return write(tmp_path / "graded.jsonl", make_rollouts(4, 4))


class TestOutput:
    def test_it_is_a_checkpoint_with_its_card_log_and_manifest(
        self, model: Path, graded: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "prm"
        result = run(options(model, graded, out, dev=graded))
        card = PRMCard.read(out)
        assert (card.family, card.objective, card.beta, card.step_rule) == ("implicit", "ce", 0.5, "newline")
        assert card.reference is not None
        assert card.reference.weights_hash == weights_hash(model)
        assert Path(card.reference.locate(out)).resolve() == model.resolve()
        assert card.weights_hash == weights_hash(out)
        tokenizer = make_tokenizer()
        assert card.tokenizer_hash == tokenizer_hash(tokenizer)
        assert card.template_hash == template_hash(tokenizer)
        assert card.training_data_hash == hash_file(graded)
        assert card.results["auc"] == result.heldout["auc"]
        assert load_model(out, device="cpu").config.hidden_size == 16
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["counts"]["examples"] == 16
        assert manifest["ledger"]["trained_tokens"] == result.tokens > 0
        rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
        assert rows[0]["step"] == 1
        assert any("heldout_auc" in row for row in rows)
        readme = (out / "README.md").read_text()
        assert f"| outcome AUC | {result.heldout['auc']:.4g} |" in readme
        assert "ImplicitPRM.from_pretrained" in readme
        assert not (tmp_path / "prm.partial").exists()
        assert "held-out AUC" in result.to_text()
        assert "16 examples, steps by newline, " in result.to_text()
        json.dumps(result.to_json(), allow_nan=False)
        assert run(options(model, graded, out, dev=graded)).step_rule == "newline"

    def test_done_work_is_not_done_again_and_other_work_is_refused(
        self, model: Path, graded: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "prm"
        run(options(model, graded, out))
        before = hash_file(out / "model.safetensors")
        assert run(options(model, graded, out)).already_done
        other = replace(SETTINGS, beta=0.7)
        with pytest.raises(UserError, match="--overwrite"):
            run(options(model, graded, out, config=other))
        assert hash_file(out / "model.safetensors") == before
        assert not run(options(model, graded, out, config=other, overwrite=True)).already_done
        assert hash_file(out / "model.safetensors") != before

    def test_a_partial_run_of_other_settings_is_refused(
        self, model: Path, graded: Path, tmp_path: Path
    ) -> None:
        partial = tmp_path / "prm.partial"
        (partial / "checkpoint-1").mkdir(parents=True)
        (partial / "settings_hash").write_text("another")
        with pytest.raises(UserError, match="other settings or inputs"):
            run(options(model, graded, tmp_path / "prm"))

    def test_an_adapter_is_saved_as_one_and_its_base_is_the_reference(
        self, model: Path, graded: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "prm"
        run(options(model, graded, out, config=replace(SETTINGS, lora_rank=2)))
        assert (out / "adapter_model.safetensors").is_file()
        assert not (out / "model.safetensors").exists()
        reference = PRMCard.read(out).reference
        assert reference is not None
        assert reference.adapter_off

    @pytest.mark.parametrize(("first_rank", "second_rank"), [(0, 0), (0, 2), (2, 2), (2, 0)])
    def test_a_second_stage_starts_from_the_rewards_of_the_first(
        self, model: Path, tmp_path: Path, first_rank: int, second_rank: int
    ) -> None:
        """Step labels on top of an implicit PRM, whose reference stays that of the first stage."""
        rollouts = make_rollouts(4, 4)
        graded = write(
            tmp_path / "graded.jsonl", [replace(row, step_labels=label_steps(row)) for row in rollouts]
        )
        first, second = tmp_path / "first", tmp_path / "second"
        run(options(model, graded, first, config=replace(SETTINGS, lora_rank=first_rank)))
        config = replace(SETTINGS, objective="step-ce", lora_rank=second_rank)
        run(options(first, graded, second, config=replace(config, learning_rate=1e-12)))
        before, unmoved = (list(load_scorer(prm).score_all(rollouts)) for prm in (first, second))
        assert max(abs(score.reward) for score in before) > 0.01
        for one, other in zip(before, unmoved, strict=True):
            values = [step.value for step in one.steps]
            assert [step.value for step in other.steps] == pytest.approx(values, abs=1e-5)
        run(options(first, graded, second, config=config, overwrite=True))
        moved = list(load_scorer(second).score_all(rollouts))
        assert any(abs(one.reward - other.reward) > 0.01 for one, other in zip(before, moved, strict=True))

    def test_other_libraries_load_it(self, model: Path, graded: Path, tmp_path: Path) -> None:
        from peft import AutoPeftModelForCausalLM
        from transformers import AutoModelForCausalLM, AutoTokenizer

        run(options(model, graded, tmp_path / "whole"))
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
        assert tokenizer.get_vocab() == make_tokenizer().get_vocab()
        assert json.loads((tmp_path / "whole" / "config.json").read_text())["architectures"] == [
            "LlamaForCausalLM"
        ]
        run(options(model, graded, tmp_path / "adapter", config=replace(SETTINGS, lora_rank=2)))
        adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
        ids = torch.tensor([[1, 2, 3]])
        assert adapted(input_ids=ids).logits.shape == whole(input_ids=ids).logits.shape

    @pytest.mark.slow
    def test_trl_goes_on_from_it(self, model: Path, graded: Path, tmp_path: Path) -> None:
        trl = pytest.importorskip("trl")
        from datasets import Dataset

        run(options(model, graded, tmp_path / "prm"))
        pairs = Dataset.from_list([{"prompt": "1+2=", "chosen": "1+2=3", "rejected": "1+2=4"}] * 2)
        arguments = trl.DPOConfig(
            output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, max_steps=1, report_to=[]
        )
        trainer = trl.DPOTrainer(
            model=str(tmp_path / "prm"),
            ref_model=load_model(model, device="cpu"),
            args=arguments,
            train_dataset=pairs,
        )
        trainer.train()
        assert trainer.state.global_step == 1

    def test_what_was_left_out_is_counted(self, model: Path, tmp_path: Path) -> None:
        rollouts = make_rollouts(4, 4)
        rollouts[0] = replace(rollouts[0], correct=None)
        rollouts[1] = replace(rollouts[1], response="1+1=2\n" * 40)
        graded = write(tmp_path / "graded.jsonl", rollouts)
        counts = run(options(model, graded, tmp_path / "prm")).counts
        assert (counts["not_graded"], counts["too_long"], counts["examples"]) == (1, 1, 14)
        kept = replace(SETTINGS, over_long="truncate")
        counts = run(options(model, graded, tmp_path / "cut", config=kept)).counts
        assert (counts["truncated"], counts["examples"]) == (1, 15)

    def test_paired_objectives_say_which_prompts_gave_no_pair(self, model: Path, tmp_path: Path) -> None:
        rollouts = [
            replace(
                rollout,
                response=f"{rollout.response}\n{rollout.index}",
                correct=rollout.prompt_id != "train0" and rollout.index < 2,
            )
            for rollout in make_rollouts(3, 4)
        ]
        graded = write(tmp_path / "graded.jsonl", rollouts)
        dpo = replace(SETTINGS, objective="dpo", pairs_per_prompt=3)
        counts = run(options(model, graded, tmp_path / "prm", config=dpo)).counts
        assert counts["units"] == 6
        assert (counts["prompts_with_pairs"], counts["prompts_all_wrong"]) == (2, 1)
        assert counts["pairs_over_limit"] == 2

    @pytest.mark.parametrize("objective", PAIRED)
    def test_pairs_that_do_not_differ_are_left_out_and_counted(
        self, objective: str, model: Path, tmp_path: Path
    ) -> None:
        rollouts = [replace(row, correct=row.index < 2) for row in make_rollouts(3, 4)]
        text = {row.prompt_id: row.response for row in rollouts if row.index == 0}
        # The first and the last response of each prompt are the same, with both verdicts.
        rollouts = [replace(row, response=text[row.prompt_id]) if row.index == 3 else row for row in rollouts]
        graded = write(tmp_path / "graded.jsonl", rollouts)
        counts = run(
            options(model, graded, tmp_path / "prm", config=replace(SETTINGS, objective=objective))
        ).counts
        same = sum(
            one.response == other.response
            for one in rollouts
            for other in rollouts
            if (one.prompt_id, one.correct, other.correct) == (other.prompt_id, True, False)
        )
        assert counts["pairs_that_do_not_differ"] == same >= 3
        assert counts["units"] == 12 - same


class TestHub:
    def test_a_finished_model_is_uploaded_whole(
        self, model: Path, graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[Any] = []
        hub = SimpleNamespace(
            create_repo=lambda name, **fields: calls.append((name, fields["private"])),
            upload_folder=lambda **fields: calls.append(sorted(os.listdir(fields["folder_path"]))),
        )
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
        run(options(model, graded, tmp_path / "prm", push_to_hub="me/prm", hub_private=True))
        assert calls[0] == ("me/prm", True)
        assert {"README.md", "model.safetensors", "prm.json", "tokenizer.json"} <= set(calls[1])

    def test_an_upload_that_fails_leaves_the_model_and_says_what_to_do(
        self, model: Path, graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setattr("huggingface_hub.HfApi", lambda: SimpleNamespace(create_repo=refuse))
        with pytest.raises(UserError, match=r"could not be uploaded \(no route\)"):
            run(options(model, graded, tmp_path / "prm", push_to_hub="me/prm"))
        assert PRMCard.exists(tmp_path / "prm")


class TestBadInput:
    def refused(self, expected: type[UserError], match: str, given: Options) -> None:
        with pytest.raises(expected, match=match) as error:
            run(given)
        assert "\n" not in str(error.value)
        assert not given.out.exists()

    def test_a_missing_file(self, model: Path, tmp_path: Path) -> None:
        self.refused(UserError, "no such file", options(model, tmp_path / "none.jsonl", tmp_path / "prm"))

    def test_a_malformed_line_is_named_or_skipped_and_counted(
        self, model: Path, graded: Path, tmp_path: Path
    ) -> None:
        with open(graded, "a") as handle:
            handle.write("{broken\n")
        self.refused(DataError, r"graded\.jsonl:17", options(model, graded, tmp_path / "prm"))
        result = run(options(model, graded, tmp_path / "prm", skip_invalid=True))
        assert result.counts["skipped_invalid"] == 1

    def test_a_duplicate_id(self, model: Path, tmp_path: Path) -> None:
        rollouts = make_rollouts(2, 2)
        graded = write(tmp_path / "graded.jsonl", [*rollouts, rollouts[0]])
        self.refused(DataError, "'train0-0' appears twice", options(model, graded, tmp_path / "prm"))

    def test_nothing_graded(self, model: Path, tmp_path: Path) -> None:
        rollouts = [replace(rollout, correct=None) for rollout in make_rollouts(2, 2)]
        graded = write(tmp_path / "graded.jsonl", rollouts)
        self.refused(DataError, "stepcredit grade", options(model, graded, tmp_path / "prm"))

    @pytest.mark.parametrize(("correct", "word"), [(True, "right"), (False, "wrong")])
    def test_one_class_only(self, model: Path, tmp_path: Path, correct: bool, word: str) -> None:
        rollouts = [replace(rollout, correct=correct) for rollout in make_rollouts(2, 2)]
        graded = write(tmp_path / "graded.jsonl", rollouts)
        self.refused(DataError, f"responses are {word}", options(model, graded, tmp_path / "prm"))

    @pytest.mark.parametrize("objective", PAIRED)
    def test_pairs_of_which_none_differs(self, objective: str, model: Path, tmp_path: Path) -> None:
        rollouts = [
            replace(row, response=f"{row.prompt}1\n#1", correct=row.index == 0) for row in make_rollouts(2, 2)
        ]
        graded = write(tmp_path / "graded.jsonl", rollouts)
        given = options(model, graded, tmp_path / "prm", config=replace(SETTINGS, objective=objective))
        self.refused(DataError, r"graded\.jsonl: no pair differs: in all 2", given)

    def test_an_unknown_model_directory(self, graded: Path, tmp_path: Path) -> None:
        missing = str(tmp_path / "nowhere")
        self.refused(CheckpointError, "nowhere", options(missing, graded, tmp_path / "prm"))

    def test_responses_that_are_all_too_long(self, model: Path, graded: Path, tmp_path: Path) -> None:
        short = replace(SETTINGS, max_tokens=10)
        self.refused(DataError, "--over-long", options(model, graded, tmp_path / "prm", config=short))

    def test_a_bad_setting_names_its_flag(self) -> None:
        with pytest.raises(UserError, match=r"--learning-rate: must be above 0, got -1"):
            replace(SETTINGS, learning_rate=-1.0)


@pytest.mark.slow
def test_killed_and_run_again_it_ends_with_the_same_bytes(model: Path, tmp_path: Path) -> None:
    graded = write(tmp_path / "graded.jsonl", make_rollouts(8, 8))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = replace(SETTINGS, batch_size=2, epochs=3.0, save_every=7, log_every=10)
    words = f"train {graded} --model {model} --out {killed} --device cpu --beta 0.5 --learning-rate 1e-3"
    words += f" --batch-size 2 --epochs 3 --save-every 7 --steps newline --dev {graded}"
    kill_when(words.split(), tmp_path / "log", (tmp_path / "killed.partial" / "checkpoint-42").exists)
    assert not killed.exists()
    run(options(model, graded, whole, config=settings, dev=graded))
    run(options(model, graded, killed, config=settings, dev=graded))
    for name in ("model.safetensors", "train_log.jsonl", "prm.json"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    one, other = (json.loads((directory / "manifest.json").read_text()) for directory in (whole, killed))
    for name in ("ledger", "counts", "heldout", "kept_step", "settings_hash"):
        assert one[name] == other[name], name
