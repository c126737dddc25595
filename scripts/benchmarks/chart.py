"""A chart as SVG: what each system needs, as a multiple of what stock needs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.figures import FORKED, OURS, STOCK, Figure

COLOURS = {STOCK: "#9aa5b1", OURS: "#f37726", FORKED: "#2b6cb0"}
WIDTH, LEFT, BAR, GAP = 860, 350, 14, 12
#: The multiple of stock at the right end; a longer bar ends there, with its number.
END = 1.25


def chart(figures: Sequence[Figure], title: str) -> str:
    """Bars of those figures of which less is better and stock has a value.

    Args:
        figures: as they were measured, in the order of the chart.
        title: above the chart, and for who cannot see it.
    """
    shown = [one for one in figures if one.less and one.values.get(STOCK)]
    systems = [name for name in COLOURS if any(one.values.get(name) is not None for one in shown)]
    scale = (WIDTH - LEFT - 70) / END
    y, parts = 64, []
    for figure in shown:
        bars = [(name, figure.ratio(name)) for name in systems]
        present = [(name, ratio) for name, ratio in bars if ratio is not None]
        middle = y + len(present) * BAR / 2 + 4
        people = f" ({figure.people} people)" if figure.people else ""
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(figure.what + people)}</text>')
        for name, ratio in present:
            length = min(ratio, END) * scale
            value = f"{figure.values[name]:g} {figure.unit}" if name == STOCK else f"{ratio:.2f}×"
            parts.append(
                f'<rect x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>'
                f'<text x="{LEFT + length + 5:.1f}" y="{y + BAR - 4}" class="value">{escape(value)}</text>'
            )
            y += BAR
        y += GAP
    legend, x = [], LEFT
    for name in systems:
        legend.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[name]}"/>')
        legend.append(f'<text x="{x + 17}" y="46">{escape(name)}</text>')
        x += 40 + 8 * len(name)
    one = f"{LEFT + scale:.1f}"
    line = f'<line x1="{one}" x2="{one}" y1="58" y2="{y}" stroke="#9aa5b1" stroke-dasharray="3"/>'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" width="{WIDTH}" role="img">',
            f"<title>{escape(title)}</title>",
            "<style>text{font:13px sans-serif;fill:#1f2933}.value{font-size:11px}.title{font-size:16px}</style>",
            f'<rect width="{WIDTH}" height="{y + 8}" fill="#fff"/>',
            f'<text x="12" y="24" class="title">{escape(title)}</text>',
            *legend,
            line,
            *parts,
            "</svg>\n",
        ]
    )
