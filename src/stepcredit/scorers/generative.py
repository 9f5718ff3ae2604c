"""Generative reward models: a judge writes a verdict for each step (GenPRM, ThinkPRM and the like)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.conversations import plain_text
from stepcredit.encoding import EncodingError
from stepcredit.encoding.base import LEAVE_OUT
from stepcredit.errors import UserError
from stepcredit.generators.options import GeneratorOptions, make_generator
from stepcredit.generators.transformers import TransformersGenerator
from stepcredit.rewards import aggregate
from stepcredit.runs import Ledger, hash_json, warn
from stepcredit.scorers.base import OnSkip, ResponseScorer, windows
from stepcredit.scorers.judge import DEFAULT_JUDGE, Judge
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import chat_encoding
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.scorers.step_models import STEP_AGGREGATES
from stepcredit.scorers.verdict_candidates import LocalCandidates, RecordedCandidates, VerdictCandidates
from stepcredit.steps import StepRule, step_contents, steps_of
from stepcredit.types import (
    GenerationFailure,
    GenerationRequest,
    Generator,
    Prompt,
    ResponseScore,
    Rollout,
    Sampling,
    Step,
    StepScore,
)
from stepcredit.wording import quantity

_LOCAL = ("transformers", "vllm")
_WINDOW = 64
_RETRY_TEMPERATURE = 0.5
_TRIES_APART = 1_000_000
"""Between the indices of a sample and of its next try, so that more samples change none that was there."""


@dataclass(slots=True)
class _Case:
    """A solution to be judged.

    Attributes:
        prompt: What the judge is asked; its id is the content's, so equal solutions are one case.
        steps: The solution's.
        scores: Of the answers that could be read, one row of step scores each.
        tokens: Read and written for it.
        trouble: What is wrong with the last answer that could not be read.
    """

    prompt: Prompt
    steps: tuple[Step, ...]
    scores: list[NDArray[np.float64]]
    tokens: int = 0
    trouble: str = ""


class GenerativeScorer(ResponseScorer):
    """A step's reward and value are the judge's probability that it is right; the response's an aggregate.

    Where log-probabilities are known (a local model; a server that gives them), an answer's score of a step
    is the probability of its word for right against that for wrong; else it is the verdict, 1 or 0. The mean
    over the answers is the step's score: without log-probabilities, the share that call it right.

    An answer whose verdicts are not exactly one per step is drawn again, and never used.

    Args:
        judge: What it is asked, and how its answer is read.
        samples: Answers to each solution, in the place of the judge's own number.
        response_aggregate: One of :data:`~stepcredit.scorers.step_models.STEP_AGGREGATES`.
        with_tokens: Has no effect: a judge gives no token rewards.

    Attributes:
        counts: ``refused_answers``, which were drawn again or given up.
    """

    window = _WINDOW

    def __init__(
        self,
        generator: Generator,
        judge: Judge,
        step_rule: StepRule,
        *,
        label: str | None = None,
        samples: int | None = None,
        response_aggregate: str = "min",
        with_tokens: bool = False,
    ) -> None:
        super().__init__(with_tokens=with_tokens)
        if response_aggregate not in STEP_AGGREGATES:
            raise UserError(
                f"no aggregate {response_aggregate!r}",
                where="--aggregate",
                hint=f"use {', '.join(STEP_AGGREGATES)}",
            )
        self.generator, self.judge, self.step_rule = generator, judge, step_rule
        self.label = label or generator.name
        self.samples = samples or judge.samples
        self.response_aggregate = response_aggregate
        self.ledger = getattr(generator, "ledger", None) or Ledger()
        self._candidates: VerdictCandidates = RecordedCandidates()
        if isinstance(generator, TransformersGenerator):
            self._candidates = LocalCandidates(generator, self.ledger)

    @property
    def name(self) -> str:
        """Kind, judge, answers to each solution, and which aggregate the response's reward is."""
        answers = quantity(self.samples, "answer")
        return f"generative: {self.label}, {answers}, reward is {self.response_aggregate}"

    def score_rollouts(self, rollouts: Iterator[Rollout], on_skip: OnSkip | None) -> Iterator[ResponseScore]:
        """One window after another; equal solutions to one problem are judged once."""
        for _, window in windows(rollouts, self.window):
            cases = [self._case(rollout) for rollout in window]
            distinct = {case.prompt.id: case for case in cases}
            self._judge(list(distinct.values()))
            for rollout, own in zip(window, cases, strict=True):
                case = distinct[own.prompt.id]
                if case.scores:
                    # What is judged alike may differ in the blanks between its steps.
                    yield self._score(rollout, own.steps, case)
                    continue
                error = self._no_verdicts(rollout, case)
                if on_skip is None:
                    raise error
                on_skip(error)

    def _no_verdicts(self, rollout: Rollout, case: _Case) -> EncodingError:
        tries = quantity(self.judge.retries + 1, "try", "tries")
        return EncodingError(
            "no-verdicts",
            f"the judge did not give one verdict per step in {tries} ({case.trouble})",
            where=rollout.id,
            hint=f"{LEAVE_OUT}, or change the judge's prompt, max_new_tokens or retries",
        )

    def _say_empty(self) -> None:
        """A judge reads an empty response as it reads any other."""

    def _case(self, rollout: Rollout) -> _Case:
        contents = step_contents(rollout, self.step_rule)
        messages = self.judge.messages(plain_text(rollout.prompt), contents)
        name = hash_json([dict(message) for message in messages]).removeprefix("sha256:")[:24]
        return _Case(Prompt(id=name, prompt=messages), steps_of(rollout, self.step_rule), [])

    def _judge(self, cases: Sequence[_Case]) -> None:
        """Ask until every answer can be read, or has been drawn often enough."""
        by_id = {case.prompt.id: case for case in cases}
        waiting = list(product(by_id, range(self.samples)))
        readable: dict[tuple[str, int], NDArray[np.float64]] = {}
        for attempt in range(self.judge.retries + 1):
            if not waiting:
                break
            answers = self._answers(by_id, waiting, attempt)
            for key in waiting:
                scores = self._read(by_id[key[0]], answers.get(key))
                if scores is not None:
                    readable[key] = scores
            waiting = [key for key in waiting if key not in readable]
            self._count_refused(len(waiting))
        for key in sorted(readable):
            by_id[key[0]].scores.append(readable[key])

    def _count_refused(self, number: int) -> None:
        if number and not self.counts["refused_answers"]:
            warn(
                f"{self.label}: answers without exactly one verdict per step are refused and drawn again "
                f"(at most {quantity(self.judge.retries, 'time')})"
            )
        if number:
            self.counts["refused_answers"] += number

    def _answers(
        self, cases: Mapping[str, _Case], waiting: Sequence[tuple[str, int]], attempt: int
    ) -> dict[tuple[str, int], Rollout | GenerationFailure]:
        """One answer for each case and sample that is waited for."""
        temperature = self.judge.temperature
        sampling = Sampling(
            temperature=temperature if attempt == 0 else max(temperature, _RETRY_TEMPERATURE),
            max_new_tokens=self.judge.max_new_tokens,
            seed=self.judge.seed or 0,
            log_probs=self.judge.candidates,
        )
        shift = attempt * _TRIES_APART
        samples: dict[str, list[int]] = {}
        for name, sample in waiting:
            samples.setdefault(name, []).append(sample + shift)
        requests = (
            GenerationRequest(prompt=cases[name].prompt, indices=tuple(indices), sampling=sampling)
            for name, indices in samples.items()
        )
        answers: dict[tuple[str, int], Rollout | GenerationFailure] = {}
        for answer in self.generator.generate(requests):
            indices = answer.indices if isinstance(answer, GenerationFailure) else (answer.index,)
            answers |= {(answer.prompt_id, index - shift): answer for index in indices}
        return answers

    def _read(self, case: _Case, answer: Rollout | GenerationFailure | None) -> NDArray[np.float64] | None:
        """Step scores of an answer; ``None`` if it cannot be read."""
        if not isinstance(answer, Rollout):
            case.trouble = "no answer" if answer is None else answer.reason
            return None
        case.tokens += answer.extras.get("num_prompt_tokens", 0) + answer.extras.get(
            "num_generated_tokens", 0
        )
        verdicts = self.judge.verdicts(answer.response, len(case.steps))
        if verdicts is None:
            cut_off = answer.finish_reason == "length"
            case.trouble = f"the last answer {'was cut off' if cut_off else 'has another number of them'}"
            return None
        scores = [float(verdict.is_right) for verdict in verdicts]
        places = self._candidates.at(answer, [verdict.start for verdict in verdicts])
        for number, (before, candidates) in enumerate(places or ()):
            probability = self.judge.probability(before, candidates)
            scores[number] = scores[number] if probability is None else probability
        return np.array(scores)

    def _score(self, rollout: Rollout, steps: Sequence[Step], case: _Case) -> ResponseScore:
        scores = np.mean(case.scores, axis=0)
        aggregates = aggregate(scores)
        ids = rollout.response_token_ids
        return ResponseScore(
            id=rollout.id,
            prompt_id=rollout.prompt_id,
            reward=aggregates[self.response_aggregate],
            steps=tuple(
                StepScore(step.index, step.text, step.start, step.end, float(score), float(score))
                for step, score in zip(steps, scores, strict=True)
            ),
            aggregates=aggregates,
            num_tokens=len(rollout.response.split()) if ids is None else len(ids),
            scorer=self.name,
            judge_tokens=case.tokens,
        )


