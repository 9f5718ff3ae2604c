"""One training command in several processes, as ``torchrun`` and ``accelerate launch`` start it."""

from __future__ import annotations

import os
import sys

from stepcredit.checkpoints import LoadOptions, pick_device


class Processes:
    """Who this process is, and waiting for the others.

    With more than one process, the process group is made here, and processes other than the first print
    nothing on stdout, where results go once.

    Args:
        load: Its device decides how the processes talk.

    Attributes:
        is_main: Whether this process prepares and writes outputs.
    """

    def __init__(self, load: LoadOptions) -> None:
        self.number = int(os.environ.get("WORLD_SIZE", "1"))
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        if self.number > 1:
            from accelerate import PartialState

            PartialState(cpu=pick_device(load.device) == "cpu")
            if not self.is_main:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the process ends)

    def wait(self) -> None:
        """Go on when every process is here."""
        if self.number > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
