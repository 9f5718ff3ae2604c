"""Objectives: hand-worked values, naive float64 twins, and TRL's losses on the same log-probabilities."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stepcredit.errors import UserError
from stepcredit.objectives import (
    OBJECTIVES,
    ObjectiveInput,
    ObjectiveSettings,
    get_objective,
    response_rewards,
)
from stepcredit.training.config import OBJECTIVE_NAMES, TrainConfig

LOG2 = math.log(2)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def record(rewards: list[float], labels: list[float], **fields: Any) -> ObjectiveInput:
    fields.setdefault("lengths", torch.ones(len(rewards), dtype=torch.long))
    return ObjectiveInput(
        rewards=torch.tensor(rewards, dtype=torch.float64),
        labels=torch.tensor(labels, dtype=torch.float64),
        **fields,
    )


def losses(name: str, inputs: ObjectiveInput) -> list[float]:
    values: list[float] = OBJECTIVES[name].function(inputs).losses.tolist()
    return values


class TestHandWorkedValues:
    def test_cross_entropy_at_zero_reward_is_log_two_whatever_the_label(self) -> None:
        assert losses("ce", record([0.0, 0.0], [1.0, 0.0])) == pytest.approx([LOG2, LOG2])

    def test_cross_entropy_of_log_three(self) -> None:
        # sigmoid(log 3) = 3/4: right costs -log 3/4, wrong costs -log 1/4.
        u = math.log(3)
        assert losses("ce", record([u, u], [1.0, 0.0])) == pytest.approx([math.log(4 / 3), math.log(4)])

    def test_cross_entropy_stays_exact_where_the_sigmoid_saturates(self) -> None:
        # log(sigmoid(u)) would be log(0) here; on logits the loss is 200.
        assert losses("ce", record([-200.0, 200.0], [1.0, 0.0])) == pytest.approx([200.0, 200.0])

    def test_dpo_sees_only_the_difference(self) -> None:
        # The difference is log 3 in both pairs: -log(3/4).
        u = math.log(3)
        values = losses("dpo", record([u, 0.0, u + 5, 5.0], [1.0, 0.0, 1.0, 0.0]))
        assert values == pytest.approx([math.log(4 / 3)] * 2)

    def test_nca_of_log_three_and_zero(self) -> None:
        # -log(3/4) - 0.5 log(1/4) - 0.5 log(1/2)
        value = losses("nca", record([math.log(3), 0.0], [1.0, 0.0]))[0]
        assert value == pytest.approx(math.log(4 / 3) + 0.5 * math.log(4) + 0.5 * LOG2)

    def test_pair_margin_asks_the_scaled_difference_to_exceed_the_margin(self) -> None:
        # 0.2 * (15 - 5) - 2 = 0 costs log 2; 0.2 * (5 - 10) - 2 = -3 costs -log sigmoid(-3).
        values = losses("pair-margin", record([15.0, 5.0, 5.0, 10.0], [1.0, 0.0, 1.0, 0.0]))
        assert values == pytest.approx([LOG2, -log_sigmoid(-3.0)])

    def test_pair_margin_without_scale_and_margin_is_dpo(self) -> None:
        plain = ObjectiveSettings(pair_scale=1.0, pair_margin=0.0)
        inputs = record([0.7, -1.3], [1.0, 0.0], settings=plain)
        assert losses("pair-margin", inputs) == pytest.approx(losses("dpo", inputs))

    def test_ipo_compares_means_a_token_with_half_over_beta(self) -> None:
        # Sums 6 and 2 over 3 and 4 tokens: means 2 and 0.5; beta 0.25 gives the target 2; (1.5 - 2)^2.
        inputs = record([6 * 0.25, 2 * 0.25], [1.0, 0.0], beta=0.25, lengths=torch.tensor([3, 4]))
        assert losses("ipo", inputs) == pytest.approx([0.25])

    def test_kto_with_a_positive_baseline(self) -> None:
        # z = mean(1, 3) = 2; right at u = 2 + log 3: 1 - 3/4; wrong at the same: 1 - sigmoid(-log 3) = 3/4.
        u = 2 + math.log(3)
        inputs = record([u, u], [1.0, 0.0], mismatched_rewards=torch.tensor([1.0, 3.0], dtype=torch.float64))
        assert losses("kto", inputs) == pytest.approx([0.25, 0.75])

    def test_kto_takes_a_negative_baseline_as_zero(self) -> None:
        inputs = record([0.0, 0.0], [1.0, 0.0], mismatched_rewards=torch.tensor([-4.0, 1.0]))
        assert losses("kto", inputs) == pytest.approx([0.5, 0.5])

    def test_kto_weights_its_classes(self) -> None:
        inputs = record(
            [0.0, 0.0],
            [1.0, 0.0],
            mismatched_rewards=torch.zeros(1),
            settings=ObjectiveSettings(right_weight=2.0, wrong_weight=0.5),
        )
        assert losses("kto", inputs) == pytest.approx([1.0, 0.25])

    def test_bco_shifts_by_the_middle_of_the_class_means(self) -> None:
        # Right mean 3, wrong mean 1, so d = 2: u - d = 1 and -1.
        everything = torch.tensor([2.0, 4.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])
        inputs = record([3.0, 1.0], [1.0, 0.0], batch_rewards=everything[0], batch_labels=everything[1])
        assert losses("bco", inputs) == pytest.approx([-log_sigmoid(1.0)] * 2)

    def test_bco_with_one_class_in_the_batch_shifts_by_its_mean(self) -> None:
        inputs = record([3.0], [1.0], batch_rewards=torch.tensor([3.0, 5.0]), batch_labels=torch.ones(2))
        assert losses("bco", inputs) == pytest.approx([-log_sigmoid(-1.0)])

    def test_bco_pair_is_cross_entropy_summed_over_the_pair(self) -> None:
        inputs = record([0.7, -0.2, 1.5, 2.0], [1.0, 0.0, 1.0, 0.0])
        ce = losses("ce", inputs)
        assert losses("bco-pair", inputs) == pytest.approx([ce[0] + ce[1], ce[2] + ce[3]])

    def test_prefix_asks_every_prefix_and_averages_over_tokens(self) -> None:
        # Log-ratios 1, 3 then end: prefix means 1 and 2; beta 2, margin 1: v - m = 1 and 3 for right.
        # For wrong with log-ratio 0.5 once: v = 1, -v - m = -2.
        inputs = record(
            [4.0, 0.5],
            [1.0, 0.0],
            lengths=torch.tensor([2, 1]),
            log_ratios=torch.tensor([[1.0, 3.0], [0.5, 0.0]], dtype=torch.float64),
            settings=ObjectiveSettings(prefix_beta=2.0, prefix_margin=1.0),
        )
        right = -(log_sigmoid(1.0) + log_sigmoid(3.0)) / 2
        assert losses("prefix", inputs) == pytest.approx([right, -log_sigmoid(-2.0)])

    def test_ce_with_prefixes_is_the_weighted_sum(self) -> None:
        inputs = record(
            [4.0],
            [1.0],
            lengths=torch.tensor([2]),
            log_ratios=torch.tensor([[1.0, 3.0]], dtype=torch.float64),
            settings=ObjectiveSettings(prefix_weight=0.25),
        )
        expected = losses("ce", inputs)[0] + 0.25 * losses("prefix", inputs)[0]
        assert losses("ce-prefix", inputs) == pytest.approx([expected])

    def test_token_ce_asks_the_outcome_of_every_token(self) -> None:
        inputs = record(
            [9.0],
            [0.0],
            lengths=torch.tensor([2]),
            head_values=torch.tensor([[0.0, math.log(3), 7.0]], dtype=torch.float64),
        )
        assert losses("token-ce", inputs) == pytest.approx([(LOG2 + math.log(4)) / 2])

    def test_step_ce_reads_the_cumulative_value_at_labelled_tokens_only(self) -> None:
        # beta 0.5, log-ratios 2, 2, 2: values 1, 2, 3; labels at tokens 0 (right) and 2 (a soft 0.25).
        nan = math.nan
        inputs = record(
            [3.0],
            [1.0],
            beta=0.5,
            lengths=torch.tensor([3]),
            log_ratios=torch.full((1, 3), 2.0, dtype=torch.float64),
            token_targets=torch.tensor([[1.0, nan, 0.25]], dtype=torch.float64),
        )
        soft = -(0.25 * log_sigmoid(3.0) + 0.75 * log_sigmoid(-3.0))
        assert losses("step-ce", inputs) == pytest.approx([(-log_sigmoid(1.0) + soft) / 2])

    def test_response_rewards_are_beta_times_the_sum(self) -> None:
        log_ratios = torch.tensor([[1.0, -0.5, 2.0], [0.25, 0.0, 0.0]], dtype=torch.bfloat16)
        rewards = response_rewards(log_ratios, beta=0.1)
        assert rewards.dtype == torch.float32
        assert rewards.tolist() == pytest.approx([0.25, 0.025])


class TestProperties:
    @given(
        st.lists(st.floats(-30, 30), min_size=2, max_size=10).filter(lambda values: len(values) % 2 == 0),
        st.sampled_from(["ce", "dpo", "nca", "bco-pair", "pair-margin", "kto"]),
    )
    def test_losses_are_finite_and_not_negative(self, rewards: list[float], name: str) -> None:
        labels = [float(index % 2 == 0) for index in range(len(rewards))]
        inputs = record(rewards, labels, mismatched_rewards=torch.tensor([0.5]))
        values = OBJECTIVES[name].function(inputs).losses
        assert torch.isfinite(values).all()
        assert (values >= 0).all()

    @given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 3))
    def test_more_reward_for_right_and_less_for_wrong_never_costs(self, u: float, v: float, d: float) -> None:
        for name in ("ce", "dpo", "bco-pair", "pair-margin", "kto"):
            fields = {"mismatched_rewards": torch.tensor([0.5])}
            before = sum(losses(name, record([u, v], [1.0, 0.0], **fields)))
            after = sum(losses(name, record([u + d, v - d], [1.0, 0.0], **fields)))
            assert after <= before + 1e-12

    @pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].needs_mismatched])
    def test_the_baseline_carries_no_gradient(self, name: str) -> None:
        mismatched = torch.ones(3, requires_grad=True)
        rewards = torch.zeros(2, requires_grad=True)
        inputs = ObjectiveInput(
            rewards=rewards,
            labels=torch.tensor([1.0, 0.0]),
            lengths=torch.ones(2, dtype=torch.long),
            mismatched_rewards=mismatched,
        )
        OBJECTIVES[name].function(inputs).losses.sum().backward()
        assert mismatched.grad is None
        assert rewards.grad is not None

    def test_the_command_line_offers_exactly_these(self) -> None:
        assert tuple(OBJECTIVES) == OBJECTIVE_NAMES

    @pytest.mark.parametrize("constant", [item.name for item in fields(ObjectiveSettings)])
    @pytest.mark.parametrize("name", sorted(OBJECTIVES))
    def test_a_constant_that_one_does_not_read_is_refused(self, name: str, constant: str) -> None:
        inputs = record(
            [0.4, -0.3],
            [1.0, 0.0],
            lengths=torch.tensor([2, 1]),
            log_ratios=torch.tensor([[0.3, 0.1], [-0.3, 0.0]]).double(),
            token_targets=torch.tensor([[1.0, 0.0], [0.0, torch.nan]]).double(),
            mismatched_rewards=torch.tensor([0.1]).double(),
            batch_rewards=torch.tensor([0.4, -0.3]).double(),
            batch_labels=torch.tensor([1.0, 0.0]).double(),
        )
        changed: dict[str, Any] = {constant: 0.7}
        other = replace(inputs, settings=ObjectiveSettings(**changed))
        flag = "--" + constant.replace("_", "-")
        if losses(name, other) == losses(name, inputs):
            with pytest.raises(UserError, match=f"{flag}: does not apply to the objective {name}"):
                TrainConfig(objective=name, **changed)
        else:
            assert getattr(TrainConfig(objective=name, **changed), constant) == 0.7

    def test_an_unknown_one_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(UserError, match=r"'orpo'.*ce, dpo, kto"):
            get_objective("orpo")


class TestAgreementWithTRL:
    """Values and gradients of TRL's own loss code, given the same per-token log-probabilities."""

    BETA = 0.3

    def logs(self, pairs: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Policy and reference log-probabilities and mask; rows chosen first, then rejected."""
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, width + 1, (2 * pairs,), generator=generator)
        mask = (torch.arange(width) < lengths[:, None]).double()
        policy = -torch.rand(2 * pairs, width, generator=generator, dtype=torch.float64) * 3 * mask
        reference = -torch.rand(2 * pairs, width, generator=generator, dtype=torch.float64) * 3 * mask
        return policy, reference, mask

    def trl(self, **fields: Any) -> SimpleNamespace:
        accelerator = SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda value: value, gather=lambda value: value
        )
        return SimpleNamespace(
            accelerator=accelerator,
            model=SimpleNamespace(training=True),
            beta=self.BETA,
            aux_loss_enabled=False,
            _metrics=defaultdict(lambda: defaultdict(list)),
            _total_train_tokens=0,
            _tp_size=1,
            **fields,
        )

    def outputs(self, log_probs: Tensor) -> SimpleNamespace:
        zeros = torch.zeros_like(log_probs).detach()
        return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [("dpo", "sigmoid"), ("nca", "nca_pair"), ("bco-pair", "bco_pair"), ("ipo", "ipo")],
    )
    @pytest.mark.parametrize(("pairs", "width"), [(1, 1), (3, 5), (4, 9)])
    def test_paired_objectives(self, ours: str, theirs: str, pairs: int, width: int) -> None:
        dpo_trainer = pytest.importorskip("trl.trainer.dpo_trainer")
        policy, reference, mask = self.logs(pairs, width, seed=pairs * 10 + width)
        reference_sums = reference.sum(dim=1)
        theirs_policy = policy.clone().requires_grad_()
        stand_in = self.trl(
            loss_types=[theirs],
            loss_weights=[1.0],
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            use_weighting=False,
        )
        padded_mask = torch.cat([torch.zeros(2 * pairs, 1), mask], dim=1)
        inputs = {
            "input_ids": torch.zeros(2 * pairs, width + 1, dtype=torch.long),
            "attention_mask": torch.ones(2 * pairs, width + 1, dtype=torch.long),
            "completion_mask": padded_mask.long(),
            "ref_chosen_logps": reference_sums[:pairs],
            "ref_rejected_logps": reference_sums[pairs:],
        }
        expected = dpo_trainer.DPOTrainer._compute_loss(
            stand_in, lambda **_: self.outputs(theirs_policy), inputs, False
        )
        expected.backward()

        ours_policy = policy.clone().requires_grad_()
        interleaved = torch.arange(2 * pairs).reshape(2, pairs).T.flatten()
        log_ratios = (ours_policy - reference)[interleaved]
        loss = (
            OBJECTIVES[ours]
            .function(
                ObjectiveInput(
                    rewards=response_rewards(log_ratios, self.BETA),
                    labels=torch.tensor([1.0, 0.0] * pairs),
                    lengths=mask.sum(dim=1).long()[interleaved],
                    beta=self.BETA,
                )
            )
            .losses.mean()
        )
        loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours_policy.grad, theirs_policy.grad, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("kl_shift", [-2.0, 2.0])
    @pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.5)])
    def test_kto(self, kl_shift: float, weights: tuple[float, float]) -> None:
        kto_trainer = pytest.importorskip("trl.trainer.kto_trainer")
        policy, reference, mask = self.logs(3, 6, seed=3)
        kl_policy, kl_reference, _ = self.logs(3, 6, seed=4)
        kl_sums, kl_reference_sums = kl_policy.sum(dim=1) + kl_shift, kl_reference.sum(dim=1)
        labels = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
        theirs_policy = policy.clone().requires_grad_()
        stand_in = self.trl(
            calculate_KL=True,
            precompute_ref_logps=True,
            loss_type="kto",
            desirable_weight=weights[0],
            undesirable_weight=weights[1],
            _compute_kl_logps=lambda *_: kl_sums,
        )
        inputs = {
            "input_ids": torch.zeros(6, 7, dtype=torch.long),
            "attention_mask": torch.ones(6, 7, dtype=torch.long),
            "completion_mask": torch.cat([torch.zeros(6, 1), mask], dim=1).long(),
            "label": labels.bool(),
            "ref_logps": reference.sum(dim=1),
            "ref_KL_logps": kl_reference_sums,
        }
        expected = kto_trainer.KTOTrainer._compute_loss(
            stand_in, lambda **_: self.outputs(theirs_policy), inputs, False
        )
        expected.backward()

        ours_policy = policy.clone().requires_grad_()
        output = OBJECTIVES["kto"].function(
            ObjectiveInput(
                rewards=response_rewards(ours_policy - reference, self.BETA),
                labels=labels,
                lengths=mask.sum(dim=1).long(),
                beta=self.BETA,
                mismatched_rewards=self.BETA * (kl_sums - kl_reference_sums),
                settings=ObjectiveSettings(right_weight=weights[0], wrong_weight=weights[1]),
            )
        )
        loss = output.losses.mean()
        loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours_policy.grad, theirs_policy.grad, rtol=1e-12, atol=1e-12)


class TestGradientsAgainstNaiveTwins:
    @pytest.mark.parametrize("seed", range(3))
    def test_kto_gradient_is_the_derivative_of_the_printed_formula(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(5, generator=generator, dtype=torch.float64)
        labels = (torch.rand(5, generator=generator) > 0.5).double()
        z = 0.4
        rewards = values.clone().requires_grad_()
        inputs = ObjectiveInput(
            rewards=rewards,
            labels=labels,
            lengths=torch.ones(5, dtype=torch.long),
            mismatched_rewards=torch.tensor([z], dtype=torch.float64),
        )
        OBJECTIVES["kto"].function(inputs).losses.sum().backward()
        assert rewards.grad is not None
        for u, label, gradient in zip(values.tolist(), labels.tolist(), rewards.grad.tolist(), strict=True):
            slope = sigmoid(u - z) * (1 - sigmoid(u - z))
            assert gradient == pytest.approx(-slope if label else slope, rel=1e-12)
