"""vLLM as a side of a comparison: its program in its own environment, asked line by line."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepcredit.errors import UserError
from stepcredit_bench import vllm_program

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # engine and requests in one process, whose memory is counted
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def vllm_python(environment: Path) -> Path:
    """The interpreter of an environment made by ``scripts/vllm_environment.sh``.

    Raises:
        UserError: There is none.
    """
    python = environment / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"holds no {python.relative_to(environment)}",
            where=environment,
            hint="make it with scripts/vllm_environment.sh",
        )
    return python.absolute()


class VllmEngine:
    """The program, from its start until it is closed.

    Args:
        python: Interpreter of its environment.
        settings: As the program takes them.

    Attributes:
        start_seconds: From the process's start until it was ready.

    Raises:
        RuntimeError: It ended; with the last of what it wrote.
    """

    def __init__(self, python: Path, settings: Mapping[str, Any]) -> None:
        hidden = ("PYTHONPATH",)  # packages of this environment
        variables = {name: value for name, value in os.environ.items() if name not in hidden}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [str(python), str(Path(vllm_program.__file__)), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=variables | _ENVIRONMENT | {"OMP_NUM_THREADS": str(settings["threads"])},
        )
        self._answer("start")
        self.start_seconds = time.perf_counter() - start

    def ask(self, request: str) -> dict[str, Any]:
        """``sample`` or ``score``: the outcome."""
        assert self._process.stdin is not None
        print(request, file=self._process.stdin, flush=True)
        return self._answer(request)

    def _answer(self, request: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            last = self._log.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"vLLM ended during {request}:\n{last}")
        answer: dict[str, Any] = json.loads(line)
        return answer
