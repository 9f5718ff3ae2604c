from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stepcredit.errors import DataError, UserError
from stepcredit.logprobs import CachedTokenLogProbs
from stepcredit.logprobs import shards as shards_module
from stepcredit.logprobs.shards import RowStore
from stepcredit.types import Encoded


class CountingSource:
    """Log-probabilities that are a plain function of the tokens, and a record of what was asked."""

    def __init__(self, fingerprint: str = "model-a", scale: float = 1.0) -> None:
        self.fingerprint = fingerprint
        self.scale = scale
        self.asked: list[Encoded] = []
        self.calls = 0

    def of(self, encoded: Sequence[Encoded]) -> list[NDArray[np.float32]]:
        self.asked += encoded
        self.calls += 1
        return [self.row(item) for item in encoded]

    def row(self, item: Encoded) -> NDArray[np.float32]:
        scored = item.token_ids[item.scored_start :]
        return np.array([-self.scale * (token + 0.1) for token in scored], dtype=np.float32)


def sequence(*tokens: int, start: int = 1) -> Encoded:
    return Encoded(tokens, start)


BATCH = [sequence(1, 2, 3), sequence(4, 5, start=2), sequence(1, 2, 3, start=2), sequence(9, 8, 7, 6)]


def assert_right(source: CountingSource, rows: Sequence[NDArray[np.float32]]) -> None:
    assert len(rows) == len(BATCH)
    for item, row in zip(BATCH, rows, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, source.row(item))


def files(directory: Path, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"*{suffix}"))


def test_computes_once_and_reads_afterwards(tmp_path: Path) -> None:
    source = CountingSource()
    cached = CachedTokenLogProbs(source, tmp_path / "cache")
    assert_right(source, cached.of(BATCH))
    assert_right(source, cached.of(BATCH))
    later = CachedTokenLogProbs(source, tmp_path / "cache")
    assert_right(source, later.of(BATCH))
    assert source.asked == BATCH
    assert source.calls == 1
    assert (cached.counts.misses, cached.counts.hits, later.counts.hits) == (4, 4, 4)
    assert cached.fingerprint == source.fingerprint


def test_asks_for_equal_sequences_once_and_gives_each_an_array_of_its_own(tmp_path: Path) -> None:
    source = CountingSource()
    first, second = CachedTokenLogProbs(source, tmp_path).of([BATCH[0], BATCH[0]])
    assert len(source.asked) == 1
    first[:] = 0
    np.testing.assert_array_equal(second, source.row(BATCH[0]))


@pytest.mark.parametrize(
    "other",
    [sequence(1, 2, 4), sequence(1, 2, 3, start=2), sequence(1, 2), sequence(1, 2, 3, 0)],
    ids=["token", "start", "shorter", "longer"],
)
def test_never_confuses_sequences(tmp_path: Path, other: Encoded) -> None:
    source = CountingSource()
    cached = CachedTokenLogProbs(source, tmp_path)
    cached.of([sequence(1, 2, 3)])
    np.testing.assert_array_equal(cached.of([other])[0], source.row(other))
    assert source.asked[-1] == other


def test_rows_of_other_weights_are_not_found(tmp_path: Path) -> None:
    CachedTokenLogProbs(CountingSource("model-a"), tmp_path).of(BATCH)
    other = CountingSource("model-b", scale=3.0)
    assert_right(other, CachedTokenLogProbs(other, tmp_path).of(BATCH))
    assert other.asked == BATCH


@pytest.mark.parametrize("suffix", [".rows", ".index"])
@pytest.mark.parametrize("keep", [0, 1, 20, 0.5, -1])
def test_a_truncated_file_is_detected_and_its_rows_computed_anew(
    tmp_path: Path, suffix: str, keep: float
) -> None:
    CachedTokenLogProbs(CountingSource(), tmp_path).of(BATCH)
    (path,) = files(tmp_path, suffix)
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if 0 < keep < 1 else int(keep) % size)
    source = CountingSource()
    cached = CachedTokenLogProbs(source, tmp_path)
    assert_right(source, cached.of(BATCH))
    assert source.asked
    if suffix == ".rows":
        assert cached.counts.damaged == len(source.asked)
    again = CountingSource()
    assert_right(again, CachedTokenLogProbs(again, tmp_path).of(BATCH))
    assert again.asked == []


