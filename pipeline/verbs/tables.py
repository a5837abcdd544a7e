"""How verbs print tables: aligned text, readable on a terminal, in a log and through a pipe."""

from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.table import Table

PLAIN_WIDTH = 200
"""Columns of an output that is not a terminal."""


class Printer(Console):
    """A console that prints text as it is; cli.py handles a reader that closes the pipe."""

    def on_broken_pipe(self) -> NoReturn:
        """Called by rich while it handles a BrokenPipeError."""
        raise BrokenPipeError


def make_printer() -> Printer:
    """A printer as wide as the terminal; where there is none, wide enough for nearly all tables."""
    console = Printer(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Printer(highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH)


def make_table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns in `right` hold numbers."""
    look = {"title_justify": "left", "title_style": "bold", "header_style": "dim"}
    table = Table(title=title, box=None, pad_edge=False, padding=(0, 3, 0, 0), **look)  # type: ignore[arg-type]
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def format_bytes(count: float) -> str:
    """`1500000` -> `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_time(seconds: float) -> str:
    """`5400` -> `1.5 h`: a length of time that is only known roughly."""
    for limit, unit, length in ((90, "s", 1), (90 * 60, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    days = seconds / 86400
    return f"{days:.2g} days" if days < 10 else f"{days:,.0f} days"
