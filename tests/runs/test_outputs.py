from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit.runs import (
    Manifest,
    ResumableLines,
    atomic_directory,
    atomic_path,
    read_manifest,
    write_json,
)


def manifest(**settings: int) -> Manifest:
    return Manifest("test", settings)


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text("earlier")
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(out) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half-way")
    assert out.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["out.json"]


def test_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "out.json", {"value": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "prm"
    for name in ("first", "second"):
        with atomic_directory(out) as temporary:
            (temporary / name).write_text(name)
    assert os.listdir(out) == ["second"]
    assert os.listdir(tmp_path) == ["prm"]


def test_a_failed_directory_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "prm"
    with atomic_directory(out) as temporary:
        (temporary / "first").write_text("first")
    with pytest.raises(RuntimeError), atomic_directory(out) as temporary:
        (temporary / "second").write_text("second")
        raise RuntimeError
    assert os.listdir(out) == ["first"]
    assert os.listdir(tmp_path) == ["prm"]


def test_lines_go_on_after_a_torn_line(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(a=1)) as lines:
        lines.append({"id": 0})
        lines.append({"id": 1, "text": "é\n" * 50_000})
    whole = lines.partial.read_bytes()
    for cut in (1, 7, 40_000, len(whole) - len(b'{"id": 0}\n') - 1):
        lines.partial.write_bytes(whole[:-cut])
        again = ResumableLines(out, manifest(a=1))
        assert again.resumed
        assert [row["id"] for row in again.rows()] == [0]
    with again:
        again.append({"id": 2})
    again.commit()
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [0, 2]
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.manifest.json"]


def test_finished_work_is_recognised_and_other_work_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(a=1)) as lines:
        lines.append({"id": 0})
    lines.commit()
    assert ResumableLines(out, manifest(a=1)).complete
    with pytest.raises(UserError, match="--overwrite"):
        ResumableLines(out, manifest(a=2))
    assert not ResumableLines(out, manifest(a=2), overwrite=True).complete
    assert out.exists(), "the earlier result stays until the new one is complete"


def test_a_partial_file_of_other_settings_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(a=1)) as lines:
        lines.append({"id": 0})
    with pytest.raises(UserError, match="other settings"):
        ResumableLines(out, manifest(a=2))
    fresh = ResumableLines(out, manifest(a=2), overwrite=True)
    assert list(fresh.rows()) == []


def test_the_same_work_is_known_by_its_inputs_content_not_their_path(tmp_path: Path) -> None:
    for name, content in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(content)
    a, b, c = (Manifest("test", {}, [tmp_path / name]).settings_hash for name in "abc")
    assert a == b != c


def test_a_process_killed_while_writing_loses_at_most_what_was_not_synced(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    program = (
        "import sys, pathlib\n"
        "from stepcredit.runs import Manifest, ResumableLines\n"
        "lines = ResumableLines(pathlib.Path(sys.argv[1]), Manifest('test', {'a': 1}))\n"
        "with lines:\n"
        "    for number in range(5): lines.append({'id': number})\n"
        "    lines.sync()\n"
        "    print('synced', flush=True)\n"
        "    while True: lines.append({'id': -1, 'text': 'x' * 1000})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "synced\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    lines = ResumableLines(out, manifest(a=1))
    assert [row["id"] for row in lines.rows()][:5] == [0, 1, 2, 3, 4]
    assert not out.exists()


def test_a_run_that_wrote_nothing_does_not_stand_in_the_way_of_another(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ResumableLines(out, manifest(a=1)):
        pass
    with ResumableLines(out, manifest(a=2)) as lines:
        lines.append({"id": 0})
    lines.commit()
    assert out.read_text() == '{"id": 0}\n'


def test_a_manifest_says_what_was_run(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    out = tmp_path / "out.jsonl"
    record = Manifest("sample", {"seed": 3}, [source])
    record.count("rows", 2)
    record.ledger.model_parameters = 10
    record.ledger.generated_tokens = 7
    record.ledger.trained_tokens = 5
    with ResumableLines(out, record) as lines:
        lines.append({"id": 0})
    lines.commit()
    written = read_manifest(out)
    assert written is not None
    assert written["settings"] == {"seed": 3}
    assert written["counts"] == {"rows": 2}
    assert written["ledger"]["flops"] == 2 * 10 * 7 + 6 * 10 * 5
    assert list(written["inputs"]) == [str(source)]
    assert written["versions"]["python"]
