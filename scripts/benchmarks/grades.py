"""A class's grades in one send, to a platform on this machine: all new, a tenth changed, none changed."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.figures import OURS, Figure
from illumidesk.grades.deliver import deliver
from illumidesk.grades.sender import Sender
from illumidesk.lti.keys import key_set, new_key
from illumidesk.lti.services import Services
from illumidesk.registry import Registry
from illumidesk.registry.grades import Wanted
from tests.support.lms import lms
from tests.support.lms_services import Services as Platform
from tests.support.lms_thread import served


def memory() -> int:
    """This process's resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


async def until(done: Callable[[], bool]) -> None:
    """Wait, looking ten times a second."""
    while not done():  # noqa: ASYNC110 -- the registry tells nobody
        await asyncio.sleep(0.1)


def measure(students: int) -> tuple[list[Figure], dict[str, Any]]:
    """One send of that many grades by AGS, then one in which a tenth has changed, then one in which nothing has."""
    kid, private = new_key()
    key = SimpleNamespace(kid=kid, private=private)
    one = lms("canvas", 1)
    services = Platform(client_id=one.client_id, tool_keys=lambda: key_set([key]))
    one.services = services

    async def keys() -> list[Any]:
        return [key]

    with served(one), tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "registry.sqlite")
        added, _ = registry.add_platform(
            "LMS",
            "1.3",
            issuer=one.issuer,
            client_id=one.client_id,
            auth_url=one.auth_url,
            jwks_url=one.jwks_url,
            token_url=services.token_url,
            deployments=["1"],
            insecure=True,
        )
        course, _ = registry.ensure_context(added.id, "c", ["bench"])
        names = []
        for number in range(students):
            name, _ = registry.ensure_identity(added.id, f"s-{number}", [f"s{number}"])
            registry.set_membership(course, name, "student", source="launch")
            services.members.append({"user_id": f"s-{number}", "roles": ["Learner"]})
            names.append(name)
        services.line_items[1] = {"label": "ps1", "scoreMaximum": 10, "resourceId": "ps1"}
        context = registry.context(added.id, "c")
        assert context is not None  # noqa: S101 -- just made
        column = registry.grades.set_column(
            context, "ps1", source="made", label="ps1", line_item=services.line_item_url(1)
        )

        async def send(scores: dict[str, float]) -> dict[str, Any]:
            asked, before = len(services.asked), len(services.accepted)
            client = Services(keys, loopback=True)
            sender = Sender(registry.grades, partial(deliver, client))
            sender.start()
            resident, began, cpu = memory(), time.perf_counter(), time.process_time()
            registry.grades.want(column.id, [Wanted(name, score, 10) for name, score in scores.items()])
            queued = time.perf_counter() - began
            sender.wake()
            await until(lambda: {row.state for _, row in registry.grades.deliveries(course)} == {"sent"})
            figures = {
                "queued_s": round(queued, 3),
                "all_there_s": round(time.perf_counter() - began, 2),
                # The platform's side is in this process, too.
                "cpu_s": round(time.process_time() - cpu, 2),
                "requests": len(services.asked) - asked,
                "by_kind": dict(Counter(one.kind for one in services.asked[asked:])),
                "accepted": len(services.accepted) - before,
                "memory_more_mib": round((memory() - resident) / (1 << 20), 1),
            }
            await sender.stop()
            await client.close()
            return figures

        every = {name: number % 11 for number, name in enumerate(names)}
        tenth = {name: score + (number % 10 == 0) for number, (name, score) in enumerate(every.items())}
        result = {
            "all are new": asyncio.run(send(every)),
            "a tenth has changed": asyncio.run(send(tenth)),
            "nothing has changed": asyncio.run(send(tenth)),
        }
        registry.close()
    figures = [
        Figure(f"grades of a class in one send, {case}", "s", students, {OURS: found["all_there_s"]})
        for case, found in result.items()
    ]
    return figures, result
