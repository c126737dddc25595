"""The bell rings: a class comes at once, and one of them has a home in which no server starts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person

BROKEN = "bell00"
CLASS = [f"bell{number:02}" for number in range(1, 17)]


@dataclass
class Saw:
    """What one person saw between Start and Lab."""

    name: str
    messages: list[str] = field(default_factory=list)
    ready: float | None = None
    lab: int = 0

    @property
    def before(self) -> list[int]:
        """The numbers in "N before you."."""
        return [int(found[1]) for said in self.messages if (found := re.fullmatch(r"(\d+) before you\.", said))]


def start(person: Person) -> Saw:
    """Press Start, read what the page of progress reads, open Lab."""
    saw = Saw(person.name)
    person.get("/hub/spawn")
    url = f"{person.url}/hub/api/users/{person.name}/server/progress?_xsrf={person.xsrf('/hub/')}"
    with person.session.get(url, stream=True, timeout=600) as stream:
        assert stream.status_code == 200, stream.text
        for line in stream.iter_lines():
            event = json.loads(line[5:]) if line.startswith(b"data:") else {}
            if event:
                saw.messages.append(event["message"])
            if event.get("failed"):
                return saw
            if event.get("ready"):
                break
    saw.ready = time.monotonic()
    saw.lab = person.get(f"{person.base}lab").status_code
    return saw


@pytest.fixture
def people(classroom: Classroom) -> Iterator[dict[str, Person]]:
    """The class, signed in; the home of `BROKEN` ends every server."""
    names = [BROKEN, *CLASS]
    classroom.cli("user", "add", *names)
    settings = f"/home/{BROKEN}/.jupyter/jupyter_server_config.py"
    classroom.machine.run(["mkdir", "-p", f"/home/{BROKEN}/.jupyter"], user=BROKEN)
    classroom.machine.write_text(settings, "c.ServerApp.max_body_size = 'a lot'\n")
    yield {name: classroom.sign_in(name) for name in names}
    classroom.machine.run(["rm", "-f", settings])
    classroom.cli("user", "stop", *names)


def arrive(people: dict[str, Person], pool: ThreadPoolExecutor) -> dict[str, Future[Saw]]:
    """Everybody presses Start, in this order: the next one when the hub has heard the one before."""
    coming = {}
    for name, person in people.items():
        coming[name] = pool.submit(start, person)
        while not person.hub_api("GET", f"users/{name}")["servers"].get("", {}).get("pending"):
            assert not coming[name].done(), coming[name].result()
            time.sleep(0.05)
    return coming


def test_all_come_at_once_and_one_home_is_broken(classroom: Classroom, people: dict[str, Person]) -> None:
    """Everybody else works, in the order in which they came, told how many are before them; who is broken is told."""
    since = classroom.machine.run(["date", "+%s"]).stdout.strip()
    width = 2 * int(classroom.machine.run(["nproc"]).stdout)
    supervisor = ["systemctl", "kill", "illumidesk-supervisor.service"]
    with ThreadPoolExecutor(len(people)) as pool:
        # However fast servers start: the first ones wait here, as slow ones would, until all have come.
        classroom.machine.run([*supervisor, "--signal=STOP"])
        try:
            coming = arrive(people, pool)
            time.sleep(3)  # the last ones' page is told where they stand
        finally:
            classroom.machine.run([*supervisor, "--signal=CONT"])
        saw = {name: done.result() for name, done in coming.items()}

    broken = saw.pop(BROKEN)
    assert [one.lab for one in saw.values()] == [200] * len(CLASS), saw
    assert broken.ready is None
    assert "Your server stopped while it started" in broken.messages[-1]
    assert "~/.jupyter" in broken.messages[-1]
    # The page that the person then sees says it, too, and not only that something went wrong.
    page = people[BROKEN].get(f"/hub/spawn-pending/{BROKEN}")
    assert "Your server stopped while it started" in page.text

    # Who waited was told so, and the number only fell.
    for place, (name, one) in enumerate(saw.items(), start=1):
        if place >= width + 1:
            assert one.before, (name, one)
            assert one.before[0] >= place - width - 1, (name, one)
        assert one.before == sorted(one.before, reverse=True), (name, one)
    assert max(saw[CLASS[-1]].before) >= len(CLASS) - width - 1

    # In order of arrival, as far as those who start at the same time have one.
    started = unit_starts(classroom, since)
    assert sorted(name for name in started if name != BROKEN) == CLASS
    for place, name in enumerate(CLASS, start=1):
        assert abs(started.index(name) - place) < width, started
    # Tried once more, and no more; and the second try was behind those who waited by then.
    assert started.count(BROKEN) == 2, started
    assert started.index(BROKEN) < width
    assert len(started) - 1 - started[::-1].index(BROKEN) >= len(started) - width, started


def unit_starts(classroom: Classroom, since: str) -> list[str]:
    """Whose unit systemd began to start, in order."""
    journal = classroom.machine.run(
        [
            "journalctl",
            "-t",
            "systemd",
            "--since",
            f"@{since}",
            "-o",
            "json",
            "--no-pager",
            "-g",
            "^Starting jupyter-bell",
        ]
    ).stdout
    names = []
    for line in journal.splitlines():
        entry = json.loads(line)
        found = re.fullmatch(r"jupyter-(bell\d+)\.service", entry.get("UNIT", ""))
        if found:
            names.append(found[1])
    return names


def test_a_start_that_fails_once_is_tried_again(classroom: Classroom) -> None:
    """A home that breaks the first try and not the second: the person notices nothing."""
    classroom.cli("user", "add", "bell-once")
    settings = "/home/bell-once/.jupyter/jupyter_server_config.py"
    classroom.machine.run(["mkdir", "-p", "/home/bell-once/.jupyter"], user="bell-once")
    classroom.machine.write_text(
        settings, "import pathlib\npathlib.Path(__file__).unlink()\nc.ServerApp.max_body_size = 'a lot'\n"
    )
    classroom.machine.run(["chown", "bell-once:", "/home/bell-once/.jupyter", settings])
    person = classroom.sign_in("bell-once")
    person.start_server()
    assert person.run("5*4") == "20"
    assert "trying once more" in classroom.journal("illumidesk-hub", 200)
    classroom.cli("user", "stop", "bell-once")
