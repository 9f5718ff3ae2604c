"""Where the engine runs; tests set ``CONTRACT_PLATFORM``."""

from __future__ import annotations

import os


class Platform:
    def is_cpu(self) -> bool:
        return os.environ.get("CONTRACT_PLATFORM") == "cpu"


current_platform = Platform()
