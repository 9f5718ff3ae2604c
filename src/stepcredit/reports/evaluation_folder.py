"""The folder that an evaluation leaves behind: results, tables, report, manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit.evaluation.tables import Table, write_tables
from stepcredit.reports.evaluation import read_evaluation, render_evaluation
from stepcredit.runs import Manifest, Output, check_leads_somewhere, check_output, write_json, write_text

RESULTS = "results.json"


def check_results(folder: Path, manifest: Manifest, *, overwrite: bool) -> None:
    """Refuse a folder that holds the results of other work.

    Raises:
        UserError: It does, and ``overwrite`` is off; or it is no folder, nor can become one.
    """
    check_leads_somewhere(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file", where=folder, hint="name a folder as --out")
    check_output(folder / RESULTS, manifest, overwrite=overwrite)


def write_results(
    folder: Path,
    manifest: Manifest,
    content: Mapping[str, Any],
    *,
    overwrite: bool,
    tables: Sequence[Table],
    shown: Sequence[Table],
    rows: Iterable[Any],
    title: str,
    data: Sequence[Path],
) -> None:
    """Write ``results.json``, ``results.csv``, ``tables.md``, ``tables.tex`` and ``report.html``.

    Args:
        folder: Made if it is not there.
        manifest: Of the work; it lands beside the results.
        shown: Shown in full at the end of the report.
        rows: One dataclass per figure, for the CSV.
        data: Which of the manifest's inputs are the data; results on the same data can be compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest.counts.update(content["excluded"])
    hashes = [manifest.input_hashes[str(path)] for path in data if str(path) in manifest.input_hashes]
    about = {"command": manifest.command, "title": title, "data": hashes or [str(path) for path in data]}
    # The results land last: where they are, the tables and the report beside them are theirs.
    with Output(folder / RESULTS, manifest, overwrite=overwrite) as output, output.replacing() as temporary:
        write_json(temporary, {**about, **content}, named=output.path)
        write_tables(folder, tables, rows)
        write_text(folder / "report.html", render_evaluation(read_evaluation(temporary), shown, title=title))
