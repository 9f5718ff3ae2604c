"""What kinds share whose model scores steps itself: reading in batches, aggregates, and loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from stepcredit.checkpoints import context_length, load_config
from stepcredit.encoding import EncodedSteps, Encoding, read_positions
from stepcredit.errors import UserError
from stepcredit.logprobs import TokenBatch, batches_of, pack, packing_enabled, pad
from stepcredit.logprobs.forward import forward_inputs, input_device
from stepcredit.rewards import aggregate
from stepcredit.scorers.base import Judgement, Shared, WindowedScorer
from stepcredit.scorers.kind import Kind
from stepcredit.scorers.loading import Checkpoint
from stepcredit.scorers.pooling import FromLogits, PooledReader
from stepcredit.scorers.settings import ScorerSettings
from stepcredit.types import Encoded

DEFAULT_TOKEN_BUDGET = 8192

TAKEN_OF_CLASSIFIERS = frozenset({"steps", "response_aggregate", "classifier_server"})
"""Settings of kinds whose outputs a server can give."""

STEP_AGGREGATES = ("min", "last", "mean", "sum", "product")
"""What a response's reward may be, of its step scores."""

ReadSteps = Callable[[Any, TokenBatch, Int[Tensor, " N"]], Float[Tensor, " N"]]
"""A model's scores at flat positions (row times columns plus column) of a batch."""


class StepReader:
    """Reads one score per step off a model, in batches, which change no value beyond rounding.

    Args:
        share_prefixes: Compute common prefixes once, where the model allows it
            (:func:`~stepcredit.logprobs.support.enable_packing`); else sequences are padded, by length.
        pad_token_id: What fills the gaps on the right; its value changes nothing but where a model finds
            the end of a sequence by it.
        token_budget: Most tokens, padding included, of one forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        read: ReadSteps,
        *,
        share_prefixes: bool = True,
        pad_token_id: int = 0,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
    ) -> None:
        self.model = model.eval()
        self.read = read
        self.share_prefixes = share_prefixes
        self.pad_token_id = pad_token_id
        self.token_budget = token_budget

    @torch.no_grad()
    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float64]]:
        """Scores of each sequence's steps, in input order."""
        scores = [np.zeros(0)] * len(encoded)
        device = input_device(self.model)
        # The last tokens of steps may lie anywhere, also where nothing is scored yet.
        whole = [replace(item, scored_start=1, skipped=()) for item in encoded]
        with packing_enabled(self.model) if self.share_prefixes else nullcontext(False) as packs:
            for group in batches_of(encoded, self.token_budget, packed=packs):
                members = [whole[index] for index in group]
                batch = (pack(members) if packs else pad(members, pad_token_id=self.pad_token_id)).to(device)
                places = [
                    flat[list(read_positions(encoded[index]))]
                    for index, flat in zip(group, _places(batch), strict=True)
                ]
                values = self.read(self.model, batch, torch.cat(places)).double().cpu()
                parts = torch.split(values, [len(part) for part in places])
                for index, part in zip(group, parts, strict=True):
                    scores[index] = part.numpy()
        return scores


def _places(batch: TokenBatch) -> Iterator[Int[Tensor, " tokens"]]:
    """For each sequence, all of whose tokens but the first are scored: the flat index of each token."""
    for before, own in zip(batch.split(batch.source_index), batch.split(batch.token_index), strict=True):
        yield torch.cat([before[:1], own])


def read_logits(model: Any, batch: TokenBatch, positions: Int[Tensor, " N"]) -> Float[Tensor, "N classes"]:
    """The outputs of a head on every token as they are."""
    outputs = model(**model_inputs(model, batch))
    logits: Tensor = outputs.logits.flatten(0, 1).index_select(0, positions).float()
    return logits


def model_inputs(model: nn.Module, batch: TokenBatch) -> dict[str, Any]:
    """What a model is called with to be read; padded, as some models take them, without positions."""
    if batch.segments is not None:
        return forward_inputs(model, batch)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}


