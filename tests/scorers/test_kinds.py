"""Every family against a second computation, written from its model card, in float64 and one at a time."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from stepcredit.checkpoints import PRMCard, save_prm
from stepcredit.encoding import EncodedSteps, EncodingError, MathShepherdEncoding, read_positions
from stepcredit.errors import CheckpointError, UserError
from stepcredit.lab.tokenizer import make_tokenizer as lab_tokenizer
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import Judgement, ResponseScorer, WindowedScorer
from stepcredit.scorers.implicit import ImplicitPRM
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.kinds import FAMILIES, KINDS, TRAINED, Line, family_of, get_kind, load_scorer
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.steps import StepRule, steps_of
from stepcredit.types import Encoded, Rollout, Scorer

MakeTokenizer = Callable[..., PreTrainedTokenizerBase]
PROMPT = "Tom had 3 boxes + 2. How many?"
STEPS = ["Step 1: 3 + 2 = 5", "Step 2: é - that is all\nof them.", "The answer is 5"]
SIZES: dict[str, Any] = {
    "vocab_size": 348,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


def rollouts() -> list[Rollout]:
    """Responses of several lengths, so that batches are padded."""
    variants = [STEPS, STEPS[:1], [*STEPS, *STEPS], ["x"]]
    return [
        Rollout(
            id=str(index),
            prompt_id="p",
            prompt=PROMPT,
            response="\n\n".join(steps),
            extras={"steps": steps},
        )
        for index, steps in enumerate(variants)
    ]


def check(scorer: ResponseScorer, naive: Callable[[list[str]], list[float]]) -> None:
    """Step scores are the naive ones and the response's reward is the aggregate that the name says."""
    for rollout, score in zip(rollouts(), scorer.score_all(rollouts()), strict=True):
        expected = naive(rollout.extras["steps"])
        assert [step.reward for step in score.steps] == pytest.approx(expected, abs=1e-5)
        assert [step.value for step in score.steps] == [step.reward for step in score.steps]
        assert "".join(step.text for step in score.steps) == rollout.response
        aggregate = scorer.name.split()[-1]
        assert score.reward == score.aggregates[aggregate]
        assert min(expected) == pytest.approx(score.aggregates["min"], abs=1e-5)


