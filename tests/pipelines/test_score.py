import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from tests.processes import kill_when, run_alone
from tests.servers.stub_server import Reply, stub_server

from stepcredit.cli import main
from stepcredit.data import read_scores
from stepcredit.errors import CheckpointError, DataError, UserError
from stepcredit.lab.policies import policy_path
from stepcredit.pipelines import score
from stepcredit.runs import ResumableLines, read_manifest
from stepcredit.scorers.implicit import ImplicitPRM

BETA = 0.3


@pytest.fixture
def options(tmp_path: Path, saved_pair: tuple[Path, Path]) -> score.Options:
    rows = [
        {
            "id": f"r{i}",
            "prompt_id": f"p{i % 3}",
            "prompt": f"{i % 3} pens?",
            "response": f"a {i}\nb\n#{i % 4}",
        }
        for i in range(12)
    ]
    write(tmp_path / "rollouts.jsonl", rows)
    return score.Options(
        input=tmp_path / "rollouts.jsonl",
        prm=str(saved_pair[0]),
        reference=str(saved_pair[1]),
        beta=BETA,
        out=tmp_path / "out" / "scores.jsonl",
    )


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(options: score.Options) -> list[dict[str, Any]]:
    assert options.input is not None
    return [json.loads(line) for line in options.input.read_text().splitlines()]


def run(options: score.Options) -> score.Result:
    result = score.run(options)
    assert isinstance(result, score.Result)
    return result


def test_one_score_a_row_in_order(options: score.Options) -> None:
    result = run(options)
    assert options.out is not None
    scores = list(read_scores(options.out))
    rows = rows_of(options)
    assert [s.id for s in scores] == [row["id"] for row in rows]
    assert result.counts == {"scored": 12}
    assert result.step_rule == "newline"
    prm = ImplicitPRM.from_pretrained(options.prm, options.reference, BETA, steps="newline")
    for row, scored in zip(rows, scores, strict=True):
        expected = prm.score(row["prompt"], row["response"])
        assert [s.reward for s in scored.steps] == pytest.approx([s.reward for s in expected.steps], abs=1e-5)
        assert scored.token_rewards is None
        assert scored.scorer == expected.scorer
    manifest = read_manifest(options.out) or {}
    assert manifest["settings"]["beta"] == BETA
    assert manifest["settings"]["steps"] == "newline"
    assert manifest["ledger"]["scored_tokens"] > 0
    assert "12 scores, steps by newline" in result.to_text()


