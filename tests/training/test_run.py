"""Whole runs: stopped anywhere they end with the same weights; held-out data picks which to keep."""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import helpers
from safetensors import SafetensorError
from tests.training.conftest import save_tiny_model
from torch import Tensor, nn

from stepcredit.checkpoints import LoadOptions, load_model
from stepcredit.errors import DataError, MissingExtraError, UserError
from stepcredit.logprobs import float32_products
from stepcredit.runs import Progress
from stepcredit.training import callbacks, snapshots
from stepcredit.training.config import TrainConfig
from stepcredit.training.counts import HELDOUT
from stepcredit.training.fitting import TrainedModel
from stepcredit.training.run import train_prm
from stepcredit.training.snapshots import last_snapshot
from stepcredit.training.sources import Sources
from stepcredit.training.trainer import PRMTrainer
from stepcredit.types import Rollout


def config(**settings: Any) -> TrainConfig:
    base = {
        "beta": 0.5,
        "learning_rate": 1e-3,
        "batch_size": 8,
        "epochs": 2.0,
        "save_every": 1,
        "log_every": 1,
        "step_rule": "newline",
    }
    return TrainConfig(**{**base, **settings})


def train(
    model: Path,
    rollouts: Sequence[Rollout],
    work: Path,
    *,
    heldout: Sequence[Rollout] = (),
    cache: Path | None = None,
    **settings: Any,
) -> TrainedModel:
    given = config(**settings)
    sources = Sources.find(model, None, given, LoadOptions())
    return train_prm(rollouts, sources=sources, config=given, work=work, heldout=heldout, cache=cache, seed=3)


def weights(trained: TrainedModel) -> dict[str, Tensor]:
    state: dict[str, Tensor] = trained.model.state_dict()
    return {name: value.clone() for name, value in state.items()}


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def stop_before_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = PRMTrainer.training_step

    def training_step(self: PRMTrainer, *arguments: Any, **options: Any) -> Tensor:
        if self.state.global_step == step:
            raise StoppedError
        return original(self, *arguments, **options)

    monkeypatch.setattr(PRMTrainer, "training_step", training_step)


