"""A language model learns to solve word problems, and slips: worked solutions and arithmetic practice.

Purpose: the policies of the world, three strengths from three lengths of one run. Every so many steps a
moving average of the weights is saved as an ordinary checkpoint, whose pass@1 ``sample`` and ``grade``
measure. The rate is constant, so the run can always be made longer.

Each step sees worked solutions that it never saw before and some lines of practice (``12 * 7 = 84``), of
which only the results count. To be quick on a few cores: adapters (LoRA) on the upper layers only, so that
nothing goes back through the lower ones; vocabulary and loss at response tokens only; and two threads that
take half of a step's sequences each, which wastes less than two threads in each product of matrices. What is
saved is merged: an ordinary checkpoint.

Run: python -m stepcredit_study.word_problems.fine_tuning --model DIR --out DIR [--steps N] [--minutes M]
The same command, or one with more steps, goes on from the last saved state.
"""

from __future__ import annotations

import copy
import json
import math
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from stepcredit.checkpoints.loading import pick_device
from stepcredit.encoding.chat import ChatEncoding
from stepcredit.logprobs.forward import enable_log_probs, token_log_probs
from stepcredit.logprobs.packing import pad
from stepcredit.runs import atomic_directory, atomic_path, write_json, write_text
from stepcredit.steps import StepRule
from stepcredit.types import Rollout
from stepcredit_study.word_problems.practice import PRACTICE_PROMPT, practice_lines
from stepcredit_study.word_problems.problems import WordProblem
from stepcredit_study.word_problems.sources import POLICY, ProblemSource, Templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from stepcredit.types import Encoded

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The model's own, without its default system message, which would lengthen every prompt by a third."""
_STATE: Final = "state.pt"
_LOG: Final = "training.jsonl"
_STATE_SECONDS: Final = 600.0
"""Most that is lost when a run is killed, beside the step at hand."""
_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the model is fine-tuned.

    Attributes:
        learning_rate: Of AdamW, constant after the warm-up.
        rank: Of the adapters; their scale is 2.
        first_layer: Lowest layer with adapters.
        warmup: Steps in which it rises.
        solutions: Worked solutions in a step; none is seen twice.
        practice: Sequences of practice in a step.
        practice_lines: Lines in each of them.
        averaging: Decay of the moving average of the weights; it starts when the warm-up ends.
        max_grad_norm: Gradients are clipped to this norm.
        threads: Among which a step's sequences are divided.
        seed: Of the practice.
    """

    learning_rate: float = 1e-3
    rank: int = 32
    first_layer: int = 10
    warmup: int = 10
    solutions: int = 8
    practice: int = 2
    practice_lines: int = 14
    averaging: float = 0.95
    max_grad_norm: float = 1.0
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class WeightedSequence:
    """A sequence and the weight of each scored token in the loss."""

    encoded: Encoded
    weights: tuple[float, ...]


def steps_of_sequences(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, problems: Iterable[WordProblem], *, first: int
) -> Iterator[list[WeightedSequence]]:
    """The sequences of each step, from step ``first`` on, as long as there are problems."""
    encoding = ChatEncoding(tokenizer, StepRule("newline"))
    worked = islice(problems, first * recipe.solutions, None)
    for step in range(first, 2**31):
        chunk = list(islice(worked, recipe.solutions))
        if len(chunk) < recipe.solutions:
            return
        sequences = [
            _weighted(encoding, problem.prompt.id, problem.question, problem.solution, tokenizer=None)
            for problem in chunk
        ]
        random = Random(f"{recipe.seed}/{step}")
        for index in range(recipe.practice):
            lines = "\n".join(practice_lines(random, recipe.practice_lines))
            sequences.append(
                _weighted(encoding, f"practice-{step}-{index}", PRACTICE_PROMPT, lines, tokenizer=tokenizer)
            )
        yield sequences


def _weighted(
    encoding: ChatEncoding,
    name: str,
    prompt: str,
    response: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
) -> WeightedSequence:
    """All scored tokens count; with a ``tokenizer`` only results: what follows an equals sign on its line."""
    rollout = Rollout(id=name, prompt_id=name, prompt=prompt, response=response, finish_reason="stop")
    encoded = encoding.encode(rollout).encoded
    if tokenizer is None:
        return WeightedSequence(encoded, (1.0,) * encoded.num_scored)
    weights, in_result = [], False
    for token in encoded.token_ids[encoded.scored_start :]:
        text = tokenizer.decode([token])
        weights.append(1.0 if in_result else 0.0)
        in_result = "=" in text or (in_result and "\n" not in text)
    return WeightedSequence(encoded, tuple(weights))


class FineTuning:
    """A run: model, optimiser and average, on disk and in memory."""

    def __init__(self, model: Path, out: Path, recipe: Recipe) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.out, self.recipe, self.step = out, recipe, 0
        torch.manual_seed(recipe.seed)
        network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.tokenizer.chat_template = CHAT_TEMPLATE
        adapter = LoraConfig(
            r=recipe.rank,
            lora_alpha=2 * recipe.rank,
            target_modules=list(_PROJECTIONS),
            layers_to_transform=[*range(recipe.first_layer, network.config.num_hidden_layers)],
            task_type="CAUSAL_LM",
        )
        self.device = pick_device("auto")
        self.model: Any = get_peft_model(network, adapter).to(self.device)
        enable_log_probs(self.model)
        self.model.train()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        if self._state.exists():
            self._restore(torch.load(self._state, weights_only=True, map_location=self.device))

    @property
    def _state(self) -> Path:
        return self.out / _STATE

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step = saved["step"]
        with torch.no_grad():
            for name, tensors in (("parameters", self.parameters), ("average", self.average)):
                for tensor, kept in zip(tensors, saved[name], strict=True):
                    tensor.copy_(kept)

    def train_step(self, sequences: Sequence[WeightedSequence], pool: ThreadPoolExecutor) -> float:
        """One step of the optimiser; the mean loss, nats per token that counts."""
        recipe = self.recipe
        total = sum(sum(sequence.weights) for sequence in sequences)
        by_length = sorted(sequences, key=lambda sequence: len(sequence.encoded.token_ids))
        parts = [part for first in range(recipe.threads) if (part := by_length[first :: recipe.threads])]
        results = list(pool.map(lambda part: self._gradients(part, total), parts))
        for index, parameter in enumerate(self.parameters):
            parameter.grad = results[0][1][index]
            for _, gradients in results[1:]:
                parameter.grad += gradients[index]
        torch.nn.utils.clip_grad_norm_(self.parameters, recipe.max_grad_norm)
        share = min(1.0, (self.step + 1) / recipe.warmup)
        self.optimiser.param_groups[0]["lr"] = recipe.learning_rate * share
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        weight = 1.0 if self.step <= recipe.warmup else 1.0 - recipe.averaging
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list[Tensor](self.parameters), weight)
        return sum(loss for loss, _ in results)

    def _gradients(self, part: Sequence[WeightedSequence], total: float) -> tuple[float, tuple[Tensor, ...]]:
        batch = pad([sequence.encoded for sequence in part]).to(self.device)
        counted = [weight for sequence in part for weight in sequence.weights]
        weights = torch.tensor(counted, device=self.device)
        loss = -(token_log_probs(self.model, batch) * weights).sum() / total
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def save_state(self) -> None:
        """Everything that going on needs; the one before is replaced when this is complete."""
        saved = {
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "parameters": [parameter.detach() for parameter in self.parameters],
            "average": self.average,
        }
        with atomic_path(self._state) as target:
            torch.save(saved, target)

    def save_policy(self) -> None:
        """The moving average as an ordinary checkpoint in bfloat16, ``step-000040`` and so on."""
        averaged = copy.deepcopy(self.model)
        trainable = (parameter for parameter in averaged.parameters() if parameter.requires_grad)
        with torch.no_grad():
            for parameter, mean in zip(trainable, self.average, strict=True):
                parameter.copy_(mean)
        merged = averaged.merge_and_unload().to(torch.bfloat16)
        with atomic_directory(self.out / f"step-{self.step:06d}") as target:
            merged.save_pretrained(target)
            self.tokenizer.save_pretrained(target)
            write_json(target / "fine-tuning.json", {"recipe": asdict(self.recipe), "step": self.step})


def run(
    model: Path,
    out: Path,
    recipe: Recipe,
    *,
    steps: int,
    policy_every: int,
    minutes: float = math.inf,
    source: ProblemSource | None = None,
) -> None:
    """Train to step ``steps`` or for so many minutes; go on from the saved state where there is one.

    Args:
        minutes: No step begins after so long.
        source: Whose problems it learns; templates by default.
    """
    deadline = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    tuning = FineTuning(model, out, recipe)
    _forget_after(tuning.step, out / _LOG)
    problems = (source or Templates()).problems(POLICY)
    stream = steps_of_sequences(tuning.tokenizer, recipe, problems, first=tuning.step)
    saved = time.monotonic()
    usual_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(recipe.threads) as pool, (out / _LOG).open("a") as log:
        for sequences in stream:
            if tuning.step >= steps or time.monotonic() > deadline:
                break
            started = time.monotonic()
            loss = tuning.train_step(sequences, pool)
            seconds = time.monotonic() - started
            tokens = sum(len(sequence.encoded.token_ids) for sequence in sequences)
            row = {
                "step": tuning.step,
                "loss": round(loss, 4),
                "tokens": tokens,
                "seconds": round(seconds, 2),
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(f"{row} {tokens / seconds:.0f} tokens/s", flush=True)
            if tuning.step % policy_every == 0:
                tuning.save_policy()
            if tuning.step % policy_every == 0 or time.monotonic() - saved > _STATE_SECONDS:
                tuning.save_state()
                saved = time.monotonic()
        tuning.save_state()
    torch.set_num_threads(usual_threads)


def _forget_after(step: int, log: Path) -> None:
    """Drop the steps that a killed run made after its last saved state; they are made again."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_text(log, "".join(kept))


def main() -> None:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="initial weights")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--steps", type=int, default=600, help="steps in all")
    parser.add_argument("--policy-every", type=int, default=40, help="steps between saved policies")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this many minutes; a later run continues"
    )
    options = parser.parse_args()
    run(
        options.model,
        options.out,
        Recipe(),
        steps=options.steps,
        policy_every=options.policy_every,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    main()
