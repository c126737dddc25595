"""Measure what matters to a class; prints a table and writes JSON into artefacts/bench. `scripts/bench` starts it.

    scripts/bench grades                 300 grades in one send, to a platform on this machine
    scripts/bench grades --students 50
    scripts/bench workspaces --machine M memory of each workspace, on a machine where vscode and theia are installed
    scripts/bench paint                  from the click in an LMS to a notebook, in Chromium: seconds and bytes
    scripts/bench start                  20 servers at once on a throwaway machine, forked and by themselves (root)

Figures are of this machine; compare them with figures of the same run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bench_start  # noqa: E402

from illumidesk.grades.deliver import deliver  # noqa: E402
from illumidesk.grades.sender import Sender  # noqa: E402
from illumidesk.lti.keys import key_set, new_key  # noqa: E402
from illumidesk.lti.services import Services  # noqa: E402
from illumidesk.registry import Registry  # noqa: E402
from illumidesk.registry.grades import Wanted  # noqa: E402
from tests.support.lms import lms  # noqa: E402
from tests.support.lms_services import Services as Platform  # noqa: E402
from tests.support.lms_thread import served  # noqa: E402


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


def grades(students: int) -> dict[str, Any]:
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
    return {"students": students, **result}


def paint(rounds: int) -> dict[str, Any]:
    """First and second opening of Lab by the link in an LMS, as the servers alone answer and as the proxy helps.

    Both ways alternate. At the first opening nothing runs and the browser is new; at the second the person's server
    runs and the browser has been there. Medians of `rounds`.
    """
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import QUIET
    from tests.integration.conftest import build_proxy, running_stack
    from tests.support.paint import Opening, Wire, click_to_notebook, opening, own_browser

    settings = {"sign_in": {"lti": {"loopback_platforms": True}}}

    def once(folder: Path, program: Path, *, static: bool) -> tuple[Opening, Opening]:
        with (
            running_stack(program, settings, static=static) as stack,
            Wire(stack.url).relaying() as wire,
            served(lms("moodle", 1, tool=wire.url)) as platform,
            sync_playwright() as playwright,
            own_browser(playwright, folder, QUIET) as context,
        ):
            body = {"name": "Moodle", "version": "1.1", "key": platform.key, "secret": platform.secret}
            stack.expect(201, "POST", "platforms", body)
            course = f"{platform.jwks_url.removesuffix('/jwks')}/course?version=1.1&who=student&sub=s1"

            def click(page: Any) -> None:
                click_to_notebook(page, course)

            first = opening(wire, context.new_page(), click)
            context.pages[-1].close()
            return first, opening(wire, context.new_page(), click)

    found: dict[bool, list[tuple[Opening, Opening]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        program = build_proxy(Path(name))
        for number in range(rounds):
            for static, openings in found.items():
                openings.append(once(Path(name) / f"browser-{number}-{static}", program, static=static))
    result: dict[str, Any] = {}
    for static, openings in found.items():
        first, second = ([pair[which] for pair in openings] for which in (0, 1))
        firsts, seconds = (median(one.received for one in some) for some in (first, second))
        result["files from the proxy" if static else "files from people's servers"] = {
            "first_kib": round(firsts / 1024),
            "second_kib": round(seconds / 1024),
            "second_percent": round(100 * seconds / firsts, 1),
            "first_s": median(one.seconds for one in first),
            "second_s": median(one.seconds for one in second),
        }
    return {"rounds": rounds, **result}


def workspaces(machine: str, port: int) -> dict[str, Any]:
    """Memory of each workspace."""
    from benchmarks.workspaces import measure
    from machine import Machine

    from tests.support.classroom import Classroom

    return measure(Classroom(Machine.attach(machine), port))


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_grades = kinds.add_parser("grades", help="one send of many grades")
    of_grades.add_argument("--students", type=int, default=300)
    of_paint = kinds.add_parser("paint", help="first and second opening of Lab in a browser")
    of_paint.add_argument("--rounds", type=int, default=3)
    of_workspaces = kinds.add_parser("workspaces", help="memory of each workspace with its page open")
    of_workspaces.add_argument("--machine", required=True, help="an installed throwaway machine with vscode and theia")
    of_workspaces.add_argument("--port", type=int, default=8090)
    of_start = kinds.add_parser("start", help="people's servers, forked and by themselves")
    of_start.add_argument("--servers", type=int, default=20)
    of_start.add_argument("--machine", default="", help="an installed machine; made and thrown away by default")
    of_start.add_argument("--port", type=int, default=8090)
    arguments = parser.parse_args()
    match arguments.kind:
        case "paint":
            result = paint(arguments.rounds)
        case "workspaces":
            result = workspaces(arguments.machine, arguments.port)
        case "start":
            result = bench_start.start(arguments.servers, arguments.machine, arguments.port)
        case _:
            result = grades(arguments.students)
    folder = ROOT / "artefacts" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
    }
    (folder / f"{arguments.kind}.json").write_text(json.dumps({**about, **result}, indent=2) + "\n")
    for name, figures in result.items():
        if isinstance(figures, dict):
            print(f"{name}:")
            for figure, value in figures.items():
                print(f"  {figure:<18}{value}")


if __name__ == "__main__":
    main()
