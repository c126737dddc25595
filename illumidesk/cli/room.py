"""How many more people fit into a machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Bytes that one person is taken to need while nobody is online: a server and a kernel with numpy, pandas and
#: matplotlib, which were measured at 137 and 94 MB, and a tenth more.
PER_PERSON = 256 << 20
#: How many servers say enough of what a person needs. Fewer may all be idle, and then too many would be promised.
ENOUGH = 5


@dataclass(frozen=True)
class Room:
    """What is left.

    Args:
        people: how many more fit.
        per_person: bytes that each is taken to need; not less than `PER_PERSON` while fewer than `ENOUGH` are online.
        measured: how many people's servers that was measured at; 0 where it is `PER_PERSON`.
        bound: what ends first, the limit of all servers together or the machine's memory.
    """

    people: int
    per_person: int
    measured: int
    bound: Literal["class", "machine"]


def room(used: Sequence[int], *, available: int, class_limit: int | None, class_memory: int | None) -> Room:
    """How many more people fit, if they use what those online use.

    Swap does not count: a class that lives in it is slow.

    Args:
        used: bytes that each running server of a person uses.
        available: bytes that the machine can give without swapping (MemAvailable).
        class_limit: bytes that all servers together may use; None for no limit.
        class_memory: bytes that they use; None where that is not known.
    """
    # A server that has just begun to start says little of what it will need.
    measured = [memory for memory in used if memory >= PER_PERSON // 4]
    per_person = sum(measured) // len(measured) if measured else PER_PERSON
    if len(measured) < ENOUGH:
        per_person = max(per_person, PER_PERSON)
    of_class = available if class_limit is None else class_limit - (class_memory or 0)
    people = max(0, min(available, of_class) // per_person)
    return Room(people, per_person, len(measured), "class" if of_class < available else "machine")
