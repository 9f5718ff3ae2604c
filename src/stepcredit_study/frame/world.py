"""What an experiment asks for: responses, labels, models and scores, at any scale, made once.

Each request is one command on files that other requests made. On the lab it runs in this process; at the
paper's scale the same request is the command line that a node of GPUs runs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stepcredit.generators.options import GeneratorOptions, SamplingOptions
from stepcredit.grading.options import GraderOptions
from stepcredit.lab.files import write_prompts, write_true_labels
from stepcredit.lab.labs import FIRST, LABS, Lab
from stepcredit.lab.policies import export_policy
from stepcredit.lab.second.tutor import SecondTutor
from stepcredit.lab.tutor import Tutor
from stepcredit.pipelines import (
    baseline,
    grade,
    label_autopsv,
    label_math_shepherd,
    sample,
    score,
    search,
    select,
    train,
)
from stepcredit.pipelines.driver import Store
from stepcredit.searching.options import SearchOptions
from stepcredit_study.frame.scale import Scale


def lab_source(source: str) -> tuple[Lab, str] | None:
    """The lab that a recipe's ``lab:NAME`` or ``lab2:NAME`` names, and NAME; else ``None``."""
    name, colon, rest = source.partition(":")
    return (LABS[name], rest) if colon and name in LABS else None


def reference_scores(store: Store, data: Path, model: Path, **changes: Any) -> Path:
    """An untrained model's own log-probability of rollouts; the reward is its mean over tokens.

    What implicit reward models computed of it, as their reference, is not computed again.
    """
    options = score.Options(
        input=data,
        prm=str(model),
        out=Path(),
        family="log-probability",
        aggregate="mean",
        cache=store.root / "reference",
        **changes,
    )
    return store.make("score", "reference", options)


@dataclass(frozen=True, slots=True)
class Responses:
    """A generator's graded responses to the problems that results are reported on.

    Attributes:
        distinct: Of equal responses to a problem only the first. These are scored: equal responses have
            equal scores.
    """

    graded: Path
    distinct: Path


@dataclass(frozen=True, slots=True)
class Searched:
    """What one search found.

    Attributes:
        graded: Whole responses that the final choice was among; of each problem the chosen one is the first.
        rollouts: The same ungraded; trees and the manifest lie beside it.
    """

    graded: Path
    rollouts: Path


