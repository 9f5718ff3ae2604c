"""Two labels at step separators: the loss is the one that TRL's former ``PRMTrainer`` documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeTokenizer
from tests.documents.test_documents import commands
from tests.tiny_classifiers import classifier_config
from tests.training.test_run import StoppedError, identical, stop_before_step, weights
from transformers import AutoModelForTokenClassification, LlamaConfig, LlamaForTokenClassification

from stepcredit.checkpoints import LoadOptions, PRMCard
from stepcredit.cli import main
from stepcredit.data import read_rollouts_as, read_scores
from stepcredit.encoding import StepwiseEncoding
from stepcredit.errors import CheckpointError, UserError
from stepcredit.objectives import get_objective, label_cross_entropy
from stepcredit.scorers import load_scorer
from stepcredit.scorers.token_classifier import classifier_record, right_class
from stepcredit.steps import StepRule
from stepcredit.training.batches import Cut
from stepcredit.training.config import TrainConfig
from stepcredit.training.examples import encode_examples
from stepcredit.training.fitting import TrainedModel
from stepcredit.training.inputs import read_inputs
from stepcredit.training.run import train_prm
from stepcredit.training.sources import Sources
from stepcredit.training.step_batches import make_forward_batch, make_step_batch
from stepcredit.types import Rollout

WHOLE = Cut(token_budget=4096, packed=False, process=0, num_processes=1)
ROWS: list[dict[str, Any]] = [
    {
        "prompt": "Which number is larger, 9.8 or 9.11?",
        "completions": ["The fractional part of 9.8 is 0.8.", "  0.11 is greater.", "So 9.11."],
        "labels": [True, False, False],
    },
    {"prompt": "What is 3 * 12 - 9?", "completions": ["3 * 12 = 36", "36 - 9 = 27"], "labels": [True, True]},
    {"prompt": "And 2 + 2?", "completions": ["It is é,\nor so."], "labels": [False]},
    {
        "prompt": "Half of 8?",
        "completions": ["4", "4", "4", "4", "The answer is 4"],
        "labels": [1, 1, 0, 1, 1],
    },
]


@dataclass(frozen=True, kw_only=True)
class Documented:
    """How that trainer makes a row, by its documentation.

    Attributes:
        separator: Its ``step_separator``.
        max_length: Its ``max_length``.
        last_only: Its ``train_on_last_step_only``.
    """

    separator: str = "\n"
    max_length: int | None = None
    last_only: bool = False

    def row(self, tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        """Token ids, and labels of which -100 counts for nothing."""

        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        token_ids = start + ids(row["prompt"])
        labels = [-100] * len(token_ids)
        for number, (step, label) in enumerate(zip(row["completions"], row["labels"], strict=True), 1):
            step_ids = ids(step) + ids(self.separator)
            counts = number == len(row["labels"]) or not self.last_only
            token_ids += step_ids
            labels += [-100] * (len(step_ids) - 1) + [int(label) if counts else -100]
        return token_ids[: self.max_length], labels[: self.max_length]

    def loss(self, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> float:
        """Cross-entropy of the labelled tokens of a batch, averaged over them, in float64."""
        losses = []
        for row in rows:
            token_ids, labels = self.row(tokenizer, row)
            with torch.no_grad():
                logits = model.double()(input_ids=torch.tensor([token_ids])).logits[0]
            log_probs = logits.log_softmax(-1)
            losses += [-float(log_probs[at, label]) for at, label in enumerate(labels) if label != -100]
        return sum(losses) / len(losses)


@dataclass(frozen=True)
class Start:
    """A classifier as that trainer saved it, and its rows in a file."""

    model: Path
    file: Path
    tokenizer: Any

    def network(self) -> Any:
        return AutoModelForTokenClassification.from_pretrained(self.model).eval()

    def rollouts(self) -> list[Rollout]:
        return list(read_rollouts_as(self.file, "trl-stepwise"))


@pytest.fixture
def start_of_text() -> str | None:
    """What a sequence begins with; tests choose another one by a parameter of this name."""
    return "<|im_start|>"


@pytest.fixture
def start(start_of_text: str | None, tmp_path: Path, make_tokenizer: MakeTokenizer) -> Start:
    torch.manual_seed(3)
    config = classifier_config()
    network: Any = LlamaForTokenClassification(config)
    tokenizer: Any = make_tokenizer()
    tokenizer.bos_token = start_of_text
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    # Trainers leave their arguments there as a pickle, which is none of the model's files.
    (tmp_path / "model" / "training_args.bin").write_bytes(b"\x80\x04N.")
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return Start(tmp_path / "model", file, tokenizer)


def train(start: Start, work: Path, **settings: Any) -> TrainedModel:
    base = {"family": "token-classifier", "objective": "label-ce", "batch_size": len(ROWS), "log_every": 1}
    config = TrainConfig(**{**base, "learning_rate": 1e-2, **settings})
    sources = Sources.find(start.model, None, config, LoadOptions())
    return train_prm(start.rollouts(), sources=sources, config=config, work=work)


def first_loss(trained: TrainedModel) -> float:
    return next(float(row["loss"]) for row in trained.log if "loss" in row)


@pytest.mark.parametrize("start_of_text", [None, "<|im_start|>"])
@pytest.mark.parametrize("separator", ["\n", " ;\n\n"])
def test_rows_become_the_documented_tokens_and_labels(start: Start, separator: str) -> None:
    encoding = StepwiseEncoding(start.tokenizer, StepRule("newline"), separator=separator)
    examples = encode_examples(start.rollouts(), encoding, objective=get_objective("label-ce"))
    for example, row in zip(examples, ROWS, strict=True):
        token_ids, labels = Documented(separator=separator).row(start.tokenizer, row)
        ours = [-100] * len(token_ids)
        for place, label in example.step_targets:
            ours[example.encoded.scored_start + place] = int(label)
        assert list(example.encoded.token_ids) == token_ids
        assert ours == labels


@pytest.mark.parametrize(
    ("settings", "documented"),
    [
        ({}, Documented()),
        ({"step_separator": r" ;\n"}, Documented(separator=" ;\n")),
        ({"last_step_only": True}, Documented(last_only=True)),
        ({"max_tokens": 60, "over_long": "truncate"}, Documented(max_length=60)),
    ],
    ids=["as it is", "separator", "last step only", "truncated"],
)
def test_the_loss_of_a_batch_is_that_of_trls_trainer(
    start: Start, settings: dict[str, Any], documented: Documented
) -> None:
    network = start.network()
    config = TrainConfig(family="token-classifier", objective="label-ce", **settings)
    data = read_inputs(start.rollouts(), (), start.model, config, LoadOptions(), seed=0).data
    batch = make_step_batch(data, range(len(data.units)), None, with_mismatched=False, cut=WHOLE)
    with torch.no_grad():
        records = [classifier_record(network, forward) for forward in batch.forwards]
        ours = sum(float(label_cross_entropy(record).losses.sum()) for record in records) / batch.num_labels
    assert ours == pytest.approx(documented.loss(network, start.tokenizer, ROWS), abs=2e-6)
    if documented.max_length is not None:
        assert data.counts["truncated"] == 1
        assert abs(ours - Documented().loss(network, start.tokenizer, ROWS)) > 1e-3


def test_the_first_step_of_a_run_has_that_loss_in_however_many_passes(start: Start, tmp_path: Path) -> None:
    expected = Documented().loss(start.network(), start.tokenizer, ROWS)
    assert first_loss(train(start, tmp_path / "work", tokens_per_forward=64)) == pytest.approx(
        expected, abs=2e-6
    )


def test_label_ce_weighs_labels_and_step_ce_responses(start: Start, tmp_path: Path) -> None:
    of_rows = [Documented().loss(start.network(), start.tokenizer, [row]) for row in ROWS]
    trained = train(start, tmp_path / "work", objective="step-ce")
    assert first_loss(trained) == pytest.approx(sum(of_rows) / len(of_rows), abs=2e-6)


def test_the_commands_of_the_page_score_a_classifier_of_trls_trainer_and_train_it_further(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start.model.rename("TRL-MODEL")
    convert, train, before, after = commands("docs/coming-from-trl.md")
    other = [r" ;\n" if word == r"\n" else word for word in train]
    for words in (convert, other, before, after):
        assert main(words[1:]) == 0, capsys.readouterr().err
    card = PRMCard.read("prm")
    assert (card.family, card.objective, card.step_separator) == ("token-classifier", "label-ce", " ;\n")
    assert json.loads(Path("prm/config.json").read_text())["id2label"] == {"0": "wrong", "1": "right"}
    for file, model, separator in (("scores", "TRL-MODEL", "\n"), ("trained-scores", "prm", " ;\n")):
        network: Any = AutoModelForTokenClassification.from_pretrained(model)
        for score, row in zip(read_scores(f"{file}.jsonl"), ROWS, strict=True):
            expected = right_of_steps(network, *Documented(separator=separator).row(start.tokenizer, row))
            assert [step.reward for step in score.steps] == pytest.approx(expected, abs=1e-5)
    start_from_prm = [word for word in train if word not in ("--step-separator", r"\n")]
    start_from_prm[start_from_prm.index("TRL-MODEL")] = "prm"
    start_from_prm[start_from_prm.index("--epochs") + 1] = "1"
    assert main([*start_from_prm[1:-1], "again"]) == 0, capsys.readouterr().err
    assert PRMCard.read("again").step_separator == " ;\n"


def right_of_steps(network: Any, token_ids: list[int], labels: list[int]) -> list[float]:
    """Probability of right at each labelled token, in float64."""
    with torch.no_grad():
        right = network.double()(input_ids=torch.tensor([token_ids])).logits[0].softmax(-1)[:, 1].tolist()
    return [right[at] for at, label in enumerate(labels) if label != -100]


def test_a_run_that_was_stopped_is_the_same_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "epochs": 2.0, "save_every": 1, "last_step_only": True}
    whole = train(start, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_before_step(patch, 2)
        train(start, tmp_path / "work", **settings)
    resumed = train(start, tmp_path / "work", **settings)
    assert identical(weights(resumed), weights(whole))
    assert resumed.log == whole.log


def test_an_adapter_of_a_classifier_is_trained_and_scored(start: Start, tmp_path: Path) -> None:
    rollouts, prm = tmp_path / "rollouts.jsonl", tmp_path / "prm"
    assert main(["convert", str(start.file), "--from", "trl-stepwise", "--out", str(rollouts)]) == 0
    family = ["--family", "token-classifier", "--objective", "label-ce", "--lora-rank", "2"]
    words = ["train", str(rollouts), "--model", str(start.model), *family, "--learning-rate", "1e-2"]
    assert main([*words, "--batch-size", "2", "--epochs", "2", "--out", str(prm)]) == 0
    before, after = (
        [score.reward for score in load_scorer(path, family="token-classifier").score_all(start.rollouts())]
        for path in (start.model, prm)
    )
    assert before != pytest.approx(after, abs=1e-3)


@pytest.mark.parametrize(
    ("names", "right"),
    [
        (("LABEL_0", "LABEL_1"), 1),
        (("Incorrect", "Correct"), 1),
        (("good", "bad"), 0),
        (("+", "-"), 0),
        (("a", "b"), None),
        (("right", "incorrect"), None),
    ],
)
def test_the_right_class_is_found_by_its_name(names: tuple[str, str], right: int | None) -> None:
    configuration = LlamaConfig(id2label=dict(enumerate(names)))
    if right is not None:
        assert right_class(configuration) == right
        return
    with pytest.raises(CheckpointError, match=r"does not say which of them is right.*id2label"):
        right_class(configuration)


def test_a_checkpoint_whose_first_class_is_right_is_scored_and_trained_as_such(start: Start) -> None:
    network = start.network()
    (example,) = encode_examples(
        start.rollouts()[1:2],
        StepwiseEncoding(start.tokenizer, StepRule("newline")),
        objective=get_objective("label-ce"),
    )
    batch = make_forward_batch([example], [example.encoded], None)
    with torch.no_grad():
        usual = classifier_record(network, batch).rewards
        network.config.id2label = {0: "correct", 1: "incorrect"}
        assert classifier_record(network, batch).rewards.tolist() == (-usual).tolist()
    before = load_scorer(start.model).score_all(start.rollouts())
    configuration = json.loads((start.model / "config.json").read_text())
    (start.model / "config.json").write_text(
        json.dumps({**configuration, "id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": 0, "no": 1}})
    )
    for usual_score, score in zip(before, load_scorer(start.model).score_all(start.rollouts()), strict=True):
        assert [step.reward for step in score.steps] == pytest.approx(
            [1 - step.reward for step in usual_score.steps], abs=1e-6
        )


def test_a_separator_for_a_family_without_one_is_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--step-separator: does not apply to the family value-head"):
        train(start, tmp_path / "work", family="value-head", step_separator="\n")
    with pytest.raises(UserError, match="--step-separator: does not apply to the family math-shepherd"):
        load_scorer(start.model, family="math-shepherd", step_separator=";")
