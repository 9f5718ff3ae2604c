"""Which reward model scores and how: the options that commands with a scorer have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.checkpoints import load_tokenizer, resolve
from stepcredit.checkpoints.sources import LoadOptions
from stepcredit.errors import UserError
from stepcredit.options import check_at_least_one, option
from stepcredit.scorers.kinds import KINDS, kind_of
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.steps import RULE_NAMES, StepRule, unescape
from stepcredit.types import TokenLogProbs

if TYPE_CHECKING:
    from stepcredit.scorers.base import ResponseScorer
    from stepcredit.scorers.kind import Kind


@dataclass(frozen=True, kw_only=True)
class ImplicitOptions:
    """An implicit reward model: where its two models are, and its scale."""

    prm: str = option(
        "reward model: a directory, GGUF file or hub id, or, for score and search, http://HOST:PORT of "
        "stepcredit serve",
        metavar="DIR",
    )
    reference: str | None = option(
        "reference model of an implicit PRM; default is the one named in its prm.json", default=None
    )
    beta: float | None = option("scale of the log-ratio; default is the PRM's own", default=None)
    steps: str | None = option(
        f"how responses are split into steps: {RULE_NAMES}; default is the model's own",
        default=None,
        metavar="RULE",
    )
    cache: Path | None = option(
        "directory in which log-probabilities of the reference are kept for later runs (those of the model "
        "itself with --family log-probability)",
        default=None,
        metavar="DIR",
    )
    policy_server: str | None = option(
        "take the PRM's log-probabilities from a server, e.g. http://localhost:8000/v1#MODEL; "
        "--prm then only provides the tokenizer",
        default=None,
        metavar="URL",
    )
    reference_server: str | None = option(
        "take the reference's log-probabilities from a server", default=None, metavar="URL"
    )
    server_interface: str = option(
        "kind of request sent to the servers: completions with echo, vLLM's prompt_logprobs, or "
        "vLLM's prompt_logprob_token_ids",
        default="echo",
        choices=("echo", "prompt-logprobs", "token-ids"),
    )
    load: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        if self.beta is not None and not 0 < self.beta < math.inf:
            raise UserError(
                f"must be above 0 and finite, got {self.beta}", where="--beta", hint="pass e.g. 0.05"
            )

    def directory(self) -> Path:
        """Where the model's files lie here."""
        return resolve(
            self.prm,
            revision=self.load.revision,
            also=self.load.unsafe_patterns,
            weights=self.policy_server is None,
        )