@dataclass(frozen=True, kw_only=True)
class GenerativeKind(Kind):
    """Any language model that can be asked, with a file that says how."""

    def load(self, settings: ScorerSettings) -> GenerativeScorer:
        """The judge.

        Raises:
            UserError: Its file or its model cannot be used.
        """
        judge = Judge.read(settings.judge or DEFAULT_JUDGE)
        return GenerativeScorer(
            make_generator(_generator_options(settings, judge)),
            judge,
            StepRule.parse(self.own_step_rule(settings)),
            label=f"{Path(settings.directory).name} by {Path(settings.judge or DEFAULT_JUDGE).stem}",
            samples=settings.judge_samples,
            response_aggregate=settings.response_aggregate or "min",
            with_tokens=settings.with_tokens,
        )

    def own_step_rule(self, settings: ScorerSettings) -> str:
        """The step rule asked for, else ``auto``."""
        return settings.steps or self.step_rule

    def identity(self, settings: ScorerSettings) -> dict[str, Any]:
        """The model, what it is asked and how often."""
        judge = Judge.read(settings.judge or DEFAULT_JUDGE)
        judge = judge if settings.judge_samples is None else replace(judge, samples=settings.judge_samples)
        return {"judge": judge.to_json(), **_generator_options(settings, judge).identity()}


def _generator_options(settings: ScorerSettings, judge: Judge) -> GeneratorOptions:
    source = settings.judge_generator
    is_server = source.startswith(("http://", "https://"))
    if not is_server and source not in _LOCAL:
        raise UserError(
            f"{source!r} cannot run a judge",
            where="--judge-generator",
            hint=f"use {', '.join(_LOCAL)} or the address of a server, e.g. http://localhost:8000/v1",
        )
    return GeneratorOptions(
        model=str(settings.directory),
        generator="openai" if is_server else source,
        base_url=source if is_server else None,
        request_seeds=judge.seed is not None,
        load=settings.load,
    )


GENERATIVE = GenerativeKind(
    name="generative",
    encoding=chat_encoding,
    takes=frozenset({"steps", "response_aggregate", "judge", "judge_generator", "judge_samples"}),
)
