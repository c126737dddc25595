"""What a measurement answers, and how figures are told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: The systems compared, as tables and charts call them.
STOCK = "stock"
OURS = "IllumiDesk"
FORKED = "IllumiDesk, fork server"
SYSTEMS = (STOCK, OURS, FORKED)


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, in each system where it was.

    Attributes:
        what: in plain words.
        unit: of the values.
        people: how many people took part; 0 where that means nothing.
        values: by system. None where the system did not get there at all.
        target: what `OURS` or `FORKED` is to reach, for people to read.
        less: whether less is better.
    """

    what: str
    unit: str
    people: int
    values: dict[str, float | None]
    target: str = ""
    less: bool = True
    note: str = field(default="", compare=False)

    def ratio(self, system: str) -> float | None:
        """The system's value as a multiple of the stock one; None where there is none."""
        ours, stock = self.values.get(system), self.values.get(STOCK)
        return None if ours is None or not stock else ours / stock

    def as_dict(self) -> dict[str, Any]:
        """The figure as it is kept in JSON."""
        return asdict(self)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` of all are no larger than (nearest rank).

    Raises:
        ValueError: where there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """b, where the points (n, value) lie closest to value = a · n^b: 0 is flat, 1 is in proportion.

    None where fewer than two different n have a value above 0.
    """
    logs = [(math.log(n), math.log(value)) for n, value in points if n > 0 and value > 0]
    if len({n for n, _ in logs}) < 2:
        return None
    mean_n = sum(n for n, _ in logs) / len(logs)
    mean_value = sum(value for _, value in logs) / len(logs)
    slope = sum((n - mean_n) * (value - mean_value) for n, value in logs)
    return slope / sum((n - mean_n) ** 2 for n, _ in logs)


def growth(figures: Sequence[Figure]) -> list[tuple[str, str, list[tuple[int, float]], float]]:
    """What was measured for several numbers of people, and is better where it is less.

    Returns:
        what and its unit, the system, the points (people, value), and the exponent.
    """
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for figure in figures:
        for system, value in figure.values.items():
            if figure.people and figure.less and value is not None:
                found.setdefault((f"{figure.what}, {figure.unit}", system), []).append((figure.people, value))
    grown = []
    for (what, system), points in found.items():
        power = exponent(points)
        if power is not None:
            grown.append((what, system, sorted(points), power))
    return grown
