from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit.runs import (
    Manifest,
    Output,
    ResumableLines,
    atomic_directory,
    atomic_path,
    manifest_path,
    read_manifest,
    write_json,
    write_text,
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


def test_a_text_is_written_as_utf_8_in_a_folder_that_is_made(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "page.html", "<p>ü</p>")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "<p>ü</p>"
    assert os.listdir(tmp_path / "new") == ["page.html"]


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


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_does_not_replace_its_input(tmp_path: Path, overwrite: bool) -> None:
    source, link, folder = tmp_path / "in.jsonl", tmp_path / "link.jsonl", tmp_path / "folder"
    source.write_text("rows")
    link.symlink_to(source)
    folder.mkdir()
    (folder / "linked.jsonl").symlink_to(source)
    reads_it = Manifest("test", {}, inputs=[source, folder / "linked.jsonl"])
    for out, message in (
        (source, "is the input itself"),
        (link, "is the input itself"),
        (folder, "has the input .*linked.jsonl in it"),
        (tmp_path, "has the input .*in.jsonl in it"),
    ):
        with pytest.raises(UserError, match=message), Output(out, reads_it, overwrite=overwrite):
            pass
        with pytest.raises(UserError), ResumableLines(out, reads_it, overwrite=overwrite):
            pass
    assert source.read_text() == "rows"
    assert sorted(os.listdir(tmp_path)) == ["folder", "in.jsonl", "link.jsonl"]


def test_overwrite_does_not_remove_a_folder_that_no_command_made(tmp_path: Path) -> None:
    out = tmp_path / "prm"
    out.mkdir()
    for name in ("first", "second"):  # an empty folder is free, and what a command made can be replaced
        with Output(out, manifest(), overwrite=True) as output, output.replacing_folder() as temporary:
            (temporary / name).write_text(name)
    assert sorted(os.listdir(out)) == ["manifest.json", "second"]
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has notes/mine\.txt in it, which was added since"):
        Output(out, manifest(), overwrite=True).__enter__()
    (out / "notes" / "mine.txt").unlink()
    (out / "notes").rmdir()
    manifest_path(out).unlink()
    with pytest.raises(UserError, match="is a folder that no command made"):
        Output(out, manifest(), overwrite=True).__enter__()
    assert os.listdir(out) == ["second"]


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_folders_without_a_name_are_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a folder"), ResumableLines(name, manifest()):
        pass
    with pytest.raises(UserError, match="root of the file system"), Output("/", manifest()):
        pass


def test_a_failed_directory_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "prm"
    with atomic_directory(out) as temporary:
        (temporary / "first").write_text("first")
    with pytest.raises(RuntimeError), atomic_directory(out) as temporary:
        (temporary / "second").write_text("second")
        raise RuntimeError
    assert os.listdir(out) == ["first"]
    assert os.listdir(tmp_path) == ["prm"]


def test_the_same_work_is_known_by_its_inputs_content_not_their_path(tmp_path: Path) -> None:
    for name, content in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(content)
    a, b, c = (Manifest("test", {}, [tmp_path / name]).settings_hash for name in "abc")
    assert a == b != c


def test_inputs_that_change_places_or_are_given_twice_are_other_work(tmp_path: Path) -> None:
    train, dev = tmp_path / "train", tmp_path / "dev"
    train.write_text("train")
    dev.write_text("dev")
    roles = ([train, dev], [dev, train], [train, train], [train])
    assert len({Manifest("test", {}, inputs).settings_hash for inputs in roles}) == 4


def make(out: Path, content: str = "content", **settings: int) -> None:
    with Output(out, manifest(**settings)) as output, output.replacing() as temporary:
        temporary.write_text(content)


def make_folder(out: Path, **files: str) -> None:
    with Output(out, manifest(a=1)) as output, output.replacing_folder() as temporary:
        for name, content in files.items():
            (temporary / name).write_text(content)


def is_complete(out: Path, *, overwrite: bool = False, **settings: int) -> bool:
    with Output(out, manifest(**settings), overwrite=overwrite) as output:
        return output.complete


def test_finished_work_is_recognised_and_other_work_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    assert not is_complete(out, a=1)
    make(out, a=1)
    assert is_complete(out, a=1)
    with pytest.raises(UserError, match="--overwrite"):
        is_complete(out, a=2)
    assert not is_complete(out, a=2, overwrite=True)
    assert out.read_text() == "content", "the earlier result stays until the new one is complete"
    assert sorted(os.listdir(tmp_path)) == ["out.txt", "out.txt.manifest.json"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "has 0 bytes, not the 7"), ("conten", "6 bytes"), ("CONTENT", "different content")],
    ids=["emptied", "cut", "edited"],
)
def test_a_finished_file_that_was_changed_is_noticed(tmp_path: Path, content: str, problem: str) -> None:
    out = tmp_path / "out.txt"
    make(out)
    out.write_text(content)
    with pytest.raises(UserError, match=problem):
        is_complete(out)
    assert not is_complete(out, overwrite=True)


