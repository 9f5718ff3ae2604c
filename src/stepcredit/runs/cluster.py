"""Work on rows spread over a Ray cluster: the same functions, in actors, as a Ray Data pipeline.

The rows wait in a file beside the output, and the cluster's actors read pieces of it; so the folder must be
one that all machines share. Results come back piece by piece, in the order in which they are finished. An
actor that dies is replaced, and its piece is done again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stepcredit.errors import MissingExtraError, UserError
from stepcredit.runs.ledger import Ledger

LOCAL = "local"
"""Address that stands for a cluster of this machine's own cores, started and ended with the run."""

Row = Mapping[str, Any]
RowWorker = Callable[[list[dict[str, Any]]], Iterable[Row]]
"""Turns some rows into result rows; made once in each actor."""

LEDGER = "ledger of a piece"
"""Field of the row in which a worker says what a piece cost."""

_CONNECT_SECONDS = 10.0


def over_ray(
    rows: Iterable[Row],
    make_worker: Callable[[], RowWorker],
    *,
    address: str,
    beside: Path,
    num_workers: int | None = None,
    num_gpus: float = 0.0,
    rows_at_once: int = 256,
    done: Container[int] = frozenset(),
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield number and result rows of each piece of work, as they are finished.

    Args:
        rows: What to work on; rows that lie side by side with the same ``prompt_id`` stay together.
        make_worker: Makes a worker; it must be picklable.
        beside: The output, on a file system that all machines share; the rows wait in its folder.
        num_workers: How many actors; by default one for each core of the cluster (or for each of its
            GPUs, where an actor needs one).
        rows_at_once: Rows that make a piece of work; it may grow to keep a prompt together.
        done: Numbers of pieces that are left out. Which rows make a piece depends on the rows only.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: The cluster cannot be reached, or what a worker raised.
    """
    ray = _ray()
    with contextlib.ExitStack() as stack:
        # Named like other temporary files of the output, so that a killed run's is removed by the next one.
        waiting = stack.enter_context(
            tempfile.NamedTemporaryFile(dir=beside.parent, prefix=f".{beside.name}.", suffix=".tmp")
        )
        pieces = _write_pieces(rows, waiting, rows_at_once)
        pieces = [piece for piece in pieces if piece["number"] not in done]
        if not pieces:
            return
        if not ray.is_initialized():  # else this process is part of a cluster already
            _connect(ray, address, num_workers)
            stack.callback(ray.shutdown)
        unit = "GPU" if num_gpus else "CPU"
        available = int(ray.cluster_resources().get(unit, 0) / (num_gpus or 1))
        size = max(1, min(num_workers or available, len(pieces)))
        data = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
            _Actor,
            fn_constructor_args=(make_worker, waiting.name, os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            num_gpus=num_gpus or None,
        )
        for result in data.iter_rows():
            if result["is_error"]:
                raise UserError(result["lines"])
            yield int(result["number"]), [json.loads(line) for line in result["lines"].splitlines()]


class _Actor:
    """Reads a piece of the waiting rows and works on it."""

    def __init__(self, make_worker: Callable[[], RowWorker], path: str, folder: str) -> None:
        with contextlib.suppress(OSError):  # so that relative paths and modules mean the same here
            os.chdir(folder)
        self._make_worker, self._path = make_worker, path
        self._work: RowWorker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        (number,), (start,), (end,) = batch["number"], batch["start"], batch["end"]
        try:
            self._work = self._work or self._make_worker()
            results = self._work(self._read(int(start), int(end)))
            lines = "\n".join(json.dumps(row, allow_nan=False) for row in results)
        except UserError as error:
            # As text: what Ray wraps and pickles does not end as one line.
            return {"number": [number], "lines": [str(error)], "is_error": [True]}
        return {"number": [number], "lines": [lines], "is_error": [False]}

    def _read(self, start: int, end: int) -> list[dict[str, Any]]:
        with open(self._path, "rb") as waiting:
            waiting.seek(start)
            return [json.loads(line) for line in waiting.read(end - start).splitlines()]


def _ray() -> Any:
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise MissingExtraError("ray", "ray", needed_for="--ray") from error
    return ray


def _connect(ray: Any, address: str, num_workers: int | None) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == LOCAL:
        options |= {"address": "local", "num_cpus": num_workers, "include_dashboard": False}
    else:
        options["address"] = address
    try:
        _check_answers(address)
        ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster can be reached ({error})", where=f"--ray {address}", hint="use --ray local"
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.print_on_execution_start = False


def _check_answers(address: str) -> None:
    """Knock before Ray does, which would wait for minutes where nobody answers.

    Raises:
        OSError: Nothing listens there.
        ValueError: The address is none.
    """
    if address not in (LOCAL, "auto"):
        place = urlsplit(address if "//" in address else f"//{address}")
        if place.hostname is None or place.port is None:
            raise ValueError("an address is HOST:PORT, ray://HOST:PORT, auto or local")
        socket.create_connection((place.hostname, place.port), timeout=_CONNECT_SECONDS).close()


def _write_pieces(rows: Iterable[Row], waiting: Any, rows_at_once: int) -> list[dict[str, int]]:
    """Write the rows and return the byte ranges of the pieces, none of which splits a group."""
    pieces: list[dict[str, int]] = []
    start = position = count = 0
    last: Any = None
    for row in rows:
        if count >= rows_at_once and row.get("prompt_id") != last:
            pieces.append({"number": len(pieces), "start": start, "end": position})
            start, count = position, 0
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        waiting.write(line)
        position, count, last = position + len(line), count + 1, row.get("prompt_id")
    waiting.flush()
    if count:
        pieces.append({"number": len(pieces), "start": start, "end": position})
    return pieces


def cost_of(worker: object) -> Callable[[], dict[str, Any]]:
    """A function that says what a worker's ledger gained since it was last called."""
    before = Ledger()

    def cost() -> dict[str, Any]:
        nonlocal before
        now: Ledger = getattr(worker, "ledger", None) or Ledger()
        gained = Ledger(
            model_parameters=now.model_parameters,
            prompt_tokens=now.prompt_tokens - before.prompt_tokens,
            generated_tokens=now.generated_tokens - before.generated_tokens,
            scored_tokens=now.scored_tokens - before.scored_tokens,
        )
        before = Ledger()
        before.add(now.to_json())
        return gained.to_json()

    return cost