def logits_of(model: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.double()(input_ids=torch.tensor([token_ids])).logits[0]
    return logits


def save(directory: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
    return directory


def test_math_shepherd(tmp_path: Path, make_model: Any, make_tokenizer: MakeTokenizer) -> None:
    model, tokenizer = make_model(4), make_tokenizer()
    save(tmp_path, model, tokenizer)
    good, bad = tokenizer.encode("+ -")
    tag = tokenizer.encode("ки")[-1]

    def naive(steps: list[str]) -> list[float]:
        text = PROMPT + " " + "\n".join(f"{step} ки" for step in steps)
        token_ids = tokenizer.encode(text)
        probabilities = logits_of(model, token_ids)[:, [good, bad]].softmax(-1)[:, 0]
        return [float(p) for p, token in zip(probabilities, token_ids, strict=True) if token == tag]

    check(load_scorer(tmp_path, family="math-shepherd"), naive)


def test_rlhflow(tmp_path: Path, make_model: Any, make_tokenizer: MakeTokenizer) -> None:
    model, tokenizer = make_model(5), make_tokenizer("llama3")
    save(tmp_path, model, tokenizer)
    good, bad = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]

    def naive(steps: list[str]) -> list[float]:
        conversation, scores = [], []
        for index, step in enumerate(steps):
            turn = f"{PROMPT} {step}" if index == 0 else step
            conversation += [{"role": "user", "content": turn}, {"role": "assistant", "content": "+"}]
            text: Any = tokenizer.apply_chat_template(conversation, tokenize=False)
            token_ids = tokenizer.encode(text)
            scores.append(float(logits_of(model, token_ids)[-3, [good, bad]].softmax(-1)[0]))
        return scores

    check(load_scorer(tmp_path, family="rlhflow"), naive)


def test_math_shepherd_with_a_vocabulary_without_the_tag(make_model: Any) -> None:
    tokenizer = lab_tokenizer()
    encoding = MathShepherdEncoding(tokenizer, StepRule("newline"))
    rollout = Rollout(id="1", prompt_id="1", prompt="3+4-2=", response="3+4=7\n7-2=5\n#5")
    encoded = encoding.encode(rollout)
    characters = "3+4-2= 3+4=7 ки\n7-2=5 ки\n#5 ки"
    assert len(encoded.encoded.token_ids) == len(characters)
    ends = [index for index, character in enumerate(characters) if character == "и"]
    assert list(read_positions(encoded.encoded)) == ends
    assert list(encoding.label_ids) == tokenizer.convert_tokens_to_ids(["+", "-"])


def with_head(directory: Path, prefix: str, head: nn.Module, architecture: str) -> None:
    """Add a head's weights to a saved causal language model, as the published checkpoints have them."""
    file = directory / "model.safetensors"
    tensors = load_file(file) | {f"{prefix}{name}": value for name, value in head.state_dict().items()}
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["architectures"] = [architecture]
    config["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    (directory / "config.json").write_text(json.dumps(config))


def qwen2(seed: int) -> Any:
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()


def test_qwen_prm_without_its_remote_code(tmp_path: Path, make_tokenizer: MakeTokenizer) -> None:
    model, tokenizer = qwen2(6), make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    head = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))
    save(tmp_path, model, tokenizer)
    with_head(tmp_path, "score.", head, "Qwen2ForProcessRewardModel")
    tag = tokenizer.encode("<extra_0>")[0]

    def naive(steps: list[str]) -> list[float]:
        messages = [
            {
                "role": "system",
                "content": "Please reason step by step, and put your final answer within \\boxed{}.",
            },
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False)
        token_ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            hidden = model.double().model(input_ids=token_ids).last_hidden_state
            probabilities = head.double()(hidden).softmax(-1)
        return [float(p) for p in probabilities[token_ids == tag][:, 1]]

    scorer = load_scorer(tmp_path)
    assert scorer.name.startswith("qwen-prm: ")
    check(scorer, naive)


def test_skywork_prm(tmp_path: Path, make_tokenizer: MakeTokenizer) -> None:
    model, tokenizer = qwen2(7), make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    head = nn.Linear(24, 1)
    save(tmp_path, model, tokenizer)
    with_head(tmp_path, "v_head.summary.", head, "Qwen2ForPrmModel")

    def naive(steps: list[str]) -> list[float]:
        token_ids = tokenizer.encode(f"<|im_start|>{PROMPT}\n")
        flags = [0] * len(token_ids)
        for step in steps:
            ids = [*tokenizer.encode(step), tokenizer.encode("\n")[-1]]
            token_ids += ids
            flags += [0] * (len(ids) - 1) + [1]
        with torch.no_grad():
            hidden = model.double()(
                input_ids=torch.tensor([token_ids]), output_hidden_states=True
            ).hidden_states[-1]
            values = head.double()(hidden)[0, :, 0].sigmoid()
        return [float(value) for value, flag in zip(values, flags, strict=True) if flag]

    scorer = load_scorer(tmp_path)
    assert scorer.name.startswith("skywork-prm: ")
    check(scorer, naive)


@pytest.mark.parametrize("start_of_text", [None, "<|im_start|>"])
def test_two_label_token_classifiers_of_trl(
    tmp_path: Path, make_tokenizer: MakeTokenizer, start_of_text: str | None
) -> None:
    torch.manual_seed(8)
    model: Any = LlamaForTokenClassification(LlamaConfig(**SIZES | {"num_labels": 2})).eval()
    tokenizer = make_tokenizer()
    tokenizer.bos_token = start_of_text
    save(tmp_path, model, tokenizer)

    def naive(steps: list[str]) -> list[float]:
        token_ids = [] if start_of_text is None else [tokenizer.bos_token_id]
        token_ids += tokenizer.encode(PROMPT)
        ends = []
        for step in steps:
            token_ids += tokenizer.encode(step) + tokenizer.encode("\n")
            ends.append(len(token_ids) - 1)
        return [float(p) for p in logits_of(model, token_ids)[ends].softmax(-1)[:, 1]]

    scorer = load_scorer(tmp_path)
    assert scorer.name.startswith("token-classifier: ")
    check(scorer, naive)


