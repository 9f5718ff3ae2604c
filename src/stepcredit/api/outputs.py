"""What the functions return: a command's output as records, and what it says of its work."""

from __future__ import annotations

import json
import os
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from stepcredit.conversations import content_text
from stepcredit.data import read_rollouts, read_scores, rollout_to_json, score_to_json
from stepcredit.pipelines.search import trees_path
from stepcredit.pipelines.train import Result as TrainResult
from stepcredit.reports.notebook import shown
from stepcredit.scorers import load_scorer
from stepcredit.types import ResponseScore, Rollout

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from stepcredit.api.calling import Workplace
    from stepcredit.scorers.base import ResponseScorer

Record = TypeVar("Record", Rollout, ResponseScore)
Result = TypeVar("Result")

_ROWS_SHOWN = 8
_SCORES_SHOWN = 3
_CELL = "text-align: left; vertical-align: top; white-space: pre-wrap; padding: .2em .7em"


class CommandOutput(Generic[Result]):
    """A file or folder that a command wrote, wherever a path is taken.

    Attributes:
        path: The one that ``out=`` named, or one that is removed with this object.
        result: What the command says of its work: counts, tokens, what was left out.
    """

    def __init__(self, path: Path, result: Result, workplace: Workplace) -> None:
        self.path, self.result = path, result
        self._workplace = workplace if workplace.holds(path) else None

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._summary()}>"

    def _summary(self) -> str:
        """What the command prints, without the name of a file that nobody named."""
        text = str(getattr(self.result, "to_text", lambda: "")())
        return text if self._workplace is None else text.removeprefix(f"{self.path}: ")


class RecordList(CommandOutput[Result], Sequence[Record], Generic[Record, Result]):
    """The records of an output, read from its file when they are first asked for.

    It can be given to every function that takes such records, and to whatever takes a path.
    """

    @abstractmethod
    def _read(self) -> Iterable[Record]: ...

    @abstractmethod
    def _to_json(self) -> Callable[[Record], dict[str, Any]]: ...

    @cached_property
    def _records(self) -> list[Record]:
        return list(self._read())

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as the file holds them."""
        to_json = self._to_json()
        return [to_json(record) for record in self]

    def to_pandas(self) -> DataFrame:
        """The rows as a frame."""
        import pandas

        return pandas.DataFrame(self.to_dicts())

    def to_dataset(self) -> Dataset:
        """The rows as a data set in memory."""
        from datasets import Dataset

        return Dataset.from_list(self.to_dicts())


class Rollouts(RecordList[Rollout, Result]):
    """Rollouts, as ``sample``, ``grade`` and ``search`` write them."""

    def _read(self) -> Iterable[Rollout]:
        return read_rollouts(self.path)

    def _to_json(self) -> Callable[[Rollout], dict[str, Any]]:
        return rollout_to_json

    def _repr_html_(self) -> str:
        """The first rollouts, as a notebook shows them."""
        names = ("prompt", "response", "prediction", "correct")
        head = "".join(f'<th style="{_CELL}">{name}</th>' for name in names)
        body = "".join(
            "<tr>"
            + "".join(f'<td style="{_CELL}">{_cell(getattr(row, name))}</td>' for name in names)
            + "</tr>"
            for row in islice(self, _ROWS_SHOWN)
        )
        return f"<table><tr>{head}</tr>{body}</table>{shown(self._summary())}"


class SearchedRollouts(Rollouts[Result]):
    """The candidates of a search, the chosen one of each problem first."""

    @property
    def chosen(self) -> list[Rollout]:
        """The response that was chosen for each problem."""
        return [rollout for rollout in self if rollout.index == 0]

    @cached_property
    def trees(self) -> list[dict[str, Any]]:
        """The search tree of each problem, as ``docs/formats.md`` describes it."""
        with open(trees_path(self.path), encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


class Scores(RecordList[ResponseScore, Result]):
    """Scores, as ``score`` writes them."""

    def _read(self) -> Iterable[ResponseScore]:
        return read_scores(self.path)

    def _to_json(self) -> Callable[[ResponseScore], dict[str, Any]]:
        return score_to_json

    def _repr_html_(self) -> str:
        """The first scores as heat maps."""
        maps = "".join(score._repr_html_() for score in islice(self, _SCORES_SHOWN))
        return f"{maps}{shown(self._summary())}"


class TrainedModel(CommandOutput[TrainResult], os.PathLike[str]):
    """A reward model that was trained: its directory, wherever a function takes one."""

    def load(self, **settings: Any) -> ResponseScorer:
        """The model, ready to score.

        Args:
            **settings: Fields of :class:`~stepcredit.scorers.settings.ScorerSettings`.
        """
        scorer = load_scorer(self.path, **settings)
        # The folder of an unnamed model stays as long as its scorer, which may still read from it.
        weakref.finalize(scorer, id, self)
        return scorer

    def _repr_html_(self) -> str:
        """What was trained, and its training curves."""
        from stepcredit.reports.plots import standalone
        from stepcredit.reports.training_log import read_log, training_plots

        log = read_log(self.path / "train_log.jsonl")
        return shown(self._summary(), [] if log is None else training_plots(log, render=standalone))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if not isinstance(value, str):  # a conversation
        value = "\n".join(f"{turn['role']}: {content_text(turn)}" for turn in value)
    return escape(value)
