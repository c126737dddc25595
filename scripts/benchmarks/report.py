"""The pages for people: docs/benchmarks.md, its chart, and the table of how many fit (docs/_capacity_figures.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import chart
from benchmarks.figures import FORKED, OURS, STOCK, SYSTEMS, Figure, growth

#: What the chart shows, by how the figures' names begin; of several numbers of people the largest.
CHARTED = (
    "CPU of one start", "the hub's CPU for one start", "memory of one person", "all at once: the last",
    "CPU of all services for an idle person", "CPU of a restart", "autograde", "the proxy's CPU",
    "CPU of all services for a file",
)  # fmt: skip
#: GiB of memory that machines have, and MiB that the system itself needs besides what was measured.
MACHINES = (2, 4, 8, 16)
SYSTEM = 350

PAGE = """\
# Benchmarks

What IllumiDesk needs, beside a stock JupyterHub with the same packages on the same machine. `scripts/bench` measures it
and wrote this page.

![What each system needs, as a multiple of what stock needs](benchmarks.svg)

{about}
{quick}
Stock is what its documentation has: JupyterHub as root with SystemdSpawner, configurable-http-proxy, accounts made by
`useradd`, JupyterLab, Notebook and nbgrader with all their extensions, and every timeout as it comes. Where a stock
server would not have come up in its time, its hub had long timeouts: only so is there anything to compare.

## Figures

{table}

*Ratio* is IllumiDesk's figure as a multiple of stock's{forked}. "-" was not measured.

## How it grows

The exponent says how a figure grows with the number of people: 0 is not at all, 1 in proportion, 2 with the square.

{growth}

{steeper}

## What these figures are not

- Both classes share the machine's processors with whatever else runs on it, and with the people: those who come are
  processes there, too. Seconds are this machine's. Ratios carry over.
- Everything was measured alternately in one run, stock first.
- CPU is user and system time of a unit's processes and of those they waited for. A start has systemd's part, too: most
  of it builds the sandbox, in a process that ends when the fork server has forked. Memory is the proportional set size:
  what servers share is divided among them.
- The machine is a container with its own systemd. Limits on memory and processors are not in force in it.
- All at once, people sign in with a password that is new. Stock's firstuseauthenticator hashes it by bcrypt, a quarter
  of a second of CPU each, and IllumiDesk by Argon2id, a tenth of that. Launches from an LMS have no passwords.
- At the first launch, IllumiDesk makes an account on the machine for a person and puts them into their course. Stock
  people have accounts from the start, and its authenticator makes none.
- The idle hub was measured with stand-ins instead of servers: units as real ones, that answer and report activity.
  One minute was looked at, and servers report every five: where few did in that minute, the figure is too small.