@dataclass(frozen=True, kw_only=True)
class ScorerOptions(ImplicitOptions):
    """Which reward model scores and how; a base for a command's options."""

    family: str = option(
        f"kind of reward model: {', '.join(KINDS)}; auto reads it from the checkpoint", default="auto"
    )
    reference_free: bool = option(
        "score by the policy's log-probabilities alone, without a reference", default=False
    )
    reference_floor: float = option(
        "raise the reference's probability of every token to at least this, e.g. 0.1, which bounds the "
        "rewards of tokens that it finds unlikely; 0 is the method as published",
        default=0.0,
    )
    step_separator: str | None = option(
        "text after each step at which a token classifier is read (\\n is a line end); default is the "
        "model's own, else \\n",
        default=None,
        metavar="TEXT",
    )
    max_step_tokens: int | None = option(
        "with --steps thinking: merge neighbouring steps as long as the result has at most this many tokens",
        default=None,
    )
    convention: str = option(
        "how rewards are assigned to steps: stepcredit's own way (clean), or that of one of the "
        "published evaluators",
        default="clean",
        choices=("clean", "processbench", "best-of-n"),
    )
    aggregate: str | None = option(
        "how a response's reward is computed from its step scores: min, last, mean, sum or product "
        "(token-head: also token-mean; log-probability: sum, mean or min); default is last for value-head "
        "and orm, token-mean for token-head, sum for log-probability, else min; implicit models take none: "
        "their reward is the value at the end",
        default=None,
    )

    classifier_server: str | None = option(
        "take the outputs of a value head, token head, token classifier or sequence classifier from vLLM "
        "(vllm serve --runner pooling), e.g. http://localhost:8000#MODEL; --prm then only provides tokenizer "
        "and configuration",
        default=None,
        metavar="URL",
    )
    judge: str | None = option(
        "generative: YAML file that says what the judge is asked and how its verdicts are read; default is "
        "the shipped one, steps",
        default=None,
        metavar="FILE",
    )
    judge_generator: str = option(
        "generative: what runs the judge: transformers, vllm, or the address of an OpenAI-compatible server, "
        "where --prm is the model's name, e.g. http://localhost:8000/v1",
        default="transformers",
        metavar="NAME",
    )
    judge_samples: int | None = option(
        "generative: answers per solution; default is the judge's own", default=None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.reference_floor < 1:
            raise UserError(f"must lie in [0, 1), got {self.reference_floor}", where="--reference-floor")
        check_at_least_one(self, "judge_samples")

    def settings(self, *, steps: str | None = None, with_tokens: bool = False) -> ScorerSettings:
        """These options as scorers take them; servers are not asked yet.

        Args:
            steps: Step rule in the place of the options' own.

        Raises:
            UserError: They do not fit together.
        """
        if self.reference is not None and self.reference_server is not None:
            raise UserError("is given twice", where="--reference", hint="leave out --reference-server")
        server = self.reference_server
        return ScorerSettings(
            self.prm,
            reference=self.reference if server is None else self._remote(server),
            beta=self.beta,
            family=self.family,
            policy=None if self.policy_server is None else self._remote(self.policy_server),
            classifier_server=self.classifier_server,
            reference_free=self.reference_free,
            reference_floor=self.reference_floor,
            steps=steps or StepRule.text(self.steps, self.max_step_tokens),
            step_separator=None if self.step_separator is None else unescape(self.step_separator),
            convention=self.convention,
            response_aggregate=self.aggregate,
            judge=self.judge,
            judge_generator=self.judge_generator,
            judge_samples=self.judge_samples,
            load=self.load,
            cache=self.cache,
            with_tokens=with_tokens,
        )

    def load_scorer(self, *, steps: str | None = None, with_tokens: bool = False) -> ResponseScorer:
        """Load the models; arguments as of :meth:`settings`.

        Raises:
            CheckpointError: They cannot be used as asked.
        """
        kind = self._kind()
        return kind.load(self.settings(steps=steps, with_tokens=with_tokens))

    def own_step_rule(self) -> str:
        """The step rule asked for, or the model's own."""
        return self._kind().own_step_rule(self.settings())

    def determining(self) -> dict[str, Any]:
        """What decides the scores, by content rather than by path; JSON-able, for a manifest."""
        kind = self._kind()
        prm_server = self.classifier_server or self.policy_server
        servers = {"prm": prm_server, "reference": self.reference_server}
        return {
            "family": kind.name,
            "reference_free": self.reference_free,
            "convention": self.convention,
            "aggregate": self.aggregate,
            "dtype": self.load.dtype,
            **self.load.chat.determining(),
            **({"reference_floor": self.reference_floor} if self.reference_floor else {}),
            **({"step_separator": self.step_separator} if self.step_separator is not None else {}),
            **kind.identity(self.settings()),
            **{name: address for name, address in servers.items() if address is not None},
        }

    def _kind(self) -> Kind:
        settings = self.settings()
        kind = kind_of(settings)
        kind.check(settings)
        return kind

    def _remote(self, address: str) -> TokenLogProbs:
        from stepcredit.logprobs.remote import RemoteTokenLogProbs

        base_url, _, model = address.partition("#")
        if not model:
            raise UserError("does not name the model", where=address, hint="write URL#MODEL")
        return RemoteTokenLogProbs(base_url, model, interface=self.server_interface, spell=self._speller())

    def _speller(self) -> Callable[[int], str]:
        """A token id as text, by the tokenizer of ``prm``."""
        tokenizer = load_tokenizer(str(self.directory()), trust_remote_code=self.load.trust_remote_code)
        return lambda token: str(tokenizer.decode([token]))