@dataclass(frozen=True, slots=True)
class World:
    """One seed of one scale. A seed redraws problems, responses and the order of training."""

    scale: Scale
    store: Store
    seed: int

    def model(self, name: str) -> Path | str:
        """A generator's weights: a directory or hub id."""
        source = self.scale.generators[name]
        shipped = lab_source(source)
        if shipped is None:
            return source
        lab, policy = shipped
        out = self.store.root / "policies" / (name if lab is FIRST else f"{lab.name}-{name}")
        return self.store.write(out, partial(export_policy, policy, lab=lab.name))

    @property
    def tutor(self) -> Tutor | SecondTutor:
        """Whom the base imitates (in a lab)."""
        shipped = lab_source(self.scale.generators[self.scale.base])
        assert shipped is not None, "only a lab's policies have tutors"
        lab, policy = shipped
        return lab.tutor(policy)

    @property
    def base(self) -> Path | str:
        """The weights that every model starts from, and the reference."""
        return self.model(self.scale.base)

    def prompts(self, split: str, count: int, *, kind: str | None = None) -> Path:
        """Problems of ``train``, ``dev`` or ``test``, or instructions of another kind."""
        source = self.scale.prompts[split] if kind is None else self.scale.other_kinds[kind].prompts
        assert source is not None, "a kind without prompts comes graded"
        drawn = lab_source(source)
        if drawn is None:
            return Path(source)
        lab, rest = drawn
        lab_split, _, domain = rest.partition("/")
        settings: dict[str, Any] = {"split": lab_split, "domain": domain, "count": count, "seed": self.seed}
        if lab is not FIRST:
            settings["domain"] = domain or lab.standard.name
        out = self.store.path("prompts", kind or split, settings, ".jsonl")
        settings["domain"] = lab.domains[domain] if domain else lab.standard
        return self.store.write(out, lambda path: write_prompts(path, **settings))

    def sampled(
        self,
        split: str,
        *,
        policy: str | None = None,
        sampling: SamplingOptions | None = None,
        num_prompts: int | None = None,
        num_samples: int | None = None,
        model: Path | None = None,
        kind: str | None = None,
    ) -> Path:
        """Ungraded responses to the problems of a split; see :meth:`responses`."""
        scale, sizes = self.scale, self.scale.sizes
        counts = {"train": sizes.train_prompts, "dev": sizes.dev_prompts, "test": sizes.test_prompts}
        usual = sizes.test_responses if split == "test" else sizes.train_responses
        count = num_prompts or counts[split]
        policy = policy or scale.base
        options = sample.Options(
            prompts=self.prompts(split, count, kind=kind),
            out=Path(),
            num_samples=num_samples or usual,
            # The lab's prompts are written in the number that is asked for.
            limit=None if scale.is_lab else count,
            seed=self.seed,
            policy=GeneratorOptions(
                **scale.policy,
                model=str(model or self.model(policy)),
                policy_name=model.name if model else policy,
            ),
            draw=sampling or (scale.sampling if split == "test" else scale.train_sampling),
        )
        return self.store.make("sample", f"{kind or split}-{policy}", options)

    def responses(self, split: str, **how: Any) -> Path:
        """Graded responses to the problems of a split.

        Args:
            split: ``train``, ``dev`` or ``test``.
            how: ``policy`` (a generator; the base by default), ``sampling``, ``num_prompts`` and
                ``num_samples`` (the scale's by default), ``model`` (a trained model that writes
                instead), ``kind`` (of other instructions).
        """
        other = self.scale.other_kinds.get(how.get("kind") or "")
        if other is not None and other.graded is not None:
            return Path(other.graded)
        grader = (None if other is None else other.grader) or self.scale.grader
        return self._graded(self.sampled(split, **how), grader)

    def train_set(self) -> Path:
        """The graded training responses of the base."""
        return self.responses("train")

    def dev_set(self) -> Path:
        """Graded responses to other problems, on which weights and aggregates are chosen."""
        return self.responses("dev")

    def test_set(self, policy: str | None = None, sampling: SamplingOptions | None = None) -> Responses:
        """A generator's responses to the problems that results are reported on."""
        graded = self.responses("test", policy=policy, sampling=sampling)
        return Responses(graded, self.select(graded, distinct=True))

    def select(self, *rollouts: Path, **what: Any) -> Path:
        """A part of some rollouts; ``what`` are options of ``stepcredit select``."""
        options = select.Options(rollouts=rollouts, out=Path(), seed=self.seed, **what)
        return self.store.make("select", rollouts[0].name.rpartition("-")[0], options)

    def train(
        self,
        method: str,
        data: Path | None = None,
        *,
        start_from: Path | None = None,
        seed: int | None = None,
        **changes: Any,
    ) -> Path:
        """A reward model.

        Args:
            method: Its settings are the scale's for this method.
            data: Graded (and, where the objective needs them, labelled) rollouts; default is the train set.
            start_from: A trained model whose weights it starts from (a second stage).
            seed: Of the training; default is the world's.
        """
        options = train.Options(
            graded=data or self.train_set(),
            model=str(start_from or self.base),
            out=Path(),
            dev=self.dev_set(),
            config=self.scale.config(method, **changes),
            seed=self.seed if seed is None else seed,
        )
        return self.store.make("train", method, options, suffix="")

    def math_shepherd(self, data: Path | None = None) -> Path:
        """Soft Monte-Carlo step labels."""
        scale = self.scale
        options = label_math_shepherd.Options(
            graded=data or self.train_set(),
            out=Path(),
            num_completions=scale.sizes.completions,
            label="soft",
            steps=str(scale.training["step_rule"]),
            seed=self.seed,
            policy=GeneratorOptions(**scale.policy, model=str(self.base), policy_name=scale.base),
            draw=scale.train_sampling,
            grading=scale.grader,
        )
        return self.store.make("label math-shepherd", options.label, options)

    def true_labels(self, data: Path | None = None, *, to_first_wrong: bool = False) -> Path:
        """True step labels by the lab's rule.

        Args:
            data: Graded rollouts; default is the train set.
            to_first_wrong: Responses end with their first wrong step.
        """
        source = data or self.train_set()
        settings: dict[str, Any] = {"data": f"{source.parent.name}/{source.name}"}
        if to_first_wrong:
            settings["to_first_wrong"] = True
        out = self.store.path("label true", "true", settings, ".jsonl")
        return self.store.write(out, partial(write_true_labels, source, to_first_wrong=to_first_wrong))

    def autopsv(self, data: Path | None = None, **changes: Any) -> Path:
        """Step labels from an outcome verifier's confidence; its threshold is chosen on the dev set.

        Args:
            data: Graded rollouts; default is the train set.
            changes: Settings of the verifier's training that differ from the scale's.
        """
        options = label_autopsv.Options(
            graded=data or self.train_set(),
            model=str(self.base),
            dev=self.dev_set(),
            out=Path(),
            config=self.scale.config("verifier", **changes),
            seed=self.seed,
        )
        return self.store.make("label autopsv", "labels", options)

    def score(self, data: Path, prm: Path | str, **changes: Any) -> Path:
        """Scores of rollouts by a trained model, or by any model with the options of ``stepcredit score``."""
        options = score.Options(input=data, prm=str(prm), out=Path(), **changes)
        return self.store.make("score", Path(prm).name.rpartition("-")[0] or Path(prm).name, options)

    def searched(
        self,
        how: SearchOptions,
        prm: Path,
        *,
        policy: str | None = None,
        sampling: SamplingOptions | None = None,
        **scoring: Any,
    ) -> Searched:
        """A search of the test problems, graded.

        Args:
            policy: Which generator draws; the base by default.
            sampling: How it draws; as usual by default.
            scoring: Options of the scorer, as those of ``stepcredit score``.
        """
        scale = self.scale
        policy, drawn, count = policy or scale.base, sampling or scale.sampling, scale.sizes.test_prompts
        options = search.Options(
            prompts=self.prompts("test", count),
            prm=str(prm),
            out=Path(),
            search=how,
            limit=None if scale.is_lab else count,
            seed=self.seed,
            policy=search.PolicyOptions(**scale.policy, model=str(self.model(policy)), policy_name=policy),
            draw=search.StepSampling(**{**asdict(drawn), "stop": ()}),
            **scoring,
        )
        rollouts = self.store.make("search", f"{how.strategy}-{policy}", options)
        return Searched(self._graded(rollouts, scale.grader), rollouts)

    def reference_log_probability(self, data: Path, **changes: Any) -> Path:
        """The untrained model's own log-probability, mean over tokens, as a score."""
        return self.score(
            data,
            self.base,
            family="log-probability",
            aggregate="mean",
            steps=str(self.scale.training["step_rule"]),
            **changes,
        )

    def baseline(self, data: Path, by: str) -> Path:
        """Scores without a model: a name of ``stepcredit baseline --by``."""
        return self.store.make(
            "baseline", by, baseline.Options(rollouts=data, by=by, out=Path(), seed=self.seed)
        )

    def _graded(self, rollouts: Path, grader: GraderOptions) -> Path:
        options = grade.Options(
            rollouts=rollouts, out=Path(), grader=grader.grader, answer_pattern=grader.answer_pattern
        )
        return self.store.make("grade", rollouts.name.rpartition("-")[0], options)
