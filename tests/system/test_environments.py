"""Environments on a real machine: one of conda packages for learners, built and renewed while people work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.classroom import SOURCE, Classroom
from tests.support.person import Person
from tests.support.ways import Way, how

CHANNEL = "/srv/channel"
ETC = "/etc/illumidesk/environments"
DESCRIPTION = f"""\
# for learners
name: learn
channels: ['file://{CHANNEL}']
dependencies:
  - python
  - greeting
  - tool
"""


def channel(classroom: Classroom, code: str) -> None:
    """Do something with the channel on the machine, on its own Python."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r})\nfrom pathlib import Path\n"
    program += f"from tests.support.packages import CondaChannel, PLACEHOLDER\nplace = Path({CHANNEL!r})\n"
    classroom.machine.run(["/usr/bin/python3", "-c", f"{program}{code}"])


def remove(classroom: Classroom) -> None:
    for key in ("roles.learner.environment", "fork_server.enabled"):
        classroom.cli("config", "unset", key, check=False)
    classroom.cli("config", "reload")
    classroom.cli("user", "stop", "student1", "instructor1", "learn1", "learn2", check=False)
    for name in ("learn", "copy", "mine"):
        classroom.cli("env", "remove", name, "--yes", check=False)
    classroom.machine.run(["rm", "-rf", CHANNEL, "/root/learn.yml", "/srv/venv"])


@pytest.fixture(scope="module")
def learn(classroom: Classroom) -> Iterator[Classroom]:
    """A machine with the environment `learn`, which learners have."""
    remove(classroom)
    made = "made = CondaChannel(place); made.add_python(); made.add_module('greeting')\n"
    channel(classroom, f"{made}made.add('tool', files={{'bin/tool': f'#!/bin/sh\\necho {{PLACEHOLDER}}\\n'}})")
    classroom.machine.write_text("/root/learn.yml", DESCRIPTION)
    said = classroom.cli("env", "create", "--file", "/root/learn.yml")
    assert "The environment learn is ready" in said.stdout
    classroom.cli("config", "set", "roles.learner.environment", "learn")
    classroom.cli("config", "reload")
    yield classroom
    remove(classroom)


def restarted(classroom: Classroom, name: str) -> Person:
    """Somebody whose server was started now."""
    classroom.cli("user", "stop", name, check=False)
    person = classroom.sign_in(name)
    person.start_server()
    return person


PREFIX = "import sys, os; print(os.path.realpath(sys.prefix))"


def test_by_role(learn: Classroom) -> None:
    student, teacher = restarted(learn, "student1"), restarted(learn, "instructor1")
    assert student.run("import greeting; print(greeting.VERSION)") == "1.0\n"
    tool = student.run("import subprocess; print(subprocess.run('tool', capture_output=True, text=True).stdout)")
    assert tool.startswith("/opt/illumidesk/builds/learn-")
    assert teacher.run(PREFIX).startswith("/opt/illumidesk/builds/default-")
    assert student.run(PREFIX).startswith("/opt/illumidesk/builds/learn-")
    listed = {one["name"]: one for one in learn.cli_json("env", "list")}
    assert (listed["learn"]["kind"], listed["learn"]["state"], listed["learn"]["roles"]) == (
        "conda",
        "ready",
        ["learner"],
    )
    assert (listed["default"]["kind"], listed["default"]["state"]) == ("pip", "ready")


def test_root_alone_may_change_it_and_everybody_read_it(learn: Classroom) -> None:
    build = learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout.strip()
    wrong = "! -type l ( -perm /022 -o ! -perm -444 -o ! -uid 0 )"
    found = learn.machine.run(["find", build, *wrong.split()])
    assert found.stdout == ""
    assert "conda-meta" in learn.machine.run(["ls", build], user="student1").stdout
    listed = learn.machine.run(["illumidesk", "env", "list", "--json"], user="student1").stdout
    assert {one["name"]: one["state"] for one in json.loads(listed)} == {"default": "ready", "learn": "ready"}
    compiled = learn.machine.run(["bash", "-c", f"ls {build}/lib/python3*/site-packages/__pycache__/greeting.*.pyc"])
    assert compiled.stdout