def test_the_same_work_is_not_done_again_and_other_work_is_refused(options: score.Options) -> None:
    run(options)
    assert options.out is not None
    before = options.out.read_bytes()
    again = run(options)
    assert again.already_done
    assert again.counts == {"scored": 12}
    with pytest.raises(UserError, match="already exists"):
        run(replace(options, beta=0.5))
    assert options.out.read_bytes() == before
    run(replace(options, beta=0.6, overwrite=True))
    assert options.out.read_bytes() != before


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rollouts at a time, and a checkpoint after each five."""
    score_by_fives(monkeypatch)


def score_by_fives(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ImplicitPRM.__init__

    def init(self: ImplicitPRM, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **(kwargs | {"window": 5}))

    monkeypatch.setattr(ImplicitPRM, "__init__", init)
    monkeypatch.setattr("stepcredit.runs.lines._SYNC_SECONDS", 0.0)


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, call: int) -> None:
    """Let the given call of a method end the run, as if it were killed there."""
    original = getattr(owner, method)
    calls: list[None] = []

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, dying)


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (ImplicitPRM, "judge", 1),
        (ImplicitPRM, "judge", 2),
        (ResumableLines, "append", 3),
        (ResumableLines, "append", 8),
        (ResumableLines, "append", 12),
        (ResumableLines, "commit", 1),
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes_and_ledger(
    options: score.Options,
    monkeypatch: pytest.MonkeyPatch,
    small_windows: None,
    owner: type,
    method: str,
    call: int,
) -> None:
    source, out = options.input, options.out
    assert source is not None
    assert out is not None
    whole = out.with_name("whole.jsonl")
    lines = source.read_text().splitlines()
    too_long = {**json.loads(lines[0]), "id": "long", "response": "7 " * 5000}
    source.write_text("\n".join([*lines[:6], json.dumps(too_long), *lines[6:]]) + "\n")
    options = replace(options, skip_invalid=True)
    run(replace(options, out=whole))
    with monkeypatch.context() as patch:
        stop_at(patch, owner, method, call)
        with pytest.raises(KeyboardInterrupt):
            run(options)
    assert not out.exists()
    run(options)
    assert out.read_bytes() == whole.read_bytes()
    resumed, uninterrupted = (read_manifest(path) or {} for path in (out, whole))
    for field in ("ledger", "counts", "scorer", "output"):
        assert resumed[field] == uninterrupted[field]
    assert resumed["counts"] == {"scored": 12, "too-long": 1}


def test_only_the_window_that_was_cut_is_scored_again(
    options: score.Options, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    asked: list[int] = []
    original = ImplicitPRM.judge

    def noting(self: ImplicitPRM, encoded: Any) -> Any:
        asked.append(len(encoded))
        return original(self, encoded)

    with monkeypatch.context() as patch:
        stop_at(patch, ImplicitPRM, "judge", 3)
        with pytest.raises(KeyboardInterrupt):
            run(options)
    monkeypatch.setattr(ImplicitPRM, "judge", noting)
    run(options)
    assert asked == [2]


def test_pieces_of_another_size_are_no_part_of_a_run(
    options: score.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options.out is not None
    whole = options.out.with_name("whole.jsonl")
    run(replace(options, out=whole))
    with monkeypatch.context() as patch:
        score_by_fives(patch)
        stop_at(patch, ImplicitPRM, "judge", 3)
        with pytest.raises(KeyboardInterrupt):
            run(options)
    assert one_piece_is_done(options.out)
    run(options)
    assert options.out.read_bytes() == whole.read_bytes()


def one_piece_is_done(out: Path) -> bool:
    stamp = out.with_name(out.name + ".partial.settings")
    return stamp.exists() and bool(json.loads(stamp.read_text()).get("state", {}).get("pieces"))


def rows_are_being_written(out: Path) -> bool:
    """Beyond what the last checkpoint covers."""
    stamp = json.loads(out.with_name(out.name + ".partial.settings").read_text())
    return out.with_name(out.name + ".partial").stat().st_size > int(stamp["bytes"])


@pytest.mark.slow
def test_a_process_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"r{number}",
            "prompt_id": f"p{number // 100}",
            "prompt": f"{number // 100 % 10}+1=",
            "response": f"{number % 9}+1={number % 7}\n#{number % 7}",
        }
        for number in range(3000)
    ]
    source = write(tmp_path / "rollouts.jsonl", rows)
    words = ["score", str(source), "--prm", str(policy_path("mid")), "--reference-free", "--beta", "1"]
    words += ["--steps", "newline", "--out"]
    log, killed = tmp_path / "log", tmp_path / "killed.jsonl"
    run_alone([*words, str(tmp_path / "whole.jsonl")], log)
    for has_come_far in (one_piece_is_done, rows_are_being_written):
        kill_when([*words, str(killed)], log, partial(has_come_far, killed))
        assert not killed.exists()
    run_alone([*words, str(killed)], log)
    assert killed.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    manifests = [read_manifest(tmp_path / f"{name}.jsonl") or {} for name in ("killed", "whole")]
    assert manifests[0]["ledger"] == manifests[1]["ledger"]
    assert sorted(path.name for path in tmp_path.iterdir() if "killed" in path.name) == [
        "killed.jsonl",
        "killed.jsonl.manifest.json",
    ]


def logprobs_server(value: float) -> Callable[[int, dict[str, Any]], Reply]:
    """Gives every token -1, and the last but one ``value``."""

    def answer(number: int, body: dict[str, Any]) -> Reply:
        values: list[float | None] = [None, *[-1.0] * (len(body["prompt"]) - 1), -1.0]
        values[-3] = value
        return Reply({"choices": [{"logprobs": {"token_logprobs": values}}]})

    return answer


def test_a_server_scores(options: score.Options) -> None:
    with stub_server() as server:
        server.answer = logprobs_server(-3.0)
        run(replace(options, reference=None, reference_server=f"{server.url}#m"))
    assert options.out is not None
    assert len(list(read_scores(options.out))) == 12


@pytest.mark.parametrize(
    ("value", "problem"),
    [(3.7e4, "a log-probability of 37000, which is above 0"), (-9999.0, "probability of 0")],
)
def test_what_a_server_cannot_know_names_row_and_token(
    options: score.Options, value: float, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stub_server() as server:
        server.answer = logprobs_server(value)
        words = [
            "score",
            str(options.input),
            "--prm",
            options.prm,
            "--beta",
            "0.3",
            "--out",
            str(options.out),
        ]
        assert main([*words, "--reference-server", f"{server.url}#m"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"stepcredit: error: r0: {server.url} gives scored token ")
    assert problem in line
    assert options.out is not None
    assert not list(options.out.parent.iterdir())


@pytest.mark.parametrize("name", ["scores.parquet", "scores.jsonl.gz", "scores.json"])
def test_other_file_formats_hold_the_same(options: score.Options, tmp_path: Path, name: str) -> None:
    run(replace(options, tokens=True))
    run(replace(options, tokens=True, out=tmp_path / name))
    assert options.out is not None
    assert list(read_scores(tmp_path / name)) == list(read_scores(options.out))


def test_an_extension_that_is_not_known_is_told_before_scoring(
    options: score.Options, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="extension is not known"):
        run(replace(options, out=tmp_path / "scores.txt"))


def test_token_rewards_on_request(options: score.Options) -> None:
    run(replace(options, tokens=True))
    assert options.out is not None
    for scored in read_scores(options.out):
        assert scored.token_rewards is not None
        assert sum(scored.token_rewards) == pytest.approx(scored.reward)


def test_the_heat_map_shows_chosen_rows(options: score.Options, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    run(replace(options, html=page, html_ids=("r7",)))
    text = page.read_text()
    assert "a 7" in text
    assert "a 3" not in text
    run(replace(options, html=page, html_rows=2))
    assert "a 1" in page.read_text()
    with pytest.raises(UserError, match="no row has the id 'r99'"):
        run(replace(options, html=page, html_ids=("r99",)))


def test_foreign_formats_and_conventions(options: score.Options, tmp_path: Path) -> None:
    item = {"id": "x", "problem": "2 pens?", "steps": ["One.", "Two."], "label": -1}
    (tmp_path / "items.json").write_text(json.dumps([item, item]))
    processbench = replace(
        options, input=tmp_path / "items.json", format="processbench", convention="processbench"
    )
    run(processbench)
    assert options.out is not None
    scores = list(read_scores(options.out))
    assert [s.id for s in scores] == ["x/0", "x/1"]
    assert scores[0].scored_text == "Step 1: One.\n\nStep 2: Two."
    assert scores[0].scorer.endswith("processbench")


def test_one_solution_in_the_terminal(
    options: score.Options, monkeypatch: pytest.MonkeyPatch, saved_pair: tuple[Path, Path]
) -> None:
    alone = replace(options, input=None, out=None, prompt="2 pens?", text="a\nb")
    result = score.run(alone)
    assert isinstance(result, score.TextResult)
    assert [step["text"] for step in result.to_json()["steps"]] == ["a\n", "b"]
    assert "\x1b" not in result.to_text()
    monkeypatch.setattr(sys, "stdin", StringIO("a\nb"))
    assert score.run(replace(alone, text="-")) == result
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b" in result.to_text()


def test_what_cannot_be_scored_stops_the_run_or_is_counted(options: score.Options) -> None:
    rows = rows_of(options)
    bad: list[Any] = [
        {**rows[0], "id": "long", "response": "a " * 600},
        {**rows[0], "id": "nothing", "response": "", "finish_reason": "length"},
        {**rows[0], "id": "merges", "response": "\na"},
        {**rows[0], "id": "r3"},
        {"id": "no response"},
    ]
    assert options.input is not None
    assert options.out is not None
    for row, message in zip(
        bad,
        [
            "long: .*context of 512",
            "nothing: .*no tokens",
            "merges: .*merges",
            "'r3' appears twice",
            ":13: ",
        ],
        strict=True,
    ):
        write(options.input, [*rows, row])
        with pytest.raises(DataError, match=message):
            run(replace(options, overwrite=True))
        assert not options.out.exists()
    write(options.input, [*rows[:4], *bad, *rows[4:]])
    result = run(replace(options, skip_invalid=True, overwrite=True))
    assert result.counts == {
        "scored": 12,
        "too-long": 1,
        "nothing-to-score": 1,
        "prompt-not-prefix": 1,
        "malformed": 2,
    }
    assert "left out: " in result.to_text()
    assert len(list(read_scores(options.out))) == 12


def test_an_empty_response_is_scored_by_its_end_of_turn_and_counted(
    options: score.Options, capsys: pytest.CaptureFixture[str]
) -> None:
    assert options.input is not None
    assert options.out is not None
    write(options.input, [{**rows_of(options)[0], "response": ""}, *rows_of(options)[1:]])
    result = run(replace(options, steps="newline"))
    first = next(iter(read_scores(options.out)))
    assert first.num_tokens == 1
    assert [step.text for step in first.steps] == [""]
    assert result.counts == {"scored": 12, "empty": 1}
    assert "warning: 1 response is empty" in capsys.readouterr().err
    assert "1 of them for empty responses" in result.to_text()
    assert "left out" not in result.to_text()


def test_empty_responses_of_a_killed_run_are_counted_too(
    options: score.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options.input is not None
    rows = [{**row, "response": "" if index < 2 else "a"} for index, row in enumerate(rows_of(options))]
    write(options.input, rows)
    with monkeypatch.context() as patched:
        original = ResumableLines.append

        def dying(self: ResumableLines, row: Any) -> None:
            original(self, row)
            if row["id"] == "r0":
                raise KeyboardInterrupt

        patched.setattr(ResumableLines, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            run(options)
    assert run(options).counts == {"scored": 12, "empty": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None}, "score: needs INPUT and --out"),
        ({"out": None}, "score: needs INPUT and --out"),
        ({"text": "a", "input": None, "out": None}, "--text: needs the problem too.*--prompt"),
        ({"text": "a", "prompt": "b"}, "--text: takes no INPUT file"),
        (
            {"text": "\udcff", "prompt": "b", "input": None, "out": None},
            "--text or --prompt: is not valid UTF-8",
        ),
        ({"text": "a", "prompt": "b", "input": None}, "--text: takes no --out"),
        (
            {"text": "a", "prompt": "b", "input": None, "out": None, "html": Path("h")},
            "--text: takes no --html",
        ),
        ({"prompt": "b"}, "--prompt: needs --text"),
        ({"html_ids": ("r1",)}, "--html-ids: needs --html"),
        ({"html": Path("h.html"), "html_rows": 0}, "--html-rows: must be at least 1, got 0"),
        ({"html": Path("h.html"), "html_rows": -3}, "--html-rows: must be at least 1, got -3"),
        ({"input": Path("nowhere.jsonl")}, "nowhere.jsonl: no such file"),
        ({"prm": "./nowhere"}, "nowhere: is not a model directory"),
        ({"reference": "./nowhere"}, "nowhere: is not a model directory"),
        ({"reference": None}, "names no reference.*--reference"),
        ({"beta": None}, "has no beta"),
        ({"steps": "words"}, "--steps: no step rule 'words'"),
        ({"family": "magic"}, "--family: no family 'magic'"),
        ({"format": "magic"}, "no format 'magic'"),
        ({"format": "prompts"}, "holds prompts, not rollouts"),
        ({"policy_server": "http://127.0.0.1:9/v1"}, "does not name the model.*URL#MODEL"),
        ({"reference_server": "http://127.0.0.1:9/v1#m"}, "--reference: is given twice"),
    ],
)
def test_mistakes_are_told_in_one_line(options: score.Options, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        score.run(replace(options, **changes))
    assert "\n" not in str(caught.value)
    assert options.out is not None
    assert not options.out.exists()


def test_an_input_without_rows_is_a_data_error(options: score.Options) -> None:
    assert options.input is not None
    options.input.write_text("")
    with pytest.raises(DataError, match="no response that can be scored"):
        run(options)


def test_the_output_may_not_be_the_input(options: score.Options) -> None:
    with pytest.raises(UserError, match="is the input itself"):
        run(replace(options, out=options.input, overwrite=True))


def test_a_mismatched_checkpoint_leaves_existing_outputs_untouched(
    options: score.Options, make_tokenizer: Any
) -> None:
    run(options)
    assert options.out is not None
    before = options.out.read_bytes()
    make_tokenizer("llama3").save_pretrained(str(options.reference))
    with pytest.raises(CheckpointError, match="tokenizer differs"):
        run(replace(options, overwrite=True))
    assert options.out.read_bytes() == before


def test_from_the_command_line(options: score.Options, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", str(options.input), "--prm", options.prm, "--reference", str(options.reference)]
    assert main([*arguments, "--beta", str(BETA), "--out", str(options.out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"scored": 12}
    assert main([*arguments, "--out", str(options.out)]) == 2
    assert capsys.readouterr().err.count("\n") <= 2


@pytest.mark.parametrize("beta", ["0", "-1", "inf", "1e999"])
def test_a_beta_that_is_no_scale(
    options: score.Options, beta: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", str(options.input), "--prm", options.prm, "--reference", str(options.reference)]
    assert main([*arguments, "--beta", beta, "--out", str(options.out)]) == 2
    said = "must be above 0 and finite" if beta in ("0", "-1") else "is not a number"
    assert f"--beta: {said}" in capsys.readouterr().err.replace(f"{beta!r} ", "")


@pytest.mark.parametrize(
    "response",
    [
        "one step",
        "a\r\nb\r\n\r\nc",
        "\ta\u2028b\u0085c\x0bd\n",
        "\u65e5\u672c\u8a9e\u3002\u6b21\u306e\u6bb5\u968e\n\u7b54\u3048 \U0001f642\U0001f468\u200d\U0001f469",
        "e\u0301\u0323 \ufeff\u202eabc\n\u0000 nul",
        "<|im_end|>\n<|im_start|>user\n",
        " leading blank\n",
        "a" * 300,
    ],
)
@pytest.mark.parametrize("convention", ["clean", "processbench", "best-of-n"])
def test_odd_texts_are_scored_whole(options: score.Options, response: str, convention: str) -> None:
    assert options.input is not None
    assert options.out is not None
    write(options.input, [{**rows_of(options)[0], "response": response}])
    run(replace(options, convention=convention, tokens=True))
    (scored,) = read_scores(options.out)
    text = response if scored.scored_text is None else scored.scored_text
    assert "".join(step.text for step in scored.steps) == text
    assert [(step.start, step.end) for step in scored.steps][-1][1] == len(text)
    assert scored.token_rewards is not None
    assert sum(step.reward for step in scored.steps) == pytest.approx(scored.steps[-1].value, abs=1e-6)
    if convention == "clean":
        assert sum(scored.token_rewards) == pytest.approx(scored.reward, abs=1e-6)


def test_a_product_too_large_for_a_float_is_left_out(options: score.Options) -> None:
    assert options.input is not None
    assert options.out is not None
    write(options.input, [{**rows_of(options)[0], "response": "ab cd ef\n" * 45}])
    run(replace(options, beta=1e9, steps="newline"))
    (scored,) = read_scores(options.out)
    assert len(scored.steps) == 45
    assert "product" not in scored.aggregates
    assert "sum" in scored.aggregates


def test_a_step_rule_that_the_convention_overrides_is_told(
    options: score.Options, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(replace(options, convention="best-of-n", steps="newline"))
    assert "--steps newline is not used" in capsys.readouterr().err
    assert result.step_rule == r"regex:(?=Step \d+:)"


def test_the_page_may_not_be_the_input_or_the_scores(options: score.Options) -> None:
    with pytest.raises(UserError, match="is the input itself"):
        run(replace(options, html=options.input))
    with pytest.raises(UserError, match="is also the score file"):
        run(replace(options, html=options.out))


def test_a_page_of_more_rows_than_there_are_holds_all(options: score.Options, tmp_path: Path) -> None:
    run(replace(options, html=tmp_path / "map.html", html_rows=10**20))
    assert "a 11" in (tmp_path / "map.html").read_text()


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(
    options: score.Options, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    result = score.run(replace(options, input=None, out=None, prompt="2 pens?", text="a\x1b[2J\nb"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv(*variable)
    assert "\x1b" not in result.to_text()


def test_token_rewards_of_one_solution(options: score.Options) -> None:
    result = score.run(replace(options, input=None, out=None, prompt="2 pens?", text="a\nb", tokens=True))
    assert len(result.to_json()["token_rewards"]) == result.to_json()["num_tokens"]