class TestResume:
    @pytest.mark.parametrize(("objective", "stops"), [("ce", (1, 3, 4)), ("kto", (5,)), ("bco", (2,))])
    def test_stopped_before_any_step_it_is_the_same_run(
        self,
        objective: str,
        stops: tuple[int, ...],
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings: dict[str, Any] = {"objective": objective, "save_every": 2, "eval_every": 2, "log_every": 3}
        heldout = rollouts[:8]
        whole = train(tiny_model, rollouts, tmp_path / "whole", heldout=heldout, **settings)
        for step in stops:
            work = tmp_path / str(step)
            with monkeypatch.context() as patch:
                stop_before_step(patch, step)
                with pytest.raises(StoppedError):
                    train(tiny_model, rollouts, work, heldout=heldout, **settings)
            resumed = train(tiny_model, rollouts, work, heldout=heldout, **settings)
            assert identical(weights(resumed), weights(whole))
            assert resumed.kept_step == whole.kept_step
            assert resumed.ledger == whole.ledger
            assert resumed.baseline == whole.baseline
            # As text, since the order of names is part of a file.
            for part, expected in ((resumed.log, whole.log), (resumed.heldout, whole.heldout)):
                assert json.dumps(part) == json.dumps(expected)

    def test_the_best_weights_are_found_from_another_folder(
        self,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """And where they are gone the run does not end with others in their place."""
        settings: dict[str, Any] = {"save_every": 2, "eval_every": 2, "heldout": rollouts[:8]}
        monkeypatch.setattr(PRMTrainer, "heldout_now", lambda self: {"auc": 1 - self.state.global_step / 100})
        whole = train(tiny_model, rollouts, tmp_path / "whole", **settings)
        monkeypatch.chdir(tmp_path)
        with monkeypatch.context() as patch:
            stop_before_step(patch, 5)
            with pytest.raises(StoppedError):
                train(tiny_model, rollouts, Path("work"), **settings)
        monkeypatch.chdir(tmp_path.parent)
        resumed = train(tiny_model, rollouts, tmp_path / "work", **settings)
        assert resumed.kept_step == whole.kept_step == 2
        assert identical(weights(resumed), weights(whole))
        shutil.rmtree(tmp_path / "work" / "best")
        with pytest.raises(UserError, match="is gone: the weights of step 2"):
            train(tiny_model, rollouts, tmp_path / "work", **settings)

    def test_a_resumed_run_logs_and_saves_as_often_as_it_is_told_to(
        self,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patch:
            stop_before_step(patch, 3)
            with pytest.raises(StoppedError):
                train(tiny_model, rollouts, tmp_path, save_every=2, log_every=2)
        resumed = train(tiny_model, rollouts, tmp_path, save_every=100, log_every=1)
        assert [row["step"] for row in resumed.log] == [1, 2, 3, 4, 5, 6]

    def test_a_half_written_checkpoint_is_not_one(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint-1").mkdir()
        (tmp_path / "checkpoint-1" / "trainer_state.json").write_text("{}")
        (tmp_path / ".checkpoint-2.tmp").mkdir()
        (tmp_path / "checkpoint-3").mkdir()
        assert last_snapshot(tmp_path) == tmp_path / "checkpoint-1"

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        ],
        ids=["file", "safetensors", "torch"],
    )
    def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on_later(
        self,
        error: Exception,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = train(tiny_model, rollouts, tmp_path / "whole")
        original = snapshots._write
        calls = []

        def full(trainer: Any, directory: Path, *, weights_only: bool) -> None:
            calls.append(directory)
            original(trainer, directory, weights_only=weights_only)
            if len(calls) == 3:
                raise error

        with monkeypatch.context() as patch:
            patch.setattr(snapshots, "_write", full)
            with pytest.raises(UserError, match=r"cannot be written.*Free some disk"):
                train(tiny_model, rollouts, tmp_path / "work")
        assert last_snapshot(tmp_path / "work") == tmp_path / "work" / "checkpoint-2"
        assert not list((tmp_path / "work").glob(".*"))
        resumed = train(tiny_model, rollouts, tmp_path / "work")
        assert identical(weights(resumed), weights(whole))


class TestSameResult:
    def test_a_cached_reference_equals_a_live_one(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        cache = tmp_path / "cache"
        first = train(tiny_model, rollouts, tmp_path / "a", cache=cache)
        again = train(tiny_model, rollouts, tmp_path / "b", cache=cache)
        plain = train(tiny_model, rollouts, tmp_path / "c")
        live = train(tiny_model, rollouts, tmp_path / "d", live_reference=True)
        assert identical(weights(first), weights(again))
        assert identical(weights(first), weights(plain))
        for row, other in zip(plain.log, live.log, strict=True):
            assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)

    def test_packed_and_padded_losses_agree_step_by_step(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        padded = train(tiny_model, rollouts, tmp_path / "a", layout="padded")
        packed = train(tiny_model, rollouts, tmp_path / "b", layout="packed")
        for row, other in zip(padded.log, packed.log, strict=True):
            assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)

    def test_bfloat16_starts_where_the_reference_is(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path, precision="bfloat16", epochs=0.3)
        assert trained.log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
        assert next(trained.model.parameters()).dtype == torch.float32

    @pytest.mark.parametrize("is_slow", [True, False])
    def test_a_processor_without_instructions_for_it_is_said_to_be_slow(
        self,
        is_slow: bool,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(float32_products, "lacks_half_precision", lambda: is_slow)
        train(tiny_model, rollouts, tmp_path, precision="bfloat16", epochs=0.3)
        assert ("--precision float32 is several times as fast" in capsys.readouterr().err) is is_slow


class TestAdapters:
    def test_the_base_is_the_reference_and_only_the_adapter_moves(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path, lora_rank=2, live_reference=True, learning_rate=1e-2)
        assert trained.log[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
        assert trained.log[-1]["loss"] != pytest.approx(0.693147, abs=1e-3)
        base = load_model(tiny_model, device="cpu").state_dict()
        frozen = trained.model.get_base_model().state_dict()
        for name, value in base.items():
            parts = name.rpartition(".")
            wrapped = f"{parts[0]}.base_layer.{parts[2]}"
            assert torch.equal(frozen[wrapped if wrapped in frozen else name], value)

    def test_stored_and_live_reference_agree(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        stored = train(tiny_model, rollouts, tmp_path / "a", lora_rank=2)
        live = train(tiny_model, rollouts, tmp_path / "b", lora_rank=2, live_reference=True)
        for row, other in zip(stored.log, live.log, strict=True):
            assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)

    def test_in_bfloat16_they_read_what_the_model_wrote_with_the_weights_that_casts_give(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = partial(train, tiny_model, rollouts, lora_rank=2, precision="bfloat16", epochs=0.5)
        read: set[torch.dtype] = set()
        forward = nn.Linear.forward

        def noted(linear: nn.Linear, values: Tensor) -> Tensor:
            if linear.out_features == 2 and linear.training:
                read.add(values.dtype)
            return forward(linear, values)

        monkeypatch.setattr(nn.Linear, "forward", noted)
        uncast = short(tmp_path / "uncast")
        assert read == {torch.bfloat16}
        monkeypatch.setattr(helpers, "disable_input_dtype_casting", lambda _: contextlib.nullcontext())
        cast = short(tmp_path / "cast")
        assert read == {torch.bfloat16, torch.float32}
        for name, value in weights(cast).items():
            assert torch.equal(weights(uncast)[name], value)

    def test_modules_that_do_not_exist_are_refused(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match="--lora-targets"):
            train(tiny_model, rollouts, tmp_path, lora_rank=2, lora_targets="nonsense")


class TestHeldOut:
    def test_the_weights_with_the_best_auc_are_kept(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path, heldout=rollouts, eval_every=1, learning_rate=3e-3)
        evaluated = {row["step"]: row["heldout_auc"] for row in trained.log if "heldout_auc" in row}
        assert set(evaluated) == set(range(1, 7))
        best = max(evaluated.values())
        assert trained.kept_step == min(step for step, value in evaluated.items() if value == best)
        assert trained.heldout["auc"] == best

    def test_prompts_that_are_trained_on_too_are_reported(
        self,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        train(tiny_model, rollouts, tmp_path, heldout=rollouts, epochs=1.0)
        shared = len({rollout.prompt_id for rollout in rollouts})
        assert f"warning: {shared} held-out problems, first " in capsys.readouterr().err
        renumbered = [replace(row, prompt_id=f"dev-{row.prompt_id}") for row in rollouts]
        train(tiny_model, rollouts, tmp_path / "renumbered", heldout=renumbered, epochs=0.3)
        assert f"warning: {shared} held-out problems, first 'dev-" in capsys.readouterr().err
        others = [replace(row, prompt=f"{row.prompt} Or not?") for row in rollouts]
        train(tiny_model, rollouts, tmp_path / "others", heldout=others, epochs=0.3)
        assert "trained on too" not in capsys.readouterr().err

    def test_patience_ends_the_run(self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
        trained = train(
            tiny_model, rollouts, tmp_path, heldout=rollouts, eval_every=1, patience=1, learning_rate=1e-9
        )
        steps = [row["step"] for row in trained.log if "heldout_auc" in row]
        assert max(steps) < 6
        assert max(steps) == trained.kept_step + 1

    def test_the_log_has_loss_rewards_and_tokens(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path)
        rows = [row for row in trained.log if "loss" in row]
        assert [row["step"] for row in rows] == list(range(1, 7))
        assert {"loss", "learning_rate", "grad_norm", "reward_right", "reward_wrong", "tokens"} <= set(
            rows[0]
        )
        assert rows[-1]["tokens"] == trained.ledger.trained_tokens == 2 * rows[2]["tokens"]


class TestLedger:
    def test_it_counts_training_the_reference_and_mismatched_responses(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        ce = train(tiny_model, rollouts, tmp_path / "ce", epochs=1.0).ledger
        kto = train(tiny_model, rollouts, tmp_path / "kto", epochs=1.0, objective="kto").ledger
        assert ce.trained_tokens == kto.trained_tokens
        # CE passes the reference over each different response once; KTO over the mismatched ones too, and
        # the policy over these in every step.
        assert 0 < ce.scored_tokens <= ce.trained_tokens
        assert kto.scored_tokens > ce.scored_tokens + kto.trained_tokens
        assert ce.model_parameters == sum(
            p.numel() for p in load_model(tiny_model, device="cpu").parameters()
        )


class TestBaseline:
    @pytest.mark.parametrize("objective", ["kto", "bco"])
    def test_what_rewards_are_compared_with_is_in_the_log_and_summed_up(
        self, objective: str, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path, objective=objective, log_every=4)
        rows = [row for row in trained.log if "baseline" in row]
        assert [row["step"] for row in rows] == [1, 4, 6]
        assert trained.baseline["steps"] == 6
        assert trained.baseline["zero_steps"] == sum(row["baseline_zero"] for row in rows)
        mean = sum(row["baseline"] * steps for row, steps in zip(rows, (1, 3, 2), strict=True)) / 6
        assert trained.baseline["mean"] == pytest.approx(mean)
        if objective == "kto":
            assert trained.baseline["mean"] >= 0

    def test_there_is_none_where_rewards_stand_alone(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        trained = train(tiny_model, rollouts, tmp_path, epochs=1.0)
        assert trained.baseline == {}
        assert not any("baseline" in row for row in trained.log)


class TestDisplay:
    @pytest.fixture(autouse=True)
    def every_step_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(callbacks, "Progress", partial(Progress, every=0.0))

    def test_each_step_has_its_own_loss_and_the_last_line_is_that_of_the_log(
        self,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        trained = train(
            tiny_model, rollouts, tmp_path, heldout=rollouts, log_every=100, eval_every=4, learning_rate=3e-3
        )
        shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
        losses = [re.findall(r"step (\d)/6, loss (\S+)", line)[0] for line in shown]
        assert [int(step) for step, _ in losses] == [1, 2, 3, 4, 5, 6]
        assert len({loss.rstrip(",") for _, loss in losses}) > 4
        last = [row for row in trained.log if "heldout_auc" in row][-1]
        assert last["step"] == 6
        assert shown[-1].endswith(f"held-out AUC {last['heldout_auc']:.3f} at step 6")

    @pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}, {"family": "value-head"}])
    def test_nothing_of_other_libraries_is_shown(
        self,
        settings: dict[str, Any],
        rollouts: list[Rollout],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        tied = save_tiny_model(tmp_path / "tied", tied=True)
        work = tmp_path / "work"
        capfd.readouterr()
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            stop_before_step(patch, 2)
            train(tied, rollouts, work, heldout=rollouts, **settings)
        train(tied, rollouts, work, heldout=rollouts, save_every=7, **settings)
        for line in capfd.readouterr().err.splitlines():
            assert line.startswith(("train: ", "reference: ", "warning: ")), line

    def test_weights_that_are_worse_than_chance_are_reported_with_what_to_try(
        self,
        tiny_model: Path,
        rollouts: list[Rollout],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        turned = [replace(rollout, correct=not rollout.correct) for rollout in rollouts]
        trained = train(tiny_model, rollouts, tmp_path, heldout=turned, learning_rate=3e-3, eval_every=6)
        assert trained.heldout["auc"] < 0.5
        error = capsys.readouterr().err
        assert f"worse than chance on held-out data (AUC {trained.heldout['auc']:.3f}): try" in error


class TestReporting:
    def test_tensorboard_gets_the_log(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        train(tiny_model, rollouts, tmp_path / "prm.partial", report_to="tensorboard")
        accumulator = events.EventAccumulator(str(tmp_path / "prm.tensorboard"))
        accumulator.Reload()
        assert [scalar.step for scalar in accumulator.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]

    def test_a_package_that_is_missing_is_named(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(callbacks, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"stepcredit\[wandb\]"):
            train(tiny_model, rollouts, tmp_path, report_to="wandb")


class TestRefusals:
    def test_nothing_graded(self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
        ungraded = [replace(rollout, correct=None) for rollout in rollouts]
        with pytest.raises(DataError, match=r"24 not graded.*stepcredit grade"):
            train(tiny_model, ungraded, tmp_path)

    def test_all_of_one_class(self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path) -> None:
        wrong = [rollout for rollout in rollouts if not rollout.correct]
        with pytest.raises(DataError, match=f"all {len(wrong)} usable responses are wrong"):
            train(tiny_model, wrong, tmp_path)

    def test_a_longer_limit_than_the_context(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        with pytest.raises(UserError, match=r"--max-tokens: 97 is more than the model's context of 96"):
            train(tiny_model, rollouts, tmp_path, max_tokens=97)

    def test_held_out_rollouts_that_are_not_graded(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        ungraded = [replace(rollout, correct=None) for rollout in rollouts[:3]]
        with pytest.raises(DataError, match=r"--dev: none of 3 rollouts can be used \(3 not graded\)"):
            train(tiny_model, rollouts, tmp_path, heldout=ungraded)

    def test_held_out_rollouts_that_are_too_long_are_cut_as_those_that_are_trained_on(
        self, tiny_model: Path, rollouts: list[Rollout], tmp_path: Path
    ) -> None:
        response = f"{rollouts[0].response}\n{'1' * 90}"
        longer = [
            replace(rollouts[0], id=f"long-{right}", correct=right, response=response)
            for right in (True, False)
        ]
        trained = train(
            tiny_model, [*rollouts, *longer], tmp_path, heldout=longer, over_long="truncate", epochs=0.3
        )
        assert trained.counts["truncated"] == trained.counts[f"{HELDOUT}truncated"] == 2

    def test_no_rollouts(self, tiny_model: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no rollouts"):
            train(tiny_model, [], tmp_path)
