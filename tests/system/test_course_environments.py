"""A course's own environment on a real machine, and kernels of every environment in everybody's server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Kernel, Person

COURSE = "stats-with-a-long-name1"  # 23 characters, the longest that there is
ENVIRONMENT = f"course-{COURSE}"
LINK = f"/opt/illumidesk/envs/{ENVIRONMENT}"
FILE = f"/etc/illumidesk/environments/{ENVIRONMENT}.yml"
#: The TCP ports on which a kernel itself listens.
LISTENING = """
import os
own = set()
for fd in os.listdir('/proc/self/fd'):
    try: own.add(os.readlink(f'/proc/self/fd/{fd}'))
    except OSError: pass
lines = [line.split() for line in open('/proc/net/tcp')][1:]
print([line[1] for line in lines if line[3] == '0A' and f'socket:[{line[9]}]' in own])
"""
WHERE = "import sys, os; print(os.path.realpath(sys.prefix))"


def tidy(classroom: Classroom) -> None:
    for name in ("student1", "instructor1"):
        classroom.cli("user", "stop", name, check=False)
    classroom.cli("course", "remove", COURSE, "--yes", check=False)
    for name in ("bio", "second", ENVIRONMENT):
        classroom.cli("env", "remove", name, "--yes", check=False)
    classroom.cli("kernel", "remove", "r", check=False)
    classroom.machine.run(["rm", "-rf", "/srv/bio"])


@pytest.fixture(scope="module")
def course(classroom: Classroom) -> Iterator[Classroom]:
    """A machine with a course that has a package of its own."""
    tidy(classroom)
    classroom.cli("course", "create", COURSE, "--instructor", "instructor1")
    classroom.cli("enroll", COURSE, "student1")
    said = classroom.cli("course", "env", COURSE, "add", "wonderwords").stdout
    assert f"The environment {ENVIRONMENT} is ready" in said
    yield classroom
    tidy(classroom)


@pytest.fixture
def student(course: Classroom) -> Person:
    person = course.sign_in("student1")
    person.start_server()
    return person


def kernel(person: Person, name: str, *, base: str | None = None) -> Kernel:
    base = base or person.base
    return Kernel(person, base, person.server("POST", "api/kernels", {"name": name}, base=base)["id"])


def kernels(person: Person) -> dict[str, str]:
    specs = person.server("GET", "api/kernelspecs")["kernelspecs"]
    return {name: one["spec"]["display_name"] for name, one in specs.items()}


def realpath(classroom: Classroom, path: str = LINK) -> str:
    return classroom.machine.run(["realpath", path]).stdout.strip()


def test_a_student_chooses_the_courses_kernel(course: Classroom, student: Person) -> None:
    shown = kernels(student)
    assert shown[f"{ENVIRONMENT}-python3"] == f"Python 3 ({COURSE})"
    assert shown["default-python3"] == "Python 3 (default)"
    here = kernel(student, f"{ENVIRONMENT}-python3")
    assert here.run(WHERE) == f"{realpath(course)}\n"
    assert here.run("import wonderwords; print('here')") == "here\n"
    program = (
        "import subprocess; print(subprocess.run('which python', shell=True, capture_output=True, text=True).stdout)"
    )
    assert here.run(program).strip() == f"{realpath(course)}/bin/python"
    other = kernel(student, "default-python3")
    assert other.run(WHERE) == f"{realpath(course, '/opt/illumidesk/envs/default')}\n"
    assert "ModuleNotFoundError" in other.run(
        "try: import wonderwords\nexcept ImportError as e: print(type(e).__name__)"
    )
    assert here.run(LISTENING) == "[]\n"


def test_a_package_that_cannot_be_had_leaves_the_old_one(course: Classroom, student: Person) -> None:
    before = realpath(course), course.machine.read_text(FILE)
    done = course.cli("course", "env", COURSE, "add", "no-such-package-of-illumidesk", check=False)
    assert done.returncode == 1
    assert "no-such-package-of-illumidesk" in done.stderr
    assert "Traceback" not in done.stderr
    assert (realpath(course), course.machine.read_text(FILE)) == before
    done = course.cli("course", "env", COURSE, "add", "git+https://example.org/x", check=False)
    assert "is an address or a path" in done.stderr
    assert "had them already" in course.cli("course", "env", COURSE, "add", "wonderwords").stdout, "again"
    assert realpath(course) == before[0]


def test_the_grader_runs_from_it(course: Classroom) -> None:
    teacher = course.sign_in("instructor1")
    base = f"/services/{COURSE}/"
    deadline = time.monotonic() + 180
    while "JupyterLab" not in (page := teacher.get(f"{base}lab")).text:
        assert time.monotonic() < deadline, page.text[:2000]
        time.sleep(1)
    assert teacher.run(WHERE, base=base) == f"{realpath(course)}\n"
    make = f"""
import os, pathlib, subprocess, nbformat
from nbformat.v4 import new_notebook, new_code_cell
root = pathlib.Path.home() / {COURSE!r}
source = root / 'source/ps1'; source.mkdir(parents=True)
def cell(text, **more):
    about = {{'schema_version': 3, 'task': False, 'locked': False, 'grade': False, 'solution': False, **more}}
    return new_code_cell(text, metadata={{'nbgrader': about}})
own = cell("### BEGIN SOLUTION\\nimport wonderwords\\nanswer = 42\\n### END SOLUTION", grade_id='s', solution=True)
test = cell("import wonderwords\\nassert answer == 42", grade_id='t', grade=True, locked=True, points=3)
nb = new_notebook(cells=[own, test], metadata={{'kernelspec': {{'name': '{ENVIRONMENT}-python3',
  'display_name': 'x', 'language': 'python'}}}})