def test_value_heads_are_read_at_the_last_token_of_each_step(
    tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    torch.manual_seed(9)
    model: Any = LlamaForTokenClassification(LlamaConfig(**SIZES | {"num_labels": 1})).eval()
    tokenizer: Any = make_tokenizer()
    save_prm(model, tokenizer, PRMCard(family="value-head", step_rule="blank-line"), tmp_path)

    def naive(steps: list[str]) -> list[float]:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True
        )
        whole = tokenizer(text + "\n\n".join(steps) + "<|im_end|>", return_offsets_mapping=True)
        values = logits_of(model, whole["input_ids"])[:, 0].sigmoid()
        scores = []
        end = len(text)
        for step in steps[:-1]:
            end += len(step) + 2
            last = max(i for i, (start, _) in enumerate(whole["offset_mapping"]) if start < end)
            scores.append(float(values[last]))
        return [*scores, float(values[-1])]

    scorer = load_scorer(tmp_path)
    assert scorer.name.startswith("value-head: ")
    check(scorer, naive)


def test_token_heads_average_over_steps_prefixes_and_responses(
    tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    torch.manual_seed(12)
    model: Any = LlamaForTokenClassification(LlamaConfig(**SIZES | {"num_labels": 1})).eval()
    tokenizer: Any = make_tokenizer()
    save_prm(model, tokenizer, PRMCard(family="token-head", step_rule="newline"), tmp_path)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True
    )
    prompt_ids = tokenizer.encode(prompt)
    steps = [tokenizer.encode("a b\n"), [*tokenizer.encode("c"), tokenizer.eos_token_id]]
    values = logits_of(model, prompt_ids + steps[0] + steps[1])[len(prompt_ids) :, 0]
    first, second = values[: len(steps[0])], values[len(steps[0]) :]

    scorer = load_scorer(tmp_path, with_tokens=True)
    score = scorer.score(PROMPT, "a b\nc")
    means = [float(first.mean()), float(second.mean())]
    assert [step.reward for step in score.steps] == pytest.approx(means, abs=1e-5)
    assert [step.value for step in score.steps] == pytest.approx([means[0], float(values.mean())], abs=1e-5)
    assert score.reward == pytest.approx(float(values.mean()), abs=1e-5)
    assert score.token_rewards == pytest.approx(values.tolist(), abs=1e-5)
    assert scorer.name.endswith("reward is token-mean")
    lowest = load_scorer(tmp_path, response_aggregate="min").score(PROMPT, "a b\nc")
    assert lowest.reward == pytest.approx(min(means), abs=1e-5)
    with pytest.raises(UserError, match=r"no aggregate 'token-mean'.*Use min, last"):
        load_scorer(tmp_path, family="value-head", response_aggregate="token-mean")


@pytest.mark.parametrize("pad_token_id", [0, None])
def test_sequence_classifiers_score_the_response_as_one_step(
    tmp_path: Path, make_tokenizer: MakeTokenizer, pad_token_id: int | None
) -> None:
    torch.manual_seed(10)
    config = LlamaConfig(**SIZES | {"num_labels": 1, "pad_token_id": pad_token_id})
    model: Any = LlamaForSequenceClassification(config).eval()
    tokenizer = make_tokenizer("llama3")
    save(tmp_path, model, tokenizer)
    scorer = load_scorer(tmp_path)
    assert scorer.name.startswith("orm: ")
    for rollout, score in zip(rollouts(), scorer.score_all(rollouts()), strict=True):
        messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": rollout.response}]
        text: Any = tokenizer.apply_chat_template(messages, tokenize=False)
        expected = float(logits_of(model, tokenizer.encode(text))[0])
        assert [step.reward for step in score.steps] == pytest.approx([expected], abs=1e-5)
        assert score.steps[0].text == rollout.response
        assert score.reward == score.steps[0].reward


