"""Classifiers on a server: the scores are those made here, and answers that cannot be true are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import MakeTokenizer
from tests.servers.stub_server import Reply, StubServer, stub_server
from tests.tiny_classifiers import classifier_config
from transformers import LlamaForSequenceClassification, LlamaForTokenClassification

from stepcredit.checkpoints import PRMCard, save_prm
from stepcredit.cli import main
from stepcredit.errors import DataError, UserError
from stepcredit.scorers import load_scorer
from stepcredit.servers import pacing
from stepcredit.types import Rollout

FAMILIES = [
    *(("value-head", template) for template in ("chatml", "llama3", "gemma")),
    *(("orm", template) for template in ("chatml", "llama3", "gemma")),
    ("token-head", "chatml"),
    ("token-classifier", None),
]
"""Each with a chat template; a token classifier needs none."""
ROLLOUTS = [
    Rollout(id=str(number), prompt_id="p", prompt="Tom had 3 boxes.", response=response)
    for number, response in enumerate(["3 * 12 = 36\n36 - 9 = 27\nThe answer is 27", "é", "a\nb\nc\nd"])
]


class Classifier:
    """A server that answers as vLLM's pooling interfaces do, from a tiny model.

    Attributes:
        directory: The checkpoint.
        mangle: What becomes of an answer.
    """

    def __init__(self, stub: StubServer, model: Any, tokenizer: Any, directory: Path) -> None:
        self.stub, self.model, self.tokenizer, self.directory = stub, model.double(), tokenizer, directory
        self.mangle: Callable[[str, Any], Any] = lambda path, answer: answer
        self.address = f"{stub.url}#m"
        stub.answer = lambda number, body: Reply(self.mangle(body["path"], self.answer(body)))

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        assert body["model"] == "m"
        if body["path"] == "/detokenize":
            return {"prompt": self.tokenizer.decode(body["tokens"])}
        assert body["use_activation"] is False
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([body["input"]])).logits[0].float()
        if body["path"] == "/classify":
            return {"data": [{"index": 0, "label": "LABEL_0", "probs": logits.tolist(), "num_classes": 1}]}
        assert (body["path"], body["task"]) == ("/pooling", "token_classify")
        return {"data": [{"index": 0, "object": "pooling", "data": logits.tolist()}]}


@pytest.fixture
def classifier(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_tokenizer: MakeTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Classifier]:
    """A model of the family that the test names, here and on the server."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    family, template = request.param
    torch.manual_seed(5)
    config = classifier_config(
        pad_token_id=0,
        id2label={number: f"LABEL_{number}" for number in range(2 if family == "token-classifier" else 1)},
    )
    kind = LlamaForSequenceClassification if family == "orm" else LlamaForTokenClassification
    model: Any = kind(config)
    model.eval()
    tokenizer: Any = make_tokenizer(template or "chatml")
    if template is None:
        tokenizer.chat_template = None
    save_prm(model, tokenizer, PRMCard(family=family, step_rule="newline"), tmp_path)
    with stub_server() as stub:
        yield Classifier(stub, model, tokenizer, tmp_path)


@pytest.mark.parametrize("classifier", FAMILIES, indirect=True, ids=str)
def test_scores_are_those_made_here(classifier: Classifier) -> None:
    here = list(load_scorer(classifier.directory, with_tokens=True).score_all(ROLLOUTS))
    # Only tokenizer, configuration and prm.json are read.
    (classifier.directory / "model.safetensors").unlink()
    remote = load_scorer(classifier.directory, classifier_server=classifier.address, with_tokens=True)
    for ours, theirs in zip(here, remote.score_all(ROLLOUTS), strict=True):
        assert [step.text for step in ours.steps] == [step.text for step in theirs.steps]
        assert [step.reward for step in theirs.steps] == pytest.approx(
            [step.reward for step in ours.steps], abs=1e-5
        )
        assert theirs.reward == pytest.approx(ours.reward, abs=1e-5)
        assert (theirs.token_rewards is None) == (ours.token_rewards is None)
    paths = [body["path"] for body in classifier.stub.seen]
    assert paths[0] == "/detokenize"
    assert set(paths[1:]) == {"/classify" if "orm: " in remote.name else "/pooling"}
    assert len(paths) == 1 + len(ROLLOUTS)


