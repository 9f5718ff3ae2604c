"""Progress with rate and time left: a live bar at a terminal or in a notebook, else a line now and then."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress

_NOTEBOOK_SECONDS = 0.5
"""Between pictures of a notebook's bar; work that takes less shows none."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Shows how far a long piece of work is.

    Args:
        total: How many units there are in all; ``None`` if unknown.
        done: Units that an earlier run already did; they do not count towards the rate.
        every: Seconds between lines where stderr is not a terminal.
    """

    def __init__(
        self, title: str, total: int | None, unit: str = "rows", *, done: int = 0, every: float = 10.0
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self._extra = ""
        self._every = every
        self._started = self._shown = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._in_notebook = False
        self._display: Any = None

    def __enter__(self) -> Progress:
        self._in_notebook = _is_notebook()
        if self._in_notebook:
            self._every = _NOTEBOOK_SECONDS
        elif sys.stderr.isatty():
            self._bar = self._make_bar()
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._refresh_bar()
            self._bar.stop()
            self._bar = None
        elif time.monotonic() - self._started > self._every:
            self._show()

    def advance(self, by: int = 1, extra: str = "") -> None:
        """Count ``by`` more units; ``extra`` is shown at the end of the line."""
        self.done += by
        self._extra = extra or self._extra
        if self._bar is not None:
            self._refresh_bar()
        elif time.monotonic() - self._shown >= self._every and self.done != self.total:
            # The line of the last unit is left to the end, when all is done that belongs to it.
            self._show()

    def status(self) -> str:
        """Rate, time left (or taken), and whatever else was passed to :meth:`advance`."""
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        text = f"{rate:,.1f} {self.unit}/s"
        if self.total is not None and rate > 0 and self.done < self.total:
            text += f", {_duration((self.total - self.done) / rate)} left"
        else:
            text += f", {_duration(elapsed)} taken"
        return text + (f", {self._extra}" if self._extra else "")

    def _make_bar(self) -> rich.progress.Progress:
        import rich.console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
        )
        bar = Bar(*columns, console=rich.console.Console(stderr=True))
        bar.add_task(self.title, total=self.total, completed=self.done, status="")
        return bar

    def _refresh_bar(self) -> None:
        assert self._bar is not None
        self._bar.update(self._bar.task_ids[0], completed=self.done, status=self.status())

    def _show(self) -> None:
        self._shown = time.monotonic()
        total = "" if self.total is None else f"/{self.total:,}"
        line = f"{self.title}: {self.done:,}{total} {self.unit}, {self.status()}"
        if self._in_notebook:
            self._show_in_notebook(line)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _show_in_notebook(self, line: str) -> None:
        """One output that is drawn anew, so that a cell does not fill with lines."""
        from IPython.display import HTML, display

        share = "" if self.total is None else f' value="{self.done}" max="{self.total}"'
        bar = HTML(f"<progress{share}></progress> {escape(line)}")
        if self._display is None:
            self._display = display(bar, display_id=True)
        else:
            self._display.update(bar)


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs this, which shows what :func:`IPython.display.display` is given."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def warn(message: str) -> None:
    """One line on stderr for something that the user should know but that is not wrong."""
    sys.stderr.write(f"warning: {message}\n")
    sys.stderr.flush()
