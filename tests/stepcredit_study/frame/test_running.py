from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stepcredit.errors import UserError
from stepcredit_study.frame import running
from stepcredit_study.frame.running import Stage, measure, read_measurement, run_stages
from stepcredit_study.frame.scale import Scale, read_scale, resized

EXPERIMENT = """
    import os, time
    from pathlib import Path
    from stepcredit.errors import UserError
    from stepcredit_study.frame.experiment import Experiment

    HERE = Path(__file__).parent

    def prepare(world):
        return HERE / "log"

    def measure(world, log):
        with open(log, "a") as handle:
            handle.write(f"{world.seed}\\n")
        if (HERE / f"fail-{world.seed}").exists():
            raise UserError("cannot go on", where=f"seed {world.seed}")
        while (HERE / f"hold-{world.seed}").exists():
            time.sleep(0.02)
        return {"size": float(world.scale.sizes.train_prompts), "seed": float(world.seed)}

    EXPERIMENT = Experiment("made-up", prepare, measure, lambda seeds, scale: None)
"""


@pytest.fixture
def scale() -> Scale:
    return read_scale("lab")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds the module ``made_up_experiment``, which counts how often it measures."""
    (tmp_path / "made_up_experiment.py").write_text(textwrap.dedent(EXPERIMENT))
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("made_up_experiment", None)
    return tmp_path


def stages(folder: Path, scale: Scale, seeds: int = 2) -> list[Stage]:
    return [
        Stage(module="made_up_experiment", scale=scale, seed=seed, out=folder / "out")
        for seed in range(seeds)
    ]


def measured(folder: Path) -> list[int]:
    """Seeds in the order in which they were measured."""
    log = folder / "log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def test_a_stage_leaves_its_numbers_and_what_they_are_of(folder: Path, scale: Scale) -> None:
    (stage,) = stages(folder, scale, 1)
    assert read_measurement(stage) is None
    numbers = {"size": float(scale.sizes.train_prompts), "seed": 0.0}
    assert measure(stage) == numbers
    assert stage.path == folder / "out" / "measurements" / "made-up-experiment" / "seed-0.json"
    content = read_measurement(stage)
    assert content is not None
    assert content["numbers"] == numbers
    assert content["experiment"] == "made-up-experiment"


def test_numbers_of_other_settings_or_torn_files_do_not_count(folder: Path, scale: Scale) -> None:
    (stage,) = stages(folder, scale, 1)
    measure(stage)
    for other in (
        resized(scale, {"train_prompts": 7}),
        replace(scale, n=(2,)),
        replace(scale, methods={**scale.methods, "implicit-ce": {"objective": "ce", "beta": 0.1}}),
    ):
        assert read_measurement(replace(stage, scale=other)) is None
    assert read_measurement(stage) is not None
    stage.path.write_text(stage.path.read_text()[:20])
    assert read_measurement(stage) is None


@pytest.mark.slow
def test_stages_run_in_processes_once_and_again_only_with_other_settings(folder: Path, scale: Scale) -> None:
    results = run_stages(stages(folder, scale, 3), jobs=2)
    assert [numbers["seed"] for numbers in results["made-up-experiment"]] == [0, 1, 2]
    assert sorted(measured(folder)) == [0, 1, 2]
    assert run_stages(stages(folder, scale, 3), jobs=2) == results
    assert len(measured(folder)) == 3
    changed = run_stages(stages(folder, resized(scale, {"train_prompts": 7}), 1), jobs=1)
    assert changed["made-up-experiment"] == [{"size": 7.0, "seed": 0.0}]


def test_an_experiment_is_told_of_as_soon_as_its_seeds_are_there(
    folder: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "another_experiment.py").write_text((folder / "made_up_experiment.py").read_text())
    monkeypatch.setattr(running, "_measured", lambda todo, jobs: ((stage, measure(stage)) for stage in todo))
    first, second = stages(folder, scale)
    both = [first, replace(first, module="another_experiment"), second]
    finished: list[tuple[str, int]] = []
    for _ in range(2):
        run_stages(both, jobs=1, finished=lambda name, numbers: finished.append((name, len(numbers))))
    # Measured one by one; then both are there from the start.
    assert finished[:2] == [("another-experiment", 1), ("made-up-experiment", 2)]
    assert sorted(finished[2:]) == sorted(finished[:2])


@pytest.mark.slow
def test_a_stage_that_fails_leaves_the_finished_ones(folder: Path, scale: Scale) -> None:
    (folder / "fail-1").touch()
    with pytest.raises(UserError, match="seed 1: cannot go on"):
        run_stages(stages(folder, scale), jobs=1)
    (folder / "fail-1").unlink()
    assert len(run_stages(stages(folder, scale), jobs=1)["made-up-experiment"]) == 2
    assert measured(folder) == [0, 1, 1]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_no_process(folder: Path, scale: Scale) -> None:
    (folder / "hold-1").touch()
    program = f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        from pathlib import Path
        from stepcredit_study.frame.running import Stage, run_stages
        from stepcredit_study.frame.scale import read_scale
        if __name__ == "__main__":
            scale = read_scale("lab")
            run_stages(
                [Stage(module="made_up_experiment", scale=scale, seed=seed, out=Path({str(folder / "out")!r}))
                 for seed in range(2)],
                jobs=1,
            )
    """
    script = folder / "script.py"
    script.write_text(textwrap.dedent(program))
    run = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    for _ in range(3000):
        if measured(folder) == [0, 1]:
            break
        time.sleep(0.02)
    else:
        pytest.fail("took too long")
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(run.pid)], capture_output=True, text=True)
    workers = [int(pid) for pid in children.stdout.split()]
    assert workers
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert (folder / "out" / "measurements" / "made-up-experiment" / "seed-0.json").exists()
    for _ in range(500):
        if not any(_is_alive(pid) for pid in workers):
            break
        time.sleep(0.02)
    else:
        pytest.fail("workers outlive the run")
    (folder / "hold-1").unlink()
    results = run_stages(stages(folder, scale), jobs=1)
    assert [numbers["seed"] for numbers in results["made-up-experiment"]] == [0, 1]
    assert measured(folder) == [0, 1, 1], "seed 0 is not measured again"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for yet does nothing any more.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_larger_scale_runs_its_commands_by_its_launchers(folder: Path) -> None:
    """One request of a made-up experiment; the launcher writes what it was called with."""
    script = folder / "launch"
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys, pathlib\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.parent.mkdir(parents=True, exist_ok=True)\n"
        "out.write_text(' '.join(sys.argv[1:]))\n"
    )
    script.chmod(0o755)
    (folder / "one_request.py").write_text(
        textwrap.dedent(
            """
            from stepcredit_study.frame.experiment import Experiment

            def measure(world, path):
                words = path.read_text().split()
                assert words[0] == "sample"
                assert words[words.index("--model") + 1] == "meta-llama/Llama-3.1-8B-Instruct"
                return {"words": float(len(words))}

            def prepare(world):
                return world.sampled("test")

            EXPERIMENT = Experiment("one-request", prepare, measure, lambda seeds, scale: None)
            """
        )
    )
    scale = replace(read_scale("paper"), launchers={"default": str(script)})
    stage = Stage(module="one_request", scale=scale, seed=0, out=folder / "out")
    results = run_stages([stage], jobs=1)
    assert results["one-request"][0]["words"] > 5
    assert json.loads(stage.path.read_text())["numbers"] == results["one-request"][0]
