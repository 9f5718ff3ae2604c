from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import UserError
from stepcredit.runs import Manifest, ResumableLines, manifest_path, read_manifest


def manifest(**settings: int) -> Manifest:
    return Manifest("test", settings)


def begin(out: Path, rows: Iterable[Any] = ({"id": 0},), **settings: int) -> None:
    """What a run that was stopped leaves."""
    with ResumableLines(out, manifest(**settings)) as lines:
        for row in rows:
            lines.append(row)


def finish(out: Path, rows: Iterable[Any] = (), **settings: int) -> None:
    with ResumableLines(out, manifest(**settings)) as lines:
        for row in rows:
            lines.append(row)
        lines.commit()


def ids(path: Path) -> list[int]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def test_lines_go_on_after_a_torn_line(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begin(out, [{"id": 0}, {"id": 1, "text": "é\n" * 50_000}])
    whole = partial(out).read_bytes()
    for cut in (1, 7, 40_000, len(whole) - len(b'{"id": 0}\n') - 1):
        partial(out).write_bytes(whole[:-cut])
        with ResumableLines(out, manifest()) as lines:
            assert lines.num_rows == 1
            assert [row["id"] for row in lines.rows()] == [0]
    finish(out, [{"id": 2}])
    assert ids(out) == [0, 2]
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.manifest.json"]


def test_finished_work_is_recognised_and_other_work_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    finish(out, [{"id": 0}], a=1)
    with ResumableLines(out, manifest(a=1)) as lines:
        assert lines.complete
    with pytest.raises(UserError, match="--overwrite"), ResumableLines(out, manifest(a=2)):
        pass
    with ResumableLines(out, manifest(a=2), overwrite=True) as lines:
        assert not lines.complete
    assert out.exists(), "the earlier result stays until the new one is complete"


def test_a_finished_file_that_was_emptied_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    finish(out, [{"id": 0}])
    out.write_text("")
    with pytest.raises(UserError, match="has 0 bytes, not the 10"), ResumableLines(out, manifest()):
        pass


def test_a_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begin(out, a=1)
    with pytest.raises(UserError, match="other settings"), ResumableLines(out, manifest(a=2)):
        pass
    with ResumableLines(out, manifest(a=2), overwrite=True) as lines:
        assert list(lines.rows()) == []


def test_a_partial_file_of_a_version_without_checkpoints_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begin(out, a=1)
    (tmp_path / "out.jsonl.partial.settings").write_text(manifest(a=1).settings_hash)
    finish(out, [{"id": 1}], a=1)
    assert ids(out) == [0, 1]


def test_a_run_killed_between_manifest_and_file_finishes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begin(out, [{"id": 0}, {"id": 1}])
    left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    finish(out)
    out.write_text("an earlier file\n")
    for path, content in left.items():
        path.write_bytes(content)
    finish(out)
    assert ids(out) == [0, 1]
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.manifest.json"]


def test_a_process_killed_while_writing_loses_at_most_what_was_not_synced(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    program = (
        "import sys, pathlib\n"
        "from stepcredit.runs import Manifest, ResumableLines\n"
        "with ResumableLines(pathlib.Path(sys.argv[1]), Manifest('test', {})) as lines:\n"
        "    for number in range(5): lines.append({'id': number})\n"
        "    lines.sync()\n"
        "    print('synced', flush=True)\n"
        "    while True: lines.append({'id': lines.num_rows, 'text': 'x' * 1000})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "synced\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with ResumableLines(out, manifest()) as lines:
        assert [row["id"] for row in lines.rows()][:5] == [0, 1, 2, 3, 4]
    assert not out.exists()


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    begin(out, (), a=1)
    assert os.listdir(tmp_path) == []
    finish(out, [{"id": 0}], a=2)
    assert out.read_text() == '{"id": 0}\n'


def test_a_row_is_written_once(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="the row '0' appears twice"):
        begin(out, [{"id": 0}, {"id": 1}, {"id": 0}])
    partial(out).write_text('{"id": 0}\n{"id": 0}\n')
    with pytest.raises(UserError, match="twice"), ResumableLines(out, manifest()):
        pass


def test_rows_may_be_known_by_several_fields(tmp_path: Path) -> None:
    with ResumableLines(tmp_path / "out.jsonl", manifest(), key=("prompt", "index")) as lines:
        lines.append({"prompt": "a", "index": 0})
        lines.append({"prompt": "a", "index": 1})
        with pytest.raises(UserError, match="the row 'a, 1' appears twice"):
            lines.append({"prompt": "a", "index": 1})


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe\n", b"5\n", b'"id"\n', b'{"name": 1}\n', b"{\n", b'{"id": []}\n', b"[" * 100_000 + b"\n"],
)
def test_a_damaged_partial_file_is_one_line(tmp_path: Path, line: bytes) -> None:
    out = tmp_path / "out.jsonl"
    begin(out)
    with open(partial(out), "ab") as handle:
        handle.write(line + b'{"id": 1}\n')
    with (
        pytest.raises(UserError, match=r"out\.jsonl\.partial:2: damaged line"),
        ResumableLines(out, manifest()),
    ):
        pass


@pytest.mark.parametrize("stamp", [b"[" * 100_000, b"\xff", b"[]", b"{}", b'{"settings_hash": {}}'])
def test_a_damaged_stamp_is_one_line(tmp_path: Path, stamp: bytes) -> None:
    out = tmp_path / "out.jsonl"
    begin(out)
    (tmp_path / "out.jsonl.partial.settings").write_bytes(stamp)
    with (
        pytest.raises(UserError, match=r"out\.jsonl\.partial: holds the start of a run with other settings"),
        ResumableLines(out, manifest()),
    ):
        pass


@pytest.mark.parametrize("content", [{"bytes": "x"}, {"bytes": 10**400}, {"bytes": 0, "state": []}])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    out = tmp_path / "out.jsonl"
    begin(out)
    stamp = {"settings_hash": manifest().settings_hash, **content}
    (tmp_path / "out.jsonl.partial.settings").write_text(json.dumps(stamp))
    with (
        pytest.raises(UserError, match=r"out\.jsonl\.partial: does not fit its checkpoint"),
        ResumableLines(out, manifest(), in_pieces=True),
    ):
        pass


def test_rows_written_are_compared_with_rows_made(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest()) as lines:
        lines.append({"id": 0})
        lines.append({"id": 1})
        lines.sync()
        os.truncate(lines.partial, 10)
        with pytest.raises(UserError, match="holds 1 row instead of the 2 that were written"):
            lines.commit()
    assert not out.exists()


def test_a_conversion_that_loses_rows_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"

    def lose(source: Path, target: Path) -> int:
        target.write_text(source.read_text().splitlines()[0])
        return 1

    with ResumableLines(out, manifest()) as lines:
        lines.append({"id": 0})
        lines.append({"id": 1})
        with pytest.raises(UserError, match="holds 1 row instead of the 2"):
            lines.commit(lose)
        lines.commit(lose, num_rows=1)
    assert out.read_text() == '{"id": 0}'


def test_work_in_pieces_goes_on_from_the_last_whole_piece(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(), in_pieces=True) as lines:
        lines.append({"id": 0})
        lines.append({"id": 1})
        lines.checkpoint({"tokens": 20})
        lines.append({"id": 2})
    with ResumableLines(out, manifest(), in_pieces=True) as lines:
        assert lines.num_rows == 2
        assert lines.state == {"tokens": 20}
        lines.append({"id": 3})
    partial(out).write_bytes(partial(out).read_bytes()[:15])
    with (
        pytest.raises(UserError, match="does not fit its checkpoint"),
        ResumableLines(out, manifest(), in_pieces=True),
    ):
        pass


def test_work_in_pieces_without_a_whole_piece_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(), in_pieces=True) as lines:
        lines.append({"id": 0})
    with ResumableLines(out, manifest(), in_pieces=True) as lines:
        assert (lines.num_rows, lines.state) == (0, {})


def test_a_finished_file_can_be_begun_again(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    finish(out, [{"id": 0}])
    with ResumableLines(out, manifest()) as lines:
        lines.reopen()
        lines.append({"id": 0})
    with ResumableLines(out, manifest()) as lines:
        assert not lines.complete, "it was stopped before it was finished again"
        lines.append({"id": 1})
        lines.commit()
    assert ids(out) == [0, 1]


def test_the_manifest_describes_the_file(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    finish(out, [{"id": 0}])
    written = read_manifest(out)
    assert written is not None
    assert written["output"]["bytes"] == out.stat().st_size
    assert manifest_path(out).name == "out.jsonl.manifest.json"


def test_a_run_that_the_disk_has_no_room_for_goes_on_when_there_is_some(tmp_path: Path) -> None:
    out, rows = tmp_path / "out.jsonl", [{"id": number, "text": "x" * 200} for number in range(200)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"out\.jsonl: cannot be written \(file too large\)\. Free some disk"
        ):
            finish(out, rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with ResumableLines(out, manifest()) as lines:
        assert 0 < lines.num_rows < len(rows)
        for row in rows[lines.num_rows :]:
            lines.append(row)
        lines.commit()
    assert ids(out) == list(range(200))
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.manifest.json"]