"""

QUICK = """
```{warning}
These figures are of a quick run with few people, which shows that the measurements work. They compare nothing.
```
"""


def read(folder: Path) -> list[dict[str, Any]]:
    """The outcomes in a folder, oldest first."""
    found = [json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")]
    return sorted((one for one in found if "figures" in one), key=lambda one: str(one["at"]))


def figures_of(outcomes: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """All figures, in the order of the runs."""
    return [Figure(**one) for outcome in outcomes for one in outcome["figures"]]


def shown(value: float | None) -> str:
    """A number as people write it."""
    if value is None:
        return "-"
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.1f}"


def table(figures: Sequence[Figure]) -> str:
    """Figures as a table in Markdown."""
    systems = [name for name in SYSTEMS if any(name in one.values for one in figures)]
    systems += sorted({name for one in figures for name in one.values} - set(systems))
    compared = [name for name in systems if name in (OURS, FORKED)] if STOCK in systems else []
    head = ["what", "people", *(f"{name}" for name in systems), *(f"ratio, {name}" for name in compared), "target"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 2)} --- |"]
    for one in figures:
        ratios = [one.ratio(name) for name in compared]
        row = [
            f"{one.what} ({one.unit})",
            str(one.people or ""),
            *(shown(one.values[name]) if name in one.values else "-" for name in systems),
            *("" if ratio is None else f"{ratio:.2f}×" for ratio in ratios),
            one.target,
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def growth_table(figures: Sequence[Figure]) -> str:
    """How figures grow, as a table in Markdown."""
    lines = ["| what | system | figures (people: figure) | exponent |", "| --- | --- | --- | ---: |"]
    for what, system, points, power in growth(figures):
        listed = ", ".join(f"{n}: {shown(value)}" for n, value in points)
        lines.append(f"| {what} | {system} | {listed} | {power:.2f} |")
    return "\n".join(lines)


def steeper_than_linear(figures: Sequence[Figure]) -> str:
    """A sentence on what of ours grows faster than in proportion."""
    ours = [(what, power) for what, system, _, power in growth(figures) if system in (OURS, FORKED)]
    if not ours:
        return "Nothing was measured for several numbers of people."
    found = [what for what, power in ours if power > 1.1]
    if not found:
        return "Nothing of IllumiDesk's grew faster than in proportion to the number of people."
    return f"Faster than in proportion grew: {'; '.join(dict.fromkeys(found))}."


def charted(figures: Sequence[Figure]) -> list[Figure]:
    """What the chart shows."""
    chosen: dict[str, Figure] = {}
    for start in CHARTED:
        for one in figures:
            if one.what.startswith(start) and one.values.get(STOCK) and one.values.get(OURS) is not None:
                best = chosen.get(one.what)
                if best is None or one.people >= best.people:
                    chosen[one.what] = one
    return list(chosen.values())


def capacity(figures: Sequence[Figure], percent: int) -> str:
    """How many people fit on machines of these sizes, as a table in Markdown; "" where it was not measured.

    Args:
        figures: with the memory of a person.
        percent: of a machine's memory that all servers together may have (`class_limits.memory_percent`).
    """
    kinds = ("idle", "with a kernel", "with a kernel and pandas")
    memory = {one.what: one for one in figures if one.what.startswith("memory of one person")}
    services = next((one for one in figures if one.what.startswith("memory of the services")), None)
    if services is None or any(f"memory of one person, {kind}" not in memory for kind in kinds):
        return ""
    systems = [name for name in SYSTEMS if name in memory["memory of one person, idle"].values]
    lines = [
        f"| memory | system | {' | '.join(kinds)} |",
        f"| ---: | --- |{' ---: |' * len(kinds)}",
    ]
    for size in MACHINES:
        for name in systems:
            own = services.values.get(name) or services.values.get(OURS) or 0
            counts = [
                fitting(size << 10, own, memory[f"memory of one person, {kind}"].values[name] or 0, percent)
                for kind in kinds
            ]
            lines.append(f"| {size} GB | {name} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def fitting(machine: float, services: float, person: float, percent: int) -> int:
    """How many people fit, all in MiB: into what is left, or into the class's share, with a tenth to spare."""
    room = min(machine - SYSTEM - services, machine * percent / 100)
    return max(0, int(room / (1.1 * person))) if person else 0


def write(folder: Path, target: Path, percent: int) -> None:
    """Write page, chart and table of capacity.

    Args:
        folder: with the outcomes.
        target: where they go.
        percent: see `capacity`.
    """
    outcomes = read(folder)
    figures = figures_of(outcomes)
    target.mkdir(parents=True, exist_ok=True)
    (target / "benchmarks.svg").write_text(chart(charted(figures), "Needed, as a multiple of a stock JupyterHub"))
    about = "\n".join(
        f"- {outcome['name']}: {outcome['at']}, {outcome['release']}, {outcome['cores']} cores, "
        f"{outcome['memory_gib']} GiB, load {outcome['load']} before, {outcome['load_after']} after."
        for outcome in outcomes
    )
    page = PAGE.format(
        quick=QUICK if "quick" in folder.parts else "",
        about=f"Measured, in this order:\n\n{about}",
        table=table(figures),
        forked=" (servers started from scratch, and from the fork server)" if _forked(figures) else "",
        growth=growth_table(figures),
        steeper=steeper_than_linear(figures),
    )
    (target / "benchmarks.md").write_text(page)
    fits = capacity(figures, percent)
    if fits:
        (target / "_capacity_figures.md").write_text(fits + "\n")


def _forked(figures: Sequence[Figure]) -> bool:
    return any(FORKED in one.values for one in figures)
