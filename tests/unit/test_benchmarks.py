"""The pure parts of the benchmarks: statistics, what /proc says, tables, the chart, how many fit."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from benchmarks import report
from benchmarks.bell import most_before
from benchmarks.chart import END, LEFT, WIDTH, chart
from benchmarks.figures import FORKED, OURS, STOCK, Figure, exponent, growth, percentile
from benchmarks.processes import cpu_of, memory_of, unit_of
from benchmarks.visitor import Visit

CPU = Figure("CPU of one start", "s", 20, {STOCK: 2.5, OURS: 1.0, FORKED: 0.1}, "0.45x")


def test_ratio_is_a_multiple_of_stock() -> None:
    assert CPU.ratio(OURS) == pytest.approx(0.4)
    assert CPU.ratio(FORKED) == pytest.approx(0.04)
    assert Figure("x", "s", 1, {OURS: 1.0}).ratio(OURS) is None
    assert Figure("x", "s", 1, {OURS: 1.0, STOCK: None}).ratio(OURS) is None
    assert Figure("x", "s", 1, {OURS: 1.0, STOCK: 0.0}).ratio(OURS) is None


def test_percentile_is_one_of_the_values() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile([5, 1, 3], 50) == 3
    assert percentile([5], 99) == 5
    assert percentile([1, 2], 0) == 1
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_exponent_tells_flat_proportional_and_square() -> None:
    numbers = (10, 40, 150, 300)
    assert exponent([(n, 7.0) for n in numbers]) == pytest.approx(0)
    assert exponent([(n, 3.0 * n) for n in numbers]) == pytest.approx(1)
    assert exponent([(n, 0.1 * n * n) for n in numbers]) == pytest.approx(2)
    assert exponent([(10, 1.0)]) is None
    assert exponent([(10, 1.0), (10, 2.0)]) is None
    assert exponent([(10, 1.0), (20, 0.0)]) is None


def test_growth_takes_what_was_measured_for_several_numbers() -> None:
    figures = [
        *(Figure("launches", "a second", n, {OURS: float(n)}, less=False) for n in (10, 40)),
        Figure("wait", "s", 10, {STOCK: None, OURS: 1.0}),
        Figure("wait", "s", 40, {STOCK: 9.0, OURS: 16.0}),
        CPU,
    ]
    [(what, system, points, power)] = growth(figures)
    assert (what, system, points) == ("wait, s", OURS, [(10, 1.0), (40, 16.0)])
    assert power == pytest.approx(2)


def test_what_proc_says() -> None:
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 200 0 0 150 50 25 75 20 0 1 0 100 1000 10 0"
    assert cpu_of(stat) == pytest.approx(3.0)
    assert memory_of("7f00-7fff ---p 00000000 00:00 0 [rollup]\nRss: 99 kB\nPss: 12 kB\nPss_Anon: 7 kB\n") == 12 << 10
    assert memory_of("") == 0
    v1 = (
        "9:name=systemd:/illumidesk-machine-bench/payload/illumidesk-users.slice/jupyter-ana.service\n8:pids:/\n"
        "0::/illumidesk-machine-bench/payload/illumidesk-users.slice/jupyter-ana.service\n"
    )
    assert unit_of(v1, "bench") == "jupyter-ana.service"
    assert unit_of(v1, "ben") == ""
    assert unit_of("0::/user.slice/x.service\n", "bench") == ""
    assert unit_of("0::/illumidesk-machine-bench/payload/init.scope\n", "bench") == "init"


def test_the_most_people_before_somebody() -> None:
    assert most_before(Visit("ana", told=["12 before you.", "3 before you.", "You are next."])) == 12
    assert most_before(Visit("ben", told=["Server requested"])) == 0


def test_table_has_a_ratio_for_each_of_ours() -> None:
    lines = report.table([CPU, Figure("launches", "a second", 0, {STOCK: 6.0, OURS: 120.0})]).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == lines[3].count("|")
    assert "| CPU of one start (s) | 20 | 2.5 | 1 | 0.1 | 0.40× | 0.04× | 0.45x |" in lines
    assert "| launches (a second) |  | 6 | 120 | - | 20.00× |  |  |" in lines


def test_what_grows_steeply_is_named() -> None:
    steep = [Figure("wait", "s", n, {OURS: float(n * n)}) for n in (10, 100)]
    assert "wait, s" in report.steeper_than_linear(steep)
    even = [Figure("wait", "s", n, {OURS: float(n), STOCK: float(n * n)}) for n in (10, 100)]
    assert "Nothing of IllumiDesk's" in report.steeper_than_linear(even)
    assert report.steeper_than_linear([CPU]) == "Nothing was measured for several numbers of people."


def test_chart_is_well_formed_and_bars_end_in_it() -> None:
    long = Figure("a <slow> & long one", "s", 0, {STOCK: 1.0, OURS: 50.0})
    more = Figure("launches", "a second", 0, {STOCK: 1.0, OURS: 20.0}, less=False)
    root = ElementTree.fromstring(chart([CPU, long, more], "a & b"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert "a <slow> & long one" in texts
    assert "CPU of one start (20 people)" in texts
    assert "launches" not in texts
    assert {"2.5 s", "0.40×", "0.04×", "50.00×"} <= set(texts)
    ends = [float(bar.get("x", 0)) + float(bar.get("width", 0)) for bar in root.iter(f"{space}rect") if bar.get("x")]
    assert max(ends) <= WIDTH
    assert min(float(bar.get("width", 0)) for bar in root.iter(f"{space}rect")) > 0
    assert LEFT < WIDTH - 70 < WIDTH * END


def test_how_many_fit() -> None:
    # 2048 - 350 - 98 = 1600 MiB left, less than 80 %; 1.1 * 100 each.
    assert report.fitting(2048, 98, 100, 80) == 14
    # The class's share is what bounds a large machine.
    assert report.fitting(100_000, 98, 100, 80) == 727
    assert report.fitting(256, 98, 100, 80) == 0
    assert report.fitting(2048, 98, 0, 80) == 0


def test_page_chart_and_capacity_are_made_of_what_was_measured(tmp_path: Path) -> None:
    figures = [CPU, Figure("memory of the services", "MiB", 20, {STOCK: 200.0, OURS: 300.0, FORKED: 400.0})]
    for kind, size in (("idle", 25.0), ("with a kernel", 50.0), ("with a kernel and pandas", 100.0)):
        values: dict[str, float | None] = {STOCK: 2 * size, OURS: size, FORKED: size / 2}
        figures.append(Figure(f"memory of one person, {kind}", "MiB", 20, values))
    outcome = {
        "name": "start", "at": "2026-12-01T05:00Z", "release": "bookworm", "cores": 2, "memory_gib": 4, "load": 0.1,
        "load_after": 2.0, "figures": [one.as_dict() for one in figures], "details": {},
    }  # fmt: skip
    (tmp_path / "start.json").write_text(json.dumps(outcome))
    (tmp_path / "of-an-older-version.json").write_text("{}")
    report.write(tmp_path, tmp_path / "docs", 80)
    page = (tmp_path / "docs/benchmarks.md").read_text()
    assert "bookworm, 2 cores, 4 GiB" in page
    assert "| CPU of one start (s) | 20 | 2.5 | 1 | 0.1 |" in page
    ElementTree.fromstring((tmp_path / "docs/benchmarks.svg").read_text())
    fits = (tmp_path / "docs/_capacity_figures.md").read_text()
    room = min(4096 - 350 - 400, 4096 * 0.8)
    assert f"| 4 GB | {FORKED} | {int(room / 1.1 / 12.5)} | {int(room / 1.1 / 25)} | {int(room / 1.1 / 50)} |" in fits
