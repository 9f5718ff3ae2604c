"""Turn a GGUF file into an ordinary checkpoint directory (bfloat16 safetensors and tokenizer).

Usage: python scripts/checkpoint_from_gguf.py MODEL.gguf OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stepcredit.checkpoints import load_model, load_tokenizer
from stepcredit.errors import UserError
from stepcredit.runs import atomic_directory


def convert(source: Path, out: Path) -> None:
    """Dequantise ``source`` and save it to ``out``.

    Raises:
        UserError: ``source`` cannot be read, or ``out`` exists.
    """
    if out.exists():
        raise UserError("already exists", where=out, mend="name a new directory")
    model: Any = load_model(source, device="cpu", dtype="bfloat16")
    tokenizer = load_tokenizer(source)
    with atomic_directory(out) as directory:
        model.save_pretrained(str(directory))
        tokenizer.save_pretrained(str(directory))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
