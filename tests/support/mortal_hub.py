"""The hub, which kills itself at a step of sending grades: `python -m tests.support.mortal_hub FILE`.

FILE holds a number once it is armed. Each step takes one from it, and at 0 the hub is gone as by `kill -9`. There is a
step before and after each write of the registry's part in grades, and before and after each request to a platform.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from illumidesk.hub.app import main
from illumidesk.lti.services import Services
from illumidesk.registry.grades import GradeRecords

ARMED = Path(sys.argv[1])
left: list[int] = []


def step() -> None:
    """One step nearer to the end, where it is armed."""
    if not left and ARMED.exists():
        left.append(int(ARMED.read_text()))
        ARMED.unlink()
    if left:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def around(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **more: Any) -> Any:
        step()
        result = method(*arguments, **more)
        step()
        return result

    return call


def around_request(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(*arguments: Any, **more: Any) -> Any:
        step()
        result = await method(*arguments, **more)
        step()
        return result

    return call


for name in ("want", "begin", "arrived", "held_up", "set_column"):
    setattr(GradeRecords, name, around(getattr(GradeRecords, name)))
Services.exchange = around_request(Services.exchange)  # type: ignore[method-assign]
sys.argv = ["illumidesk-hub"]
main()
