"""Score files as columns of numbers: a quarter of a million scores fit in tens of megabytes."""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepcredit.data import UniqueIds, is_score, score_from_json, score_to_json
from stepcredit.data.rows import Malformed
from stepcredit.data.sources import read_rows
from stepcredit.errors import DataError, UserError
from stepcredit.types import ResponseScore, Rollout
from stepcredit.wording import quantity

REWARD = "reward"
"""The name under which a response's own reward stands beside the aggregates of its steps."""

# Below this, starting a process takes longer than reading here.
_BYTES_WORTH_A_PROCESS = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreColumns:
    """What one scorer says of many responses, in the order of its file.

    Attributes:
        source: The file, or what else the scores came from; named in errors.
        scores: Aggregate name, or :data:`REWARD`, to one value per response; NaN where a row lacks it.
        num_tokens: Scored tokens per response.
        step_offsets: Response i owns the steps ``step_offsets[i]:step_offsets[i + 1]``.
        step_starts: Character offset of each step.
        step_ends: Character offsets one past each step.
        text_hashes: Of the text of all steps of a response; -1 where that is not the response's own.
        scorers: The different ``scorer`` fields, as a rule one.
        rewritten: Whether the scored text of a response differs from the response.
    """

    source: str
    ids: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    scores: Mapping[str, NDArray[np.float64]]
    num_tokens: NDArray[np.int64]
    step_offsets: NDArray[np.int64]
    step_rewards: NDArray[np.float64]
    step_values: NDArray[np.float64]
    step_starts: NDArray[np.int64]
    step_ends: NDArray[np.int64]
    text_hashes: NDArray[np.int64]
    scorers: tuple[str, ...]
    rewritten: bool = False
    num_skipped: int = 0
    first_skipped: str | None = None

    def steps_of(self, row: int) -> slice:
        """Which of all steps are those of a row."""
        return slice(int(self.step_offsets[row]), int(self.step_offsets[row + 1]))

    def is_rewritten(self, row: int) -> bool:
        """Whether the steps of a row are of another text than its response."""
        return bool(self.text_hashes[row] < 0)

    def check_text(self, row: int, rollout: Rollout) -> None:
        """Refuse the steps of a row where they are not of the response of that id.

        Responses that are sampled again have the same ids.

        Raises:
            DataError: They run past the response, or hold other text.
        """
        steps = self.steps_of(row)
        if self.is_rewritten(row) or steps.start == steps.stop:
            return
        ends, text = self.step_ends[steps].tolist(), rollout.response
        if ends[-1] > len(text):
            problem = f"end at character {ends[-1]:,}, its response at {len(text):,}"
        else:
            starts = self.step_starts[steps].tolist()
            if _text_hash(map(text.__getitem__, map(slice, starts, ends))) == self.text_hashes[row]:
                return
            problem = "hold other text than its response"
        raise DataError(
            f"the steps of {rollout.id!r} {problem}",
            where=self.source,
            hint="pass the scores of these rollouts",
        )


def _text_hash(texts: Iterable[str]) -> int:
    """The same in every process, as :func:`hash` is not."""
    return zlib.crc32("".join(texts).encode("utf-8", "surrogatepass"))


def lacks_scores(missing: Sequence[str], source: str, columns: ScoreColumns) -> DataError:
    """That rollouts of ``source`` have no scores."""
    return DataError(
        f"lacks the scores of {quantity(len(missing), 'rollout')} of {source}, first {missing[0]!r}",
        where=columns.source,
        hint="score the whole file, or pass --skip-invalid to leave those out",
    )


