"""nbgrader's autograde: twenty submissions of two notebooks, as a course's grader account and in a stock environment.

Both grade the same submissions: the assignment is made, and handed in, in each place alike.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.figures import OURS, STOCK, Figure
from benchmarks.rooms import Rooms

COURSE, ASSIGNMENT, NOTEBOOKS = "bench101", "ps1", 2

#: The stock course: with what /etc/jupyter of this machine has from us set back to what nbgrader has.
STOCK_COURSE = f"""\
c = get_config()
c.CourseDirectory.course_id = "{COURSE}"
c.NotebookClient.kernel_manager_class = "jupyter_client.manager.AsyncKernelManager"
"""

#: Makes the course in its folder and hands in for everybody; then grades, and prints what that took.
_WORK = """
import json, os, resource, shutil, subprocess, sys, time
from pathlib import Path
course, students, notebooks = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
os.chdir(course)
for name in ("source", "release", "submitted", "autograded", "gradebook.db"):
    path = course / name
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
(course / "source/ps1").mkdir(parents=True)
for name, text in notebooks.items():
    (course / "source/ps1" / name).write_text(text)
def nbgrader(*argv):
    done = subprocess.run(["nbgrader", *argv], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
nbgrader("generate_assignment", "ps1", "--force")
for number in range(1, students + 1):
    shutil.copytree(course / "release/ps1", course / f"submitted/s{number:02}/ps1")
    nbgrader("db", "student", "add", f"s{number:02}")
before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
nbgrader("autograde", "ps1")
took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
graded = len(list((course / "autograded").glob("*/ps1/*.ipynb")))
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"graded": graded, "seconds": took, "cpu": cpu}))
"""


def notebook(number: int) -> str:
    """A notebook with two questions that are graded by themselves."""
    cells = []
    for question in (1, 2):
        key = f"q{number}{question}"
        meta = {"grade": False, "grade_id": key, "locked": False, "schema_version": 3, "solution": True, "task": False}
        test = {
            "grade": True, "grade_id": f"{key}-test", "locked": True, "points": 1, "schema_version": 3,
            "solution": False, "task": False,
        }  # fmt: skip
        solution = f"def {key}(n):\n    ### BEGIN SOLUTION\n    return n * {question}\n    ### END SOLUTION\n"
        cells.append(_cell(key, solution, meta))
        cells.append(_cell(f"{key}-test", f"assert {key}(3) == {3 * question}\n", test))
    return json.dumps(
        {
            "cells": cells, "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        }
    )  # fmt: skip


def _cell(key: str, source: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell_type": "code", "id": key, "execution_count": None, "outputs": [], "source": source,
        "metadata": {"nbgrader": meta},
    }  # fmt: skip


def measure(rooms: Rooms, students: int) -> list[Figure]:
    """Grade so many submissions in each class."""
    machine = rooms.machine
    notebooks = json.dumps({f"problem{number}.ipynb": notebook(number) for number in range(1, NOTEBOOKS + 1)})
    machine.write_text("/srv/bench-autograde.py", _WORK)
    rooms.ours.cli("course", "create", COURSE)
    [teacher] = rooms.stock.names(1, "t")
    home = f"/home/{teacher}/{COURSE}"
    machine.run(["mkdir", "-p", home], user=teacher)
    machine.write_text(f"{home}/nbgrader_config.py", STOCK_COURSE)
    seconds: dict[str, float | None] = {}
    cpu: dict[str, float | None] = {}
    places = {
        STOCK: (teacher, "/opt/stock/bin", home),
        OURS: (f"grader-{COURSE}", "/opt/illumidesk/envs/default/bin", f"/home/grader-{COURSE}/{COURSE}"),
    }
    for label, (user, programs, folder) in places.items():
        done = machine.run(
            [f"{programs}/python", "/srv/bench-autograde.py", folder, str(students), notebooks],
            user=user, env={"PATH": f"{programs}:/usr/bin:/bin"}, timeout=1800,
        )  # fmt: skip
        said = json.loads(done.stdout.splitlines()[-1])
        if said["graded"] != students * NOTEBOOKS:
            raise RuntimeError(f"{label}: {said['graded']} of {students * NOTEBOOKS} notebooks were graded")
        seconds[label], cpu[label] = round(said["seconds"], 2), round(said["cpu"], 2)
    what = f"autograde, {NOTEBOOKS} notebooks of each student"
    return [Figure(what, "s", students, seconds), Figure(f"CPU of {what}", "s", students, cpu)]