def test_update_while_a_class_works(learn: Classroom) -> None:
    """Whoever works goes on in the build that they began with, forked or not; who comes meanwhile has either."""
    people = {}
    for name, person in (("ordinary", "learn1"), ("forked", "learn2")):
        way = Way(learn, name, environment="learn")
        way.choose()
        people[name] = way.student(person)
    kernels = [person.start_kernel() for person in people.values()]
    for kernel in kernels:
        kernel.run("before = 40")
    units = [f"jupyter-{person.name}.service" for person in people.values()]
    began = [learn.main_pid(unit) for unit in units]
    channel(learn, "made = CondaChannel(place); made.add_module('greeting', '2.0')")
    old = learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout.strip()
    version = "import greeting; print(greeting.VERSION)"
    seen = []
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(learn.cli, "env", "update", "learn")
        while not update.done():
            seen.append(restarted(learn, "student1").run(version))
    assert "with other packages than before" in update.result().stdout
    assert set(seen) <= {"1.0\n", "2.0\n"}
    for kernel in kernels:
        assert kernel.run(f"{version}; print(before + 2)") == "1.0\n42\n"
    assert [learn.main_pid(unit) for unit in units] == began
    assert {name: how(learn, person.name, "learn") for name, person in people.items()} == {
        name: name for name in people
    }
    assert learn.machine.run(["test", "-d", old], check=False).returncode == 0
    for person in ("student1", *(person.name for person in people.values())):
        assert restarted(learn, person).run(version) == "2.0\n"
        assert how(learn, person, "learn") == "forked"
    assert "was up to date" in learn.cli("env", "update", "learn").stdout
    assert learn.machine.run(["test", "-d", old], check=False).returncode == 1, "nothing runs from it any more"


def test_killed_in_the_middle(learn: Classroom) -> None:
    before = learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout
    big = "made.add(f'part{i}', files={f'share/{i}.bin': os.urandom(2_000_000)})"
    channel(learn, f"import os\nmade = CondaChannel(place)\nfor i in range(30): {big}")
    more = "".join(f"  - part{number}\n" for number in range(30))
    learn.machine.write_text("/root/learn.yml", DESCRIPTION + more)
    script = """
    illumidesk env update learn --file /root/learn.yml & pid=$!
    until compgen -G '/opt/illumidesk/builds/learn-*/share/*.bin' >/dev/null; do sleep 0.01; done
    kill -9 $pid; wait $pid; echo "status $?"
    """
    assert "status 137" in learn.machine.run(["bash", "-c", script], check=False).stdout
    assert learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout == before
    assert "part1" not in learn.machine.read_text(f"{ETC}/learn.yml")
    assert restarted(learn, "student1").run("import greeting; print(greeting.VERSION)") == "2.0\n"
    assert "with other packages" in learn.cli("env", "update", "learn", "--file", "/root/learn.yml").stdout
    builds = learn.machine.run(["bash", "-c", "ls -d /opt/illumidesk/builds/learn-*"]).stdout.split()
    assert len(builds) <= 2, "the one in use, and the one that a server runs from"


def test_an_unknown_environment_is_named(learn: Classroom) -> None:
    said = learn.cli("config", "set", "roles.learner.environment", "lern", check=False).stderr
    assert "did you mean learn?" in said
    said = learn.cli("env", "remove", "learn", "--yes", check=False).stderr
    assert "learn is in use: roles.learner.environment" in said


def test_the_installer_keeps_to_the_lock_and_says_how_each_is_built(learn: Classroom) -> None:
    before = learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout
    channel(learn, "made = CondaChannel(place); made.add_module('greeting', '3.0')")
    said = learn.install()
    assert f"learn: conda packages of file://{CHANNEL}" in said
    assert "default: Python packages alone, on /usr/bin/python3" in said
    assert learn.machine.run(["realpath", "/opt/illumidesk/envs/learn"]).stdout == before
    learn.cli("env", "clone", "learn", "copy")
    run = learn.cli("env", "run", "copy", "python", "-c", "import greeting; print(greeting.VERSION)")
    assert run.stdout == "2.0\n"


def test_a_registered_venv_serves_people(learn: Classroom) -> None:
    learn.machine.run(["python3", "-m", "venv", "--without-pip", "/srv/venv"])
    learn.machine.run(["chmod", "g+w", "/srv/venv/bin"])
    refused = learn.cli("env", "register", "mine", "/srv/venv", "--with-server", check=False)
    assert "/srv/venv/bin can be changed by others than root" in refused.stderr
    learn.machine.run(["chmod", "g-w", "/srv/venv/bin"])
    learn.cli("env", "register", "mine", "/srv/venv", "--with-server")
    learn.cli("config", "set", "roles.learner.environment", "mine")
    learn.cli("config", "reload")
    assert restarted(learn, "student1").run("import sys; print(sys.prefix)") == "/srv/venv\n"