def test_a_finished_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    out = tmp_path / "prm"
    make_folder(out, weights="w" * 100, config="{}", **{"README.md": "card"})
    (out / "README.md").write_text("what people say of it")
    (out / "notes").write_text("more")
    assert is_complete(out, a=1)
    (out / "weights").write_text("w" * 99)
    with pytest.raises(UserError, match="weights has 99 bytes"):
        is_complete(out, a=1)
    (out / "weights").unlink()
    with pytest.raises(UserError, match="weights is missing"):
        is_complete(out, a=1)


def test_a_manifest_without_a_hash_is_believed_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    make(out)
    content = read_manifest(out)
    assert content is not None
    del content["output"]
    write_json(manifest_path(out), content)
    assert is_complete(out)
    assert "was not checked for damage" in capsys.readouterr().err


def test_a_folder_is_not_written_over_by_a_file(tmp_path: Path) -> None:
    make_folder(tmp_path / "prm", weights="w")
    with (
        pytest.raises(UserError, match="is a folder"),
        Output(tmp_path / "prm", manifest(), overwrite=True) as output,
        output.replacing(),
    ):
        pass
    assert is_complete(tmp_path / "prm", a=1)


def test_what_a_killed_run_left_is_removed_by_the_next_one_of_the_same_output(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    (tmp_path / ".out.txt.abcd1234.tmp").write_text("half")
    (tmp_path / ".out.txt.abcd5678.tmp").mkdir()
    for name in (".out.txt.json.abcd1234.tmp", ".out.abcd1234.tmp", ".out.txt.mine.tmp"):
        (tmp_path / name).write_text("another's")
    make(out)
    assert sorted(os.listdir(tmp_path)) == [
        ".out.abcd1234.tmp",
        ".out.txt.json.abcd1234.tmp",
        ".out.txt.mine.tmp",
        "out.txt",
        "out.txt.manifest.json",
    ]


def test_a_folder_that_was_being_replaced_when_the_run_was_killed_comes_back(tmp_path: Path) -> None:
    make_folder(tmp_path / "prm", weights="w")
    (tmp_path / ".prm.abcd1234.old").mkdir()
    (tmp_path / "prm").rename(tmp_path / ".prm.abcd1234.old" / "old")
    assert is_complete(tmp_path / "prm", a=1)
    assert os.listdir(tmp_path) == ["prm"]


def test_a_manifest_says_what_was_run(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    out = tmp_path / "out.jsonl"
    record = Manifest("sample", {"seed": 3}, [source])
    record.count("rows", 2)
    record.ledger.model_parameters = 10
    record.ledger.generated_tokens = 7
    record.ledger.trained_tokens = 5
    with Output(out, record) as output, output.replacing() as temporary:
        temporary.write_text('{"id": 0}\n')
    written = read_manifest(out)
    assert written is not None
    assert written["settings"] == {"seed": 3}
    assert written["counts"] == {"rows": 2}
    assert written["ledger"]["flops"] == 2 * 10 * 7 + 6 * 10 * 5
    assert list(written["inputs"]) == [str(source)]
    assert written["versions"]["python"]
    assert written["output"] == {"bytes": 10, "sha256": hashlib.sha256(out.read_bytes()).hexdigest()}


def test_a_setting_that_earlier_versions_did_not_record_is_taken_to_be_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"

    def work(**policy: str) -> Manifest:
        return Manifest("test", {"policy": policy, "seed": 1}, added_settings=("policy.files", "top.mode"))

    earlier = Manifest("test", {"policy": {"weights": "w"}, "seed": 1})
    with Output(out, earlier) as output, output.replacing() as temporary:
        temporary.write_text("content")
    with Output(out, work(weights="w", files="f")) as output:
        assert output.complete
    assert "does not record policy.files, top.mode" in capsys.readouterr().err
    with pytest.raises(UserError, match="other settings"), Output(out, work(weights="v", files="f")):
        pass
    with Output(out, work(weights="w", files="f"), overwrite=True) as output, output.replacing() as temporary:
        temporary.write_text("content")
    with pytest.raises(UserError, match="other settings"), Output(out, work(weights="w", files="g")):
        pass


def test_a_full_disk_names_the_output_and_not_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "results.json"
    output = Output(out, Manifest("test", {}))
    monkeypatch.setattr(Path, "write_text", full)
    said = f"^{re.escape(str(out))}: cannot be written"
    with pytest.raises(UserError, match=said), output, output.replacing() as temporary:
        temporary.write_bytes(b"{}")  # Its manifest no longer fits.
    with pytest.raises(UserError, match=said), output, output.replacing() as temporary:
        write_json(temporary, {}, named=out)
    assert os.listdir(tmp_path) == []
