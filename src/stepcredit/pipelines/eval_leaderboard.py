"""Write a page that ranks the scorers of all evaluations below a folder.

Every evaluation that was written with --out is included; those on the same data share a board.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepcredit.errors import UserError
from stepcredit.options import argument, option
from stepcredit.runs import locked, write_text

if TYPE_CHECKING:
    from stepcredit.reports.leaderboard import Board


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``stepcredit eval leaderboard``."""

    folder: Path = argument("folder that contains evaluations, at any depth")
    out: Path = option("page to write", metavar="FILE.html")
    title: str = option("title of the page", default="Leaderboard")
    overwrite: bool = option("replace the page", default=False)


@dataclass(frozen=True)
class Result:
    """The boards, and where the page is."""

    out: Path
    boards: tuple[Board, ...]

    def to_json(self) -> Any:
        """All entries."""
        from dataclasses import asdict

        return {"out": str(self.out), "boards": [asdict(board) for board in self.boards]}

    def to_text(self) -> str:
        """The boards as lists."""
        lines = [f"{self.out}: written"]
        for board in self.boards:
            lines.append(f"{board.title}: {board.metric}")
            lines += [f"  {entry.shown:>6}  {entry.scorer}" for entry in board.entries]
        return "\n".join(lines)


def run(options: Options) -> Result:
    """Collect and write."""
    from stepcredit.reports.leaderboard import collect, render_leaderboard

    with locked(options.out):
        if options.out.exists() and not options.overwrite:
            raise UserError(
                "already exists", where=options.out, hint="choose another --out, or pass --overwrite"
            )
        boards = collect(options.folder, options.out)
        write_text(options.out, render_leaderboard(boards, title=options.title))
    return Result(options.out, tuple(boards))
