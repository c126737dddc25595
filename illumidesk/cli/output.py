"""Tables and JSON on standard output. Colours only on a terminal, 80 columns where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from illumidesk.cli.base import clean

_GOOD = {"active", "yes", "running"}
_BAD = {"failed", "inactive", "not-found"}


def print_json(value: Any) -> None:
    """Print `value` as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Print a table; nothing but its head where there are no rows.

    Args:
        columns: the headings.
        rows: as many cells as headings; `None` is shown as a dash.
        right: headings of columns that are aligned to the right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    numbers = set(right)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        cells = ["-" if cell is None else clean(cell) for cell in row]
        table.add_row(*(Text(cell, style=_style(cell)) for cell in cells))
    Console(highlight=False).print(table)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print what is known of one thing, a line each."""
    shown = [(name, "-" if value is None else clean(value)) for name, value in pairs]
    width = max(len(name) for name, _ in shown) + 2
    for name, value in shown:
        click.echo(f"{name + ':':<{width}}{value}")


def size(amount: int | None) -> str | None:
    """Bytes for people: `312 MiB`."""
    if amount is None:
        return None
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "KiB", "MiB") or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def percent(amount: float | None) -> str | None:
    """A part of one processor core, as `top` shows it: `150%`."""
    return None if amount is None else f"{amount:.0f}%"


def ago(seconds: float | None) -> str | None:
    """How long something has been so: `3 min`, `2 h`, `5 d`."""
    if seconds is None:
        return None
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def since(moment: str | None) -> str | None:
    """How long ago an ISO 8601 moment was."""
    if not moment:
        return None
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return ago((datetime.now(UTC) - then).total_seconds())


def _style(cell: str) -> str:
    word = cell.split(" ", 1)[0]
    return "green" if word in _GOOD else "red" if word in _BAD else ""