@pytest.mark.parametrize("classifier", [("token-classifier", None)], indirect=True)
def test_the_score_command_takes_a_server(classifier: Classifier, tmp_path: Path) -> None:
    rows, out = tmp_path / "rollouts.jsonl", tmp_path / "scores.jsonl"
    row = {"id": "0", "prompt_id": "p", "prompt": "Tom?", "response": "a\nb"}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    words = ["score", str(rows), "--prm", str(classifier.directory), "--out", str(out)]
    assert main([*words, "--classifier-server", classifier.address]) == 0
    settings = json.loads((tmp_path / "scores.jsonl.manifest.json").read_text())["settings"]
    assert settings["prm"] == classifier.address


def broken(change: Callable[[list[Any]], Any]) -> Callable[[str, Any], Any]:
    """Rows of the outputs, changed."""

    def mangle(path: str, answer: Any) -> Any:
        if path != "/detokenize":
            answer["data"][0]["data"] = change(answer["data"][0]["data"])
        return answer

    return mangle


@pytest.mark.parametrize("classifier", [("token-classifier", None)], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], r"^0: .* gives \d+ x 2 outputs for \d+ x 2 \(tokens x classes\)"),
        (lambda rows: [row[:1] for row in rows], r"^0: .* gives \d+ x 1 outputs"),
        (lambda rows: [[0.25, 0.75] for _ in rows], "^0: .* gives probabilities, though outputs were asked"),
        (lambda rows: [*rows[:3], [math.inf, 0.0], *rows[4:]], r"gives an output of inf at token 4 of \d+"),
        (lambda rows: [*rows[:-1], [math.nan, 0.0]], "gives an output of nan at token"),
        (lambda rows: [*rows[:-1], ["x", 0.0]], "'x' is not a number"),
        (lambda rows: [*rows[:-1], [1.0]], "holds no outputs"),
        (lambda rows: None, "holds no outputs"),
        (lambda rows: [0.5], "holds no outputs"),
    ],
    ids=["fewer rows", "one class", "probabilities", "inf", "nan", "text", "ragged", "nothing", "flat"],
)
def test_outputs_that_cannot_be_the_models_are_refused(
    classifier: Classifier, change: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier.mangle = broken(change)
    scorer: Any = load_scorer(classifier.directory, classifier_server=classifier.address)
    limits = scorer.reader.inquiry.server.limits
    monkeypatch.setattr(scorer.reader.inquiry.server, "limits", type(limits)(retries=1))
    with pytest.raises(DataError, match=message):
        list(scorer.score_all(ROLLOUTS))


@pytest.mark.parametrize("classifier", [("value-head", "chatml")], indirect=True)
def test_a_server_with_other_tokens_is_noticed_at_the_first_sequence(classifier: Classifier) -> None:
    def mangle(path: str, answer: Any) -> Any:
        return {"prompt": "something else"} if path == "/detokenize" else answer

    classifier.mangle = mangle
    scorer = load_scorer(classifier.directory, classifier_server=classifier.address)
    with pytest.raises(UserError, match=r"tokens differ from those of .* here: 'something else' there"):
        list(scorer.score_all(ROLLOUTS))
    assert len(classifier.stub.seen) == 1


@pytest.mark.parametrize("classifier", [("value-head", "chatml")], indirect=True)
def test_wrong_settings_are_user_errors(classifier: Classifier) -> None:
    with pytest.raises(UserError, match=r"does not name the model\. Write URL#MODEL"):
        load_scorer(classifier.directory, classifier_server="http://localhost:8000")
    with pytest.raises(UserError, match="is not an address"):
        load_scorer(classifier.directory, classifier_server="localhost#m")
    with pytest.raises(UserError, match="--classifier-server: does not apply to the family math-shepherd"):
        load_scorer(classifier.directory, family="math-shepherd", classifier_server=classifier.address)
    classifier.stub.answer = lambda number, body: Reply({"error": {"message": "no model m"}}, 404)
    scorer = load_scorer(classifier.directory, classifier_server=classifier.address)
    with pytest.raises(UserError, match=r"the server refuses .*no model m"):
        list(scorer.score_all(ROLLOUTS))
