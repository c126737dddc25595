"""Measurements of what matters to a class, ours beside a stock JupyterHub on the same machine.

`scripts/bench` runs them (`__main__.py`): one module here per measurement, and what they share:

- `rooms`: our class, and a stock JupyterHub with the same packages, in one throwaway machine.
- `visitor`: somebody with a browser's cookies and patience.
- `processes`: CPU and memory of units, as the kernel counts them.
- `figures`: what a measurement answers, and how figures are told: medians, percentiles, growth.
- `chart`, `report`: the pages for people.
"""
