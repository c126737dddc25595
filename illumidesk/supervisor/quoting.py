"""Writing for systemd: environment files and words of a command line. Pure functions.

The rules are those of systemd's `env-file.c` and `extract-word.c`; the system tests read both back from a
real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: What a backslash protects inside double quotes (SHELL_NEED_ESCAPE in systemd).
_IN_DOUBLE_QUOTES = str.maketrans({c: f"\\{c}" for c in '"\\`$'})
_IN_WORDS = str.maketrans({c: f"\\{c}" for c in "\"'\\ \t\n\r"})


def environment_file(variables: Mapping[str, str]) -> str:
    """The text of an `EnvironmentFile=` from which a unit gets exactly `variables`."""
    return "".join(f'{name}="{value.translate(_IN_DOUBLE_QUOTES)}"\n' for name, value in variables.items())


def words(arguments: Iterable[str]) -> str:
    """`arguments` (none of them empty) as one value that systemd splits again where it meets a bare
    `$NAME`.
    """
    return " ".join(argument.translate(_IN_WORDS) for argument in arguments)
