"""What every nbgrader process of a grader does otherwise: config/nbgrader/grader_nbgrader_config.py installs it."""

from __future__ import annotations

from illumidesk.grader import database, extensions


def install() -> None:
    """Open gradebooks patiently, and let extensions of single students count. May be called again."""
    database.install()
    extensions.install()
