"""Packages that people ask for by name: requirement specifiers (PEP 508) of an index, and nothing else.

https://packaging.python.org/en/latest/specifications/dependency-specifiers/
"""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from illumidesk.errors import IllumiDeskError

#: Longest requirement, in characters.
MAX_REQUIREMENT = 200

_HINT = "give a name as PyPI has it, with versions where needed, such as pandas or numpy>=2"


def check_requirement(text: str) -> str:
    """`text` as a requirement in the usual form: `Numpy >= 2` becomes `Numpy>=2`.

    Addresses, paths, options and environment markers are refused: whoever asks says what, not from where.

    Raises:
        IllumiDeskError: where it is none.
    """
    text = text.strip()
    shown = repr(text if len(text) <= 60 else text[:57] + "…")
    if len(text) > MAX_REQUIREMENT:
        raise IllumiDeskError(f"{shown} is too long for a package", hint=_HINT)
    if text.startswith("-"):
        raise IllumiDeskError(f"{shown} is an option, not a package", hint=_HINT)
    if "@" in text or "/" in text or "\\" in text:
        raise IllumiDeskError(f"{shown} is an address or a path, not the name of a package", hint=_HINT)
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise IllumiDeskError(f"{shown} is not a package", hint=_HINT) from None
    if requirement.marker is not None:
        raise IllumiDeskError(f"{shown} has a condition behind the package", hint="leave out what follows the ;")
    return str(requirement)


def check_requirements(texts: Iterable[str]) -> list[str]:
    """Several of them, each package once.

    Raises:
        IllumiDeskError: as `check_requirement`; where there is none, or a package is named twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        requirement = check_requirement(text)
        name = package_name(requirement)
        if found.get(name, requirement) != requirement:
            raise IllumiDeskError(f"{found[name]} and {requirement} are the same package", hint="name it once")
        found[name] = requirement
    if not found:
        raise IllumiDeskError("no package is named", hint=_HINT)
    return list(found.values())


def package_name(requirement: str) -> str:
    """The package that a checked requirement names, as PyPI compares names."""
    return canonicalize_name(Requirement(requirement).name)