@pytest.mark.parametrize("suffix", [".rows", ".index"])
def test_any_altered_byte_is_detected(tmp_path: Path, suffix: str) -> None:
    CachedTokenLogProbs(CountingSource(), tmp_path).of(BATCH)
    (path,) = files(tmp_path, suffix)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        source = CountingSource()
        reading = RowStore(tmp_path)
        cached = CachedTokenLogProbs(source, tmp_path)
        assert_right(source, cached.of(BATCH))
        assert source.asked, f"byte {position} of {suffix} was altered unnoticed"
        for written in [*files(tmp_path, ".rows"), *files(tmp_path, ".index")]:
            if written.stem != path.stem:
                written.unlink()
        assert len(reading) <= len(BATCH)


def test_a_missing_rows_file_counts_as_damage(tmp_path: Path) -> None:
    CachedTokenLogProbs(CountingSource(), tmp_path).of(BATCH)
    files(tmp_path, ".rows")[0].unlink()
    source = CountingSource()
    assert_right(source, CachedTokenLogProbs(source, tmp_path).of(BATCH))
    assert source.asked == BATCH


def test_sees_what_another_process_wrote_since(tmp_path: Path) -> None:
    early = CountingSource()
    cached = CachedTokenLogProbs(early, tmp_path)
    CachedTokenLogProbs(CountingSource(), tmp_path).of(BATCH)
    assert_right(early, cached.of(BATCH))
    assert early.asked == []


def _write_many(directory: Path, seed: int) -> None:
    cached = CachedTokenLogProbs(CountingSource(), directory)
    for start in range(0, 60, 3):
        cached.of([sequence(0, *range(token + 1)) for token in range(start, start + 3 + seed)])


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, seed)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    source = CountingSource()
    batch = [sequence(0, *range(token + 1)) for token in range(60)]
    for item, row in zip(batch, CachedTokenLogProbs(source, tmp_path).of(batch), strict=True):
        np.testing.assert_array_equal(row, source.row(item))
    assert source.asked == []


def _ask(cached: CachedTokenLogProbs, item: Encoded) -> None:
    cached.of([item])


def test_a_forked_child_writes_to_a_shard_of_its_own(tmp_path: Path) -> None:
    cached = CachedTokenLogProbs(CountingSource(), tmp_path)
    cached.of([BATCH[0]])
    child = multiprocessing.get_context("fork").Process(target=_ask, args=(cached, BATCH[1]))
    child.start()
    child.join()
    cached.of([BATCH[2]])
    assert len(files(tmp_path, ".rows")) == 2
    source = CountingSource()
    CachedTokenLogProbs(source, tmp_path).of(BATCH[:3])
    assert source.asked == []


def test_survives_pickling(tmp_path: Path) -> None:
    cached = CachedTokenLogProbs(CountingSource(), tmp_path)
    cached.of(BATCH[:2])
    copy: CachedTokenLogProbs = pickle.loads(pickle.dumps(cached))
    source = copy.inner
    assert isinstance(source, CountingSource)
    source.asked.clear()
    assert_right(source, copy.of(BATCH))
    assert source.asked == BATCH[2:]


def test_empty_responses_and_empty_batches(tmp_path: Path) -> None:
    source = CountingSource()
    cached = CachedTokenLogProbs(source, tmp_path)
    assert cached.of([]) == []
    for _ in range(2):
        (row,) = cached.of([sequence(1, 2, start=2)])
        assert row.shape == (0,)
    assert len(source.asked) == 1


def test_nan_and_wrong_lengths_are_refused_and_not_kept(tmp_path: Path) -> None:
    class Broken(CountingSource):
        def row(self, item: Encoded) -> NDArray[np.float32]:
            return np.full(item.num_scored, np.nan, dtype=np.float32)

    class Short(CountingSource):
        def row(self, item: Encoded) -> NDArray[np.float32]:
            return super().row(item)[:-1]

    for source in (Broken(), Short()):
        with pytest.raises(DataError):
            CachedTokenLogProbs(source, tmp_path).of(BATCH[:1])
    assert len(RowStore(tmp_path)) == 0


def test_a_full_disk_is_told_in_one_line_and_later_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = CountingSource()
    cached = CachedTokenLogProbs(source, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shards_module._ShardWriter, "append", full)
        with pytest.raises(UserError, match="No space left"):
            cached.of(BATCH)
    assert_right(source, cached.of(BATCH))
    later = CountingSource()
    assert_right(later, CachedTokenLogProbs(later, tmp_path).of(BATCH))
    assert later.asked == []


def test_a_file_in_the_place_of_the_folder_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(UserError, match="is not a folder"):
        CachedTokenLogProbs(CountingSource(), tmp_path / "cache")