@pytest.mark.parametrize("reward", ["sum", "mean", "min"])
def test_log_probability_baselines(
    tmp_path: Path, make_model: Any, make_tokenizer: MakeTokenizer, reward: str
) -> None:
    model, tokenizer = make_model(11), make_tokenizer()
    save(tmp_path, model, tokenizer)
    scorer = load_scorer(
        tmp_path, family="log-probability", steps="newline", response_aggregate=reward, with_tokens=True
    )
    score = scorer.score(PROMPT, "a b\nc")
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], tokenize=False, add_generation_prompt=True
    )
    prompt_ids = tokenizer.encode(prompt)
    steps = [tokenizer.encode("a b\n"), [*tokenizer.encode("c"), tokenizer.eos_token_id]]
    token_ids = prompt_ids + steps[0] + steps[1]
    log_probs = logits_of(model, token_ids)[:-1].log_softmax(-1)
    of_tokens = [float(log_probs[i - 1, token_ids[i]]) for i in range(len(prompt_ids), len(token_ids))]
    first, second = sum(of_tokens[: len(steps[0])]), sum(of_tokens[len(steps[0]) :])
    assert [step.reward for step in score.steps] == pytest.approx([first, second], abs=1e-5)
    assert [step.value for step in score.steps] == pytest.approx([first, first + second], abs=1e-5)
    expected = {"sum": first + second, "mean": (first + second) / len(of_tokens), "min": min(first, second)}
    assert score.reward == pytest.approx(expected[reward], abs=1e-5)
    assert score.token_rewards == pytest.approx(of_tokens, abs=1e-5)
    assert scorer.name.endswith(f"reward is {reward}")


def test_every_scorer_fulfils_the_protocol(tmp_path: Path, make_model: Any, make_tokenizer: Any) -> None:
    save(tmp_path, make_model(), make_tokenizer())
    scorer: Scorer = load_scorer(tmp_path, family="math-shepherd", response_aggregate="mean")
    score = scorer.score(PROMPT, "a\n\nb")
    assert score.reward == pytest.approx(sum(step.reward for step in score.steps) / 2)


def test_a_response_that_holds_the_tag_is_an_encoding_error(
    tmp_path: Path, make_model: Any, make_tokenizer: Any
) -> None:
    save(tmp_path, make_model(), make_tokenizer())
    with pytest.raises(EncodingError, match="the response holds ки") as caught:
        load_scorer(tmp_path, family="math-shepherd").score(PROMPT, "a ки b")
    assert caught.value.kind == "tag-in-response"


def test_over_long_conversations_are_refused(tmp_path: Path, make_model: Any, make_tokenizer: Any) -> None:
    save(tmp_path, make_model(), make_tokenizer())
    for family in ("math-shepherd", "rlhflow", "log-probability"):
        with pytest.raises(EncodingError, match="more than the context of 512"):
            load_scorer(tmp_path, family=family).score(PROMPT, "a " * 600)


def architecture(directory: Path, name: str, **fields: Any) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"architectures": [name], **fields}))
    return directory


@pytest.mark.parametrize(
    ("name", "fields", "family"),
    [
        ("Qwen2ForProcessRewardModel", {}, "qwen-prm"),
        ("Qwen2ForPrmModel", {}, "skywork-prm"),
        ("LlamaForSequenceClassification", {}, "orm"),
        ("LlamaForTokenClassification", {}, "token-classifier"),
        ("LlamaForTokenClassification", {"id2label": {"0": "LABEL_0"}}, "value-head"),
    ],
)
def test_the_architecture_tells_the_family(
    tmp_path: Path, name: str, fields: dict[str, Any], family: str
) -> None:
    assert family_of(architecture(tmp_path, name, **fields)) == family
    assert family in FAMILIES


def test_a_plain_language_model_does_not_tell_its_family(tmp_path: Path) -> None:
    path = architecture(tmp_path, "LlamaForCausalLM")
    assert family_of(path, implicit=True) == "implicit"
    with pytest.raises(CheckpointError, match=r"does not say which kind.*--family"):
        load_scorer(path)