class _Builder:
    """Collects rows; :meth:`add` leaves nothing behind of a row that it refuses."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.prompt_ids: list[str] = []
        self.columns: dict[str, array[float]] = {REWARD: array("d")}
        self.num_tokens = array("q")
        self.step_offsets = array("q", [0])
        self.step_rewards, self.step_values = array("d"), array("d")
        self.step_starts, self.step_ends, self.text_hashes = array("q"), array("q"), array("q")
        self.scorers: dict[str, None] = {}
        self.rewritten = False
        self._unique = UniqueIds()

    def add(self, row: Mapping[str, Any], where: str) -> None:
        """Add one score row.

        Raises:
            DataError: It is malformed, or its id was there before.
        """
        if not is_score(row):
            row = score_to_json(score_from_json(row, where))
        steps, aggregates = row["steps"], row["aggregates"]
        self._unique.add(row["id"], where)
        count = len(self.ids)
        self.ids.append(row["id"])
        self.prompt_ids.append(row["prompt_id"])
        self.columns[REWARD].append(row[REWARD])
        for name, value in aggregates.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = array("d", [math.nan]) * count
            column.append(value)
        for column in self.columns.values():
            if len(column) == count:
                column.append(math.nan)
        self.num_tokens.append(row["num_tokens"])
        self.step_rewards.extend([step["reward"] for step in steps])
        self.step_values.extend([step["value"] for step in steps])
        self.step_starts.extend([step["start"] for step in steps])
        self.step_ends.extend([step["end"] for step in steps])
        self.step_offsets.append(len(self.step_rewards))
        self.scorers.setdefault(row["scorer"])
        rewritten = row.get("scored_text") is not None
        self.text_hashes.append(-1 if rewritten else _text_hash([step["text"] for step in steps]))
        self.rewritten = self.rewritten or rewritten

    def build(self, source: str, num_skipped: int = 0, first_skipped: str | None = None) -> ScoreColumns:
        """What was appended, as arrays.

        Args:
            source: Where the scores come from, for messages.

        Raises:
            DataError: Nothing was appended.
        """
        if not self.ids:
            raise DataError("holds no scores", where=source, hint="create it with stepcredit score")
        return ScoreColumns(
            source=source,
            ids=tuple(self.ids),
            prompt_ids=tuple(self.prompt_ids),
            scores={name: np.array(column) for name, column in self.columns.items()},
            num_tokens=np.array(self.num_tokens, dtype=np.int64),
            step_offsets=np.array(self.step_offsets, dtype=np.int64),
            step_rewards=np.array(self.step_rewards),
            step_values=np.array(self.step_values),
            step_starts=np.array(self.step_starts, dtype=np.int64),
            step_ends=np.array(self.step_ends, dtype=np.int64),
            text_hashes=np.array(self.text_hashes, dtype=np.int64),
            scorers=tuple(self.scorers),
            rewritten=self.rewritten,
            num_skipped=num_skipped,
            first_skipped=first_skipped,
        )


def score_columns(scores: Iterable[ResponseScore], source: str = "scores") -> ScoreColumns:
    """Columns of scores that are in memory.

    Raises:
        DataError: There are none, an id appears twice, or a number is not finite.
    """
    builder = _Builder()
    for number, score in enumerate(scores, 1):
        builder.add(score_to_json(score), f"{source}, score {number}")
    return builder.build(source)


def read_score_columns(path: str | Path, *, skip_invalid: bool = False) -> ScoreColumns:
    """Read a score file.

    Args:
        path: As ``stepcredit score`` writes it.
        skip_invalid: Leave out and count malformed rows instead of raising.

    Raises:
        DataError: The file cannot be read, a row is malformed or holds a number that is not finite.
    """
    builder = _Builder()
    num_skipped, first_skipped = 0, None
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        try:
            if isinstance(row, Malformed):
                raise DataError(row.problem, where=where, hint=row.hint)
            builder.add(row, where)
        except DataError as error:
            if not skip_invalid:
                raise
            num_skipped += 1
            first_skipped = first_skipped or str(error)
    return builder.build(str(path), num_skipped, first_skipped)


def read_many_score_columns(paths: Sequence[str | Path], *, skip_invalid: bool = False) -> list[ScoreColumns]:
    """Read several score files, large ones side by side in processes of their own."""
    total = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    workers = min(2, len(paths), total // _BYTES_WORTH_A_PROCESS)
    if workers < 2:
        return [read_score_columns(path, skip_invalid=skip_invalid) for path in paths]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(read_score_columns, path, skip_invalid=skip_invalid) for path in paths]
        return [future.result() for future in futures]


def named_files(scores: Sequence[str], flag: str) -> Iterator[tuple[str, Path]]:
    """Split ``NAME=FILE`` as :func:`named_sources` does."""
    return ((name, Path(source)) for name, source in named_sources(scores, flag))


def named_sources(sources: Sequence[str], flag: str) -> Iterator[tuple[str, str]]:
    """Split ``NAME=SOURCE``, a file, a model or a server; a bare one is named by its stem.

    Raises:
        UserError: A name appears twice or empty.
    """
    seen = set()
    for text in sources:
        name, separator, source = text.partition("=")
        if not separator:
            name, source = Path(text).name.split(".")[0], text
        if not name or not source:
            raise UserError(f"{text!r} is not NAME=FILE", where=flag)
        if name in seen:
            raise UserError(
                f"the name {name!r} appears twice", where=flag, hint="give each scorer its own name"
            )
        seen.add(name)
        yield name, source
