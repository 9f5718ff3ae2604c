"""Calls of the command line with damaged inputs: each works, or ends in one line that names the mistake.

Run: python -m stepcredit_bench.fuzz --calls 20000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from stepcredit.cli import main as stepcredit
from stepcredit_bench.fuzz_calls import CALLS, Maker, Words

_MOST_SECONDS = 60.0
"""Of computing: a machine may be busy with something else."""


@dataclass
class Fuzzed:
    """How the calls ended.

    Attributes:
        counts: Command and exit code to calls.
        failures: Calls that ended otherwise, with what they printed.
        slowest: Seconds and words of the slowest call.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def fuzz(calls: int, seed: int, folder: Path) -> Fuzzed:
    """Make so many calls; what they write is left in the folder where they fail."""
    maker, done = Maker(random.Random(seed)), Fuzzed()
    with _server(maker) as maker.address:
        for number in range(calls):
            here = folder / f"call{number}"
            here.mkdir()
            (make,) = maker.rng.choices(list(CALLS), list(CALLS.values()))
            words = make(maker, here)
            started = time.process_time()
            problem = _problem(words, done.counts)
            seconds = time.process_time() - started
            done.slowest = max(done.slowest, (seconds, " ".join(words)))
            if seconds > _MOST_SECONDS:
                problem = f"took {seconds:.0f} seconds"
            if problem is None:
                shutil.rmtree(here)
            else:
                done.failures.append(f"stepcredit {' '.join(words)}\n{problem}")
    return done


@contextlib.contextmanager
def _server(maker: Maker) -> Iterator[str]:
    """A server that gives the maker's body to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(maker.body)))
            self.end_headers()
            self.wfile.write(maker.body)

        do_GET = do_POST  # noqa: N815  (the name is that of the base class)

        def log_message(self, format: str, *arguments: object) -> None:
            del format, arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _problem(words: Words, counts: Counter[str]) -> str | None:
    """Why a call did not end as it must; ``None`` if it did."""
    output, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = stepcredit(words)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error)[-4:])
    said = [line for line in errors.getvalue().splitlines() if line.startswith("stepcredit: error: ")]
    counts[f"{words[0]} {code}"] += 1
    if "Traceback" in errors.getvalue():
        return errors.getvalue()
    if code == 0:
        return None if not said else f"exit code 0, but {said}"
    return (
        None if (code, len(said)) == (2, 1) else f"exit code {code}, {len(said)} lines: {errors.getvalue()}"
    )


def main() -> None:
    """Make the calls, and print those that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = fuzz(arguments.calls, arguments.seed, Path(folder))
    for failure in done.failures:
        print(failure)
    print(f"{len(done.failures)} of {arguments.calls} calls failed")
    print(f"the slowest took {done.slowest[0]:.1f} s: {done.slowest[1]}")
    print("; ".join(f"{name}: {count}" for name, count in sorted(done.counts.items())))


if __name__ == "__main__":
    main()