def test_a_card_tells_the_family(tmp_path: Path) -> None:
    PRMCard(family="value-head").write(tmp_path)
    assert family_of(tmp_path) == "value-head"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "rlhf"}, "--family: no family 'rlhf'"),
        ({"family": "rlhflow", "beta": 0.1}, "--beta: does not apply to the family rlhflow"),
        ({"family": "rlhflow", "reference_free": True}, "--reference-free: does not apply"),
        ({"family": "rlhflow", "convention": "best-of-n"}, "--convention: does not apply"),
        ({"family": "rlhflow", "response_aggregate": "max"}, "--aggregate: no aggregate 'max'"),
        ({"family": "log-probability", "response_aggregate": "last"}, "--aggregate: no aggregate 'last'"),
        ({"beta": 1.0, "reference_free": True, "response_aggregate": "min"}, "--aggregate: does not apply"),
        ({"family": "qwen-prm"}, "<extra_0> is not one token|has no head"),
    ],
)
def test_options_of_other_families_are_refused(
    tmp_path: Path, make_model: Any, make_tokenizer: Any, options: dict[str, Any], message: str
) -> None:
    save(tmp_path, make_model(), make_tokenizer())
    with pytest.raises(UserError, match=message):
        load_scorer(tmp_path, **options)


@pytest.mark.parametrize("name", KINDS)
def test_each_line_of_the_table_leads_to_its_record(name: str) -> None:
    kind = get_kind(name)
    assert kind.name == name
    assert (kind.record is not None) == (name in TRAINED)


@dataclass(frozen=True, kw_only=True)
class Text(EncodedSteps):
    """A response for a judge that reads no tokens."""

    prompt: str


class TextEncoding:
    name = "text"

    def encode(self, rollout: Rollout) -> Text:
        steps = steps_of(rollout, StepRule("newline"))
        return Text(encoded=Encoded((), 0), steps=steps, prompt=str(rollout.prompt))


class LongWords(WindowedScorer):
    """A step is worth the longest word in it that its prompt has too."""

    name = "long words"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        judgements = []
        for item in encoded:
            assert isinstance(item, Text)
            words = [set(step.text.split()) & set(item.prompt.split()) for step in item.steps]
            rewards = np.array([max(map(len, shared), default=0) for shared in words], np.float64)
            aggregates = aggregate(rewards)
            judgements.append(
                Judgement(reward=aggregates["min"], rewards=rewards, values=rewards, aggregates=aggregates)
            )
        return judgements


class LongWordsKind(Kind):
    def load(self, settings: ScorerSettings) -> WindowedScorer:
        return LongWords(TextEncoding(), window=settings.window)


def test_a_new_kind_is_one_record_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("stepcredit.scorers.made_up")
    module.MADE_UP = LongWordsKind(  # type: ignore[attr-defined]
        name="made-up", encoding=lambda *_: TextEncoding(), architecture="ForMadeUp", takes=frozenset()
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(KINDS, "made-up", Line("made_up:MADE_UP"))
    path = architecture(tmp_path / "model", "LlamaForMadeUp")
    rollouts = [
        Rollout(id=prompt, prompt_id=prompt, prompt=prompt, response="how many\nboxes are there")
        for prompt in ("many small boxes", "how are you")
    ]
    scores = list(load_scorer(path).score_all(rollouts))
    assert [[step.reward for step in score.steps] for score in scores] == [[4, 5], [3, 3]]
    with pytest.raises(UserError, match="--cache: does not apply to the family made-up"):
        load_scorer(path, cache=tmp_path / "cache")


def test_a_setting_that_no_kind_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"load_scorer\(\) got an unexpected.*'betas'.*It takes directory, "):
        load_scorer(tmp_path, betas=1.0)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"from_pretrained\(\) missing .*'directory'"):
        ImplicitPRM.from_pretrained()  # type: ignore[call-arg]
    with pytest.raises(UserError, match="--aggregate: does not apply to the family implicit"):
        ImplicitPRM.from_pretrained(tmp_path, response_aggregate="min")