class StepModelScorer(WindowedScorer):
    """A step's reward and value are both the model's score of it; the response's is an aggregate of them.

    Args:
        reader: Gives the step scores, as :class:`StepReader` does.
        family: Names the kind of model in the scores.
        response_aggregate: One of :data:`STEP_AGGREGATES`.
        **shared: See :class:`~stepcredit.scorers.base.Shared`.
    """

    response_aggregates: tuple[str, ...] = STEP_AGGREGATES

    def __init__(
        self,
        reader: StepReader | PooledReader,
        encoding: Encoding,
        *,
        family: str,
        response_aggregate: str = "min",
        **shared: Unpack[Shared],
    ) -> None:
        if response_aggregate not in self.response_aggregates:
            raise UserError(
                f"no aggregate {response_aggregate!r}",
                where="--aggregate",
                hint=f"use {', '.join(self.response_aggregates)}",
            )
        super().__init__(encoding, **shared)
        self.reader = reader
        self.family = family
        self.response_aggregate = response_aggregate

    @property
    def name(self) -> str:
        """Kind, model, and which aggregate the response's reward is."""
        return f"{self.family}: {self.label}, reward is {self.response_aggregate}"

    def judge(self, encoded: Sequence[EncodedSteps]) -> list[Judgement]:
        """Read the step scores."""
        judgements = []
        for scores in self.reader.of([item.encoded for item in encoded]):
            aggregates = aggregate(scores)
            reward = aggregates[self.response_aggregate]
            judgements.append(Judgement(reward=reward, rewards=scores, values=scores, aggregates=aggregates))
        return judgements


@dataclass(frozen=True, kw_only=True)
class StepKind(Kind):
    """A kind whose model scores steps itself.

    Attributes:
        reader: Makes what reads the scores from (model, encoding); ``None`` where they come ``from_logits``.
        load_weights: Loads its model; ``None`` is a language model.
        from_logits: Makes what gives scores of the outputs of a head, here or on a server, from the model's
            configuration; ``None`` where there is no such head.
        of_sequence: Whether its outputs are those of a sequence, not of each token.
        response_aggregate: What its response's reward is unless another is asked for.
        scorer_class: What makes step and response rewards of the scores.
    """

    reader: Callable[[Any, Any], StepReader] | None = None
    load_weights: Callable[[Checkpoint], Any] | None = None
    from_logits: Callable[[Any], FromLogits] | None = None
    of_sequence: bool = False
    response_aggregate: str = "min"
    scorer_class: type[StepModelScorer] = StepModelScorer

    def load(self, settings: ScorerSettings) -> StepModelScorer:
        """The scorer of a checkpoint."""
        checkpoint = Checkpoint(settings)
        rule = checkpoint.step_rule(self.step_rule)
        model = None if settings.classifier_server else checkpoint.model(self.load_weights)
        configuration = load_config(checkpoint.path, settings.load) if model is None else model.config
        separator = checkpoint.step_separator
        encoding = self.make_encoding(checkpoint.tokenizer, rule, context_length(configuration), separator)
        on_server = partial(self._on_server, settings, configuration, checkpoint.tokenizer)
        return self.scorer_class(
            on_server() if model is None else self._local(model, encoding),
            encoding,
            family=self.name,
            response_aggregate=settings.response_aggregate or self.response_aggregate,
            **checkpoint.shared(model),
        )

    def _local(self, model: Any, encoding: Encoding) -> StepReader:
        if self.reader is not None:
            return self.reader(model, encoding)
        assert self.from_logits is not None, self.name
        scores = self.from_logits(model.config)
        return StepReader(model, lambda *place: scores(read_logits(*place)))

    def _on_server(self, settings: ScorerSettings, configuration: Any, tokenizer: Any) -> PooledReader:
        assert settings.classifier_server is not None, "kinds that take a server are asked for one"
        assert self.from_logits is not None, self.name
        return PooledReader(
            settings.classifier_server,
            self.from_logits(configuration),
            num_classes=self.num_classes or 1,
            of_sequence=self.of_sequence,
            spell=lambda token_ids: str(tokenizer.decode(list(token_ids))),
        )