nbformat.write(nb, source / 'one.ipynb')
def run(*argv):
    done = subprocess.run(['nbgrader', *argv], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
run('generate_assignment', 'ps1')
handed = root / 'submitted/student1/ps1'; handed.mkdir(parents=True)
nbformat.write(nb, handed / 'one.ipynb')
run('autograde', 'ps1', '--create')
from nbgrader.api import Gradebook
with Gradebook('sqlite:///' + str(root / 'gradebook.db')) as book:
    print(book.find_submission('ps1', 'student1').score)
"""
    assert teacher.run(make, base=base) == "3.0\n"


def test_a_registered_venv_and_another_environment(course: Classroom, student: Person) -> None:
    uv = "/opt/illumidesk/bootstrap/bin/uv"
    course.machine.run([uv, "venv", "--quiet", "--python", "/usr/bin/python3", "/srv/bio"])
    course.machine.run([uv, "pip", "install", "--quiet", "--python", "/srv/bio/bin/python", "ipykernel"])
    course.machine.run(["chmod", "-R", "go-w,a+rX", "/srv/bio"])
    course.cli("env", "register", "bio", "/srv/bio")
    assert kernels(student)["bio-python3"] == "Python 3 (bio)"
    assert kernel(student, "bio-python3").run(WHERE) == "/srv/bio\n"
    assert kernel(student, "bio-python3").run(LISTENING) == "[]\n"
    course.cli("env", "remove", "bio", "--yes")
    assert "bio-python3" not in kernels(student)


def test_kernels_follow_builds_and_keep_theirs(course: Classroom, student: Person) -> None:
    old = realpath(course)
    running = kernel(student, f"{ENVIRONMENT}-python3")
    running.run("before = 40")
    course.cli("course", "env", COURSE, "add", "cowsay")
    assert realpath(course) != old
    assert running.run("import wonderwords; print(before + 2)") == "42\n"
    assert running.run(WHERE) == f"{old}\n"
    assert kernel(student, f"{ENVIRONMENT}-python3").run("import cowsay; print(1)") == "1\n"
    course.cli("course", "env", COURSE, "remove", "cowsay")
    assert "cowsay" not in course.machine.read_text(FILE)


def test_killed_in_the_middle(course: Classroom, student: Person) -> None:
    before = realpath(course), course.machine.read_text(FILE)
    script = f"""
    illumidesk course env {COURSE} add cowsay & pid=$!
    until compgen -G '/opt/illumidesk/builds/{ENVIRONMENT}-*/bin/python' | grep -qv {before[0]}; do sleep 0.05; done
    kill -9 $pid; wait $pid; echo "status $?"
    """
    assert "status 137" in course.machine.run(["bash", "-c", script], check=False, timeout=300).stdout
    assert (realpath(course), course.machine.read_text(FILE)) == before
    assert kernel(student, f"{ENVIRONMENT}-python3").run("import wonderwords; print(1)") == "1\n"
    assert "is ready" in course.cli("course", "env", COURSE, "add", "cowsay").stdout
    assert kernel(student, f"{ENVIRONMENT}-python3").run("import cowsay; print(1)") == "1\n"


def test_an_instructor_asks_and_root_grants(course: Classroom) -> None:
    teacher = course.sign_in("instructor1")
    page = f"{course.url}/hub/courses/{COURSE}/environment"
    teacher.get(page)
    for package in ("humanize", "no-such-package-of-illumidesk"):
        form = {"packages": package, "_xsrf": teacher.xsrf("/hub/")}
        assert teacher.session.post(page, data=form, timeout=60).status_code == 200
    assert [one["requirement"] for one in course.cli_json("env", "requests")] == [
        "humanize",
        "no-such-package-of-illumidesk",
    ]
    assert "2 packages are asked for" in course.cli("status", check=False).stdout
    said = course.cli("course", "env", COURSE, "add", "--requested", check=False)
    assert "no-such-package-of-illumidesk" in said.stderr
    course.cli("course", "env", COURSE, "decline", "no-such-package-of-illumidesk", "--reason", "There is none")
    course.cli("course", "env", COURSE, "add", "--requested")
    assert course.cli_json("env", "requests") == []
    text = teacher.get(page).text
    assert "There is none" in text
    assert "humanize" in text
    report = course.cli_json("course", "env", COURSE, "show")
    assert (report["environment"], report["based_on"]) == (ENVIRONMENT, "default")
    assert "humanize" in report["packages"]


def test_r_in_every_server(course: Classroom, student: Person) -> None:
    course.machine.run(["illumidesk", "kernel", "install", "r"], timeout=900)
    assert kernels(student)["ir"] == "R"
    assert "[1] 2" in kernel(student, "ir").run("1+1")
    assert {"name": "ir", "title": "R", "environment": None} in json.loads(
        course.cli("kernel", "list", "--json").stdout
    )
    course.cli("kernel", "remove", "r")
    assert "ir" not in kernels(student)


def test_reset(course: Classroom, student: Person) -> None:
    course.cli("course", "env", COURSE, "reset", "--yes")
    assert f"{ENVIRONMENT}-python3" not in kernels(student)
    assert course.cli_json("course", "env", COURSE, "show")["environment"] == "default"
    assert ENVIRONMENT not in course.machine.run(["ls", "/opt/illumidesk/envs"]).stdout
    assert kernels(student) == {"python3": "Python 3 (ipykernel)"}
