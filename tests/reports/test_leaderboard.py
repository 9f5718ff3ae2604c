import json
from pathlib import Path
from typing import Any

import pytest

from stepcredit.errors import DataError
from stepcredit.reports.leaderboard import collect, render_leaderboard


def write(
    folder: Path, command: str, results: list[dict[str, Any]], data: str = "same", **extra: Any
) -> None:
    folder.mkdir(parents=True)
    content = {"command": command, "title": folder.name, "data": [data], "results": results, **extra}
    (folder / "results.json").write_text(json.dumps(content))


def accuracy(method: str, scorer: str | None, aggregate: str | None, n: int, value: float) -> dict[str, Any]:
    return {
        "method": method,
        "scorer": scorer,
        "aggregate": aggregate,
        "n": n,
        "accuracy": value,
        "low": value - 0.1,
        "high": value + 0.1,
    }


def best_of_n(scorer: str, value: float) -> list[dict[str, Any]]:
    return [
        accuracy("pass", None, None, 1, 0.3),
        accuracy("pass", None, None, 4, 0.9),
        accuracy("majority", None, None, 4, 0.4),
        accuracy("best-of-n", scorer, "min", 1, 0.3),
        accuracy("best-of-n", scorer, "min", 4, value),
        accuracy("best-of-n", scorer, "sum", 4, 0.99),
    ]


def figure(
    subset: str, metric: str, value: float, origin: str | None, quantity: str = "reward"
) -> dict[str, Any]:
    return {
        "subset": subset,
        "scorer": "prm",
        "quantity": quantity,
        "metric": metric,
        "value": value,
        "low": 0.0,
        "high": 1.0,
        "threshold": None,
        "threshold_from": origin,
    }


def test_evaluations_of_the_same_data_share_a_board(tmp_path: Path) -> None:
    write(
        tmp_path / "one", "eval best-of-n", best_of_n("first", 0.6), choices={"first": {"aggregate": "min"}}
    )
    write(
        tmp_path / "two", "eval best-of-n", best_of_n("second", 0.7), choices={"second": {"aggregate": "min"}}
    )
    other = best_of_n("third", 0.5)
    write(tmp_path / "x/three", "eval best-of-n", other, "other", choices={"third": {"aggregate": "min"}})
    (tmp_path / "two/report.html").write_text("report")
    boards = collect(tmp_path, tmp_path / "board.html")
    assert [[entry.scorer for entry in board.entries] for board in boards] == [
        ["second", "first", "majority vote", "single response"],
        ["third", "majority vote", "single response"],
    ]
    assert [entry.report for entry in boards[0].entries][:2] == ["two/report.html", None]
    page = render_leaderboard(boards)
    assert '<a href="two/report.html">second</a>' in page
    assert "70.0%" in page


@pytest.mark.parametrize(
    ("command", "extents"),
    [
        ("eval best-of-n", [{"num_problems": 500}, {"num_problems": 100}]),
        ("eval best-of-n", [{"subsets": "all"}, {"subsets": "first n in file"}]),
        ("eval best-of-n", [{"responses": {"right_share": 0.4}}, {"responses": {"right_share": 0.5}}]),
        ("eval prmbench", [{"counts": {"all": {"problems": 9}}}, {"counts": {"all": {"problems": 3}}}]),
    ],
)
def test_evaluations_of_other_problems_of_the_data_have_boards_of_their_own(
    tmp_path: Path, command: str, extents: list[dict[str, Any]]
) -> None:
    for number, extent in enumerate([*extents, extents[0]]):
        rows = best_of_n(f"s{number}", 0.6)
        if command == "eval prmbench":
            row = figure("all", "prm_score", 0.6, "fixed: 0.5 (published)")
            rows = [{**row, "scorer": f"s{number}"}]
        write(tmp_path / str(number), command, rows, choices={f"s{number}": {"aggregate": "min"}}, **extent)
    boards = collect(tmp_path, tmp_path / "board.html")
    scorers = [[entry.scorer for entry in board.entries if not entry.baseline] for board in boards]
    assert scorers == [["s0", "s2"], ["s1"]]


def test_no_oracle_threshold_ranks_a_scorer(tmp_path: Path) -> None:
    rows = [
        figure("gsm8k", "f1", 0.2, "fixed: 0"),
        figure("gsm8k", "f1", 0.9, "tuned on gsm8k"),
        figure("gsm8k", "f1", 0.95, "this file (oracle threshold)"),
    ]
    write(tmp_path / "one", "eval processbench", rows)
    several = [
        *rows,
        figure("mean of subsets", "f1", 0.5, "fixed: 0"),
        figure("mean of subsets", "f1", 0.6, "tuned on gsm8k"),
        figure("mean of subsets", "f1", 0.7, "this file (oracle threshold)"),
    ]
    write(tmp_path / "two", "eval processbench", several, "other")
    boards = collect(tmp_path, tmp_path / "board.html")
    assert [board.entries[0].value for board in boards] == [0.2, 0.6]


def test_step_evaluations_have_boards_of_their_own(tmp_path: Path) -> None:
    write(
        tmp_path / "steps",
        "eval steps",
        [figure("a", "first_error_auc", 0.8, None), figure("a", "first_error_auc", 0.9, None, "value")],
        counts={"a": {}},
    )
    published = "fixed: 0.5 (published)"
    write(tmp_path / "bench", "eval prmbench", [figure("all", "prm_score", 0.6, published)], "other")
    values = {
        board.metric: [entry.value for entry in board.entries]
        for board in collect(tmp_path, tmp_path / "b.html")
    }
    assert values == {"AUC of the first wrong step, a": [0.8], "PRMScore": [0.6]}


def test_a_folder_without_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no results\.json"):
        collect(tmp_path, tmp_path / "board.html")
    with pytest.raises(DataError, match="is not a folder"):
        collect(tmp_path / "missing", tmp_path / "board.html")
