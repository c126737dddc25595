"""What the hub is told of a gradebook that real runs of nbgrader made."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.grader import book, duedates_export, extensions
from illumidesk.supervisor import acl
from tests.support.gradebooks import COURSE, POINTS, GraderHome

DUE = "2026-03-01 12:00:00 UTC"
EARLY = "2026-03-01 11:00:00.000000 UTC"
LATE = "2026-03-01 14:00:00.000000 UTC"


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraderHome]:
    """ps1 of a course in which late work is worth nothing, handed in and graded in all the ways there are."""
    home = GraderHome(tmp_path_factory.mktemp("grader"))
    file = home.course / "nbgrader_config.py"
    file.write_text(file.read_text() + "\nc.LateSubmissionPlugin.penalty_method = 'zero'\n")
    with pytest.MonkeyPatch.context() as patch:
        home.enter(patch)
        home.author("ps1")
        with home.read().gradebook() as gradebook:
            gradebook.update_or_create_assignment("ps1", duedate=DUE)
            gradebook.add_student("zoe", first_name="Zoe")
            gradebook.add_student("fay")
        home.nbgrader("release_assignment", "ps1")
        home.hand_in("ana", "ps1", EARLY)
        home.hand_in("ben", "ps1", EARLY, answer="return 3")
        home.hand_in("cyd", "ps1", LATE)
        home.hand_in("dan", "ps1", EARLY)
        home.hand_in("eve", "ps1", EARLY)
        (home.course / "submitted/eve/ps1/problem.ipynb").write_text("not a notebook")
        home.nbgrader("autograde", "ps1", check=False)
        # dan hands in once more, through the exchange, now: collected, and not graded again
        home.submit("dan", "ps1")
        home.nbgrader("collect", "ps1", "--update")
        home.hand_in("fay", "ps1", LATE)
        yield home


@pytest.fixture
def home(graded: GraderHome) -> Iterator[GraderHome]:
    """The same; what a test changes is undone."""
    kept = graded.home.parent / "kept"
    shutil.copytree(graded.course, kept)
    yield graded
    shutil.rmtree(graded.course)
    kept.rename(graded.course)
    for folder in (extensions.store().parent, graded.exchange / COURSE / "duedates"):
        shutil.rmtree(folder, ignore_errors=True)
    (graded.exchange / COURSE / "duedates.json").unlink(missing_ok=True)


def rows_of(home: GraderHome, assignment: str = "ps1") -> dict[str, dict[str, Any]]:
    course = home.read()
    with course.gradebook() as gradebook:
        answer = book.assignment_scores(course, gradebook, assignment)
    assert answer["assignment"] == assignment
    return {row["student"]: row for row in answer["scores"]}


def put(home: GraderHome, student: str, assignment: str, seconds: Any) -> dict[str, Any]:
    course = home.read()
    with course.gradebook() as gradebook:
        return extensions.put(course, gradebook, {"student": student, "assignment": assignment, "seconds": seconds})


def late(home: GraderHome, student: str) -> tuple[float, float, float]:
    row = rows_of(home)[student]
    return row["score"], row["penalty"], row["late_seconds"]


def test_scores_as_nbgrader_has_them(home: GraderHome) -> None:
    rows = rows_of(home)
    assert list(rows) == ["ana", "ben", "cyd", "dan", "eve", "fay"]  # not zoe, who has handed in nothing
    assert rows["ana"] == {
        "student": "ana", "score": 5.0, "max_score": float(POINTS), "needs_manual_grade": True, "autograded": True,
        "late_seconds": 0.0, "penalty": 0.0, "timestamp": "2026-03-01T11:00:00Z", "comment": "",
    }  # fmt: skip
    assert rows["ben"]["score"] == 3.0
    # Two hours late, and the plugin takes everything
    assert (rows["cyd"]["score"], rows["cyd"]["penalty"], rows["cyd"]["late_seconds"]) == (0.0, 5.0, 7200.0)
    assert rows["cyd"]["comment"] == "Handed in late: 5 points taken off."
    # Handed in again since, or autograding failed, or never tried: no score that could be sent
    for name in ("dan", "eve", "fay"):
        assert (rows[name]["autograded"], rows[name]["score"], rows[name]["comment"]) == (False, 0.0, ""), name
    assert rows["dan"]["timestamp"] > "2026-03-01T11:00:00Z"


def test_how_far_assignments_are_graded(home: GraderHome) -> None:
    course = home.read()
    with course.gradebook() as gradebook:
        assert book.assignments(course, gradebook) == {
            "assignments": [
                {
                    "name": "ps1", "duedate": "2026-03-01T12:00:00Z", "max_score": float(POINTS), "submissions": 6,
                    "graded": 0, "needs_manual": 3,
                }
            ]
        }  # fmt: skip
        assert [a["assignment"] for a in book.scores(course, gradebook)["assignments"]] == ["ps1"]
        for name in ("ps2", "%", "*"):
            with pytest.raises(IllumiDeskError, match="no assignment") as error:
                book.assignment_scores(course, gradebook, name)
            assert error.value.status == 404


def test_manual_scores_and_extra_credit(home: GraderHome) -> None:
    course = home.read()
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook("problem", "ps1", "ben")
        for grade in notebook.grades:  # as the formgrader's page does
            if grade.needs_manual_grade:
                grade.manual_score, grade.extra_credit, grade.needs_manual_grade = 4, 0.5, False
        gradebook.db.commit()
        [shown] = [x for x in gradebook.submission_dicts("ps1") if x["student"] == "ben"]
    row = rows_of(home)["ben"]
    assert row["score"] == shown["score"] == 7.5
    assert row["needs_manual_grade"] is False


def test_students_come_and_nobody_goes(home: GraderHome) -> None:
    students = [
        {"id": "zoe", "first_name": "", "last_name": "Long", "email": "zoe@example.org", "lms_user_id": "7"},
        {"id": "kim", "first_name": "Kim", "last_name": "L\u202ee<b>" + "x" * 300, "email": "", "lms_user_id": ""},
    ]
    with home.read().gradebook() as gradebook:
        before = {student.id for student in gradebook.students}
        assert book.put_students(gradebook, students) == {"added": 1, "changed": 1}
        assert book.put_students(gradebook, students) == {"added": 0, "changed": 0}
        zoe = gradebook.find_student("zoe")
        assert (zoe.first_name, zoe.last_name, zoe.lms_user_id) == ("Zoe", "Long", "7")
        assert gradebook.find_student("kim").last_name == "Leb" + "x" * 125
        bad: list[Any] = [None, {}, [1], [{"id": "../x"}], [{"id": "new"}, {"id": "ana", "email": 3}], [{"id": None}]]
        for students_ in bad:
            with pytest.raises(IllumiDeskError):
                book.put_students(gradebook, students_)
        assert {student.id for student in gradebook.students} == before | {"kim"}


def test_an_extension_takes_the_penalty_off_what_is_graded(home: GraderHome) -> None:
    assert late(home, "cyd") == (0, 5, 7200)
    granted = {"student": "cyd", "assignment": "ps1", "seconds": 3600}
    assert put(home, **granted) == {"extensions": [granted], "regrade": []}
    assert late(home, "cyd") == (0, 5, 3600)
    assert put(home, "cyd", "ps1", 7200)["regrade"] == []
    assert late(home, "cyd") == (5, 0, 0)
    # The longer of both kinds counts, they do not add up
    put(home, "cyd", "", 3600)
    assert late(home, "cyd") == (5, 0, 0)
    assert put(home, "cyd", "ps1", 0)["extensions"] == [{"student": "cyd", "assignment": "", "seconds": 3600}]
    assert late(home, "cyd") == (0, 5, 3600)
    assert put(home, "cyd", "", 0) == {"extensions": [], "regrade": []}
    assert late(home, "cyd") == (0, 5, 7200)
    assert put(home, "cyd", "", 0) == {"extensions": [], "regrade": []}
    assert extensions.store().stat().st_mode & 0o777 == 0o600


def test_an_extension_waits_for_the_submission(home: GraderHome) -> None:
    for student in ("zoe", "fay"):
        put(home, student, "", 86400)
    rows = rows_of(home)
    assert "zoe" not in rows
    assert (rows["fay"]["autograded"], rows["fay"]["late_seconds"]) == (False, 0)
    with home.read().gradebook() as gradebook:
        assert {s.student.id for s in gradebook.assignment_submissions("ps1")} == {"ana", "ben", "cyd", "dan", "eve"}
    log = home.nbgrader("autograde", "ps1", "--student", "fay")
    assert "seconds late" not in log
    assert late(home, "fay") == (5, 0, 0)
    # Grading again keeps it, and so does a due date that goes and comes again
    with home.read().gradebook() as gradebook:
        gradebook.update_or_create_assignment("ps1", duedate=None)
        assert gradebook.find_submission("ps1", "fay").extension is None
    assert late(home, "fay") == (5, 0, 0)
    home.nbgrader("autograde", "ps1", "--student", "fay", "--force")
    with home.read().gradebook() as gradebook:
        gradebook.update_or_create_assignment("ps1", duedate=DUE)
    home.nbgrader("autograde", "ps1", "--student", "fay", "--force")
    assert late(home, "fay") == (5, 0, 0)


PLUGIN = """
from nbgrader.plugins import BasePlugin

class PerHour(BasePlugin):
    def late_submission_penalty(self, student_id, score, total_seconds_late):
        if total_seconds_late < 1000:
            raise ZeroDivisionError
        return total_seconds_late / 3600

c.AssignLatePenalties.plugin_class = PerHour
"""


def test_a_teachers_own_plugin_counts(home: GraderHome) -> None:
    file = home.course / "nbgrader_config.py"
    file.write_text(file.read_text() + PLUGIN)
    put(home, "cyd", "ps1", 3600)
    assert late(home, "cyd") == (4, 1, 3600)
    put(home, "cyd", "ps1", 0)
    assert late(home, "cyd") == (3, 2, 7200)
    # Where it fails, the penalty stays and the teacher is told to grade again
    answer = put(home, "cyd", "ps1", 7199)
    assert answer["regrade"] == [{"student": "cyd", "assignment": "ps1"}]
    assert late(home, "cyd") == (3, 2, 1)


def test_what_somebody_else_granted_stays(home: GraderHome) -> None:
    """`Gradebook.grant_extension`, as nbgrader's documentation has it."""
    course = home.read()
    with course.gradebook() as gradebook:
        gradebook.grant_extension("ps1", "cyd", hours=1)
        extensions.apply_all(course, gradebook)
    assert late(home, "cyd")[2] == 3600
    put(home, "cyd", "ps1", 5400)
    with course.gradebook() as gradebook:
        gradebook.find_submission("ps1", "cyd").extension = None
        gradebook.db.commit()
        extensions.apply_all(course, gradebook)
    assert late(home, "cyd")[2] == 1800


@pytest.mark.parametrize(
    ("student", "assignment", "seconds", "status"),
    [
        ("nobody-here", "ps1", 60, 404),
        ("ana", "ps9", 60, 404),
        ("../ana", "ps1", 60, 400),
        (None, "ps1", 60, 400),
        ("ana", None, 60, 400),
        ("ana", "a/b", 60, 400),
        ("ana", "ps1", -1, 400),
        ("ana", "ps1", True, 400),
        ("ana", "ps1", 1.5, 400),
        ("ana", "ps1", 10**12, 400),
    ],
)
def test_what_makes_no_sense_is_refused(
    home: GraderHome, student: Any, assignment: Any, seconds: Any, status: int
) -> None:
    with pytest.raises(IllumiDeskError) as error:
        put(home, student, assignment, seconds)
    assert error.value.status == status
    assert extensions.load() == ()


def test_a_broken_file_of_extensions_stops_nobodys_grading(home: GraderHome) -> None:
    extensions.store().parent.mkdir()
    extensions.store().write_text("{")
    with pytest.raises(IllumiDeskError, match="cannot be read"):
        extensions.load()
    home.nbgrader("autograde", "ps1", "--student", "fay")
    assert extensions.store().read_text() == "{"
    extensions.store().unlink()
    assert late(home, "fay") == (0, 5, 7200)


def imported(home: GraderHome, *rows: tuple[Any, Any, Any, Any]) -> dict[str, int]:
    course = home.read()
    with course.gradebook() as gradebook:
        keys = ("student", "assignment", "score", "max_score")
        return book.import_scores(course, gradebook, [dict(zip(keys, row, strict=True)) for row in rows])


def test_scores_from_elsewhere(home: GraderHome) -> None:
    rows = [("ana", "Oral exam", 7, 10), ("kim", "Oral exam", 11.5, 10), ("ana", "quiz", 0, 3)]
    assert imported(home, *rows) == {"assignments": 2, "scores": 3}
    assert imported(home, *rows) == {"assignments": 2, "scores": 3}
    told = rows_of(home, "Oral exam")
    assert {name: (row["score"], row["max_score"]) for name, row in told.items()} == {"ana": (7, 10), "kim": (11.5, 10)}
    assert all(row["autograded"] and not row["needs_manual_grade"] for row in told.values())
    assert rows_of(home, "quiz")["ana"]["autograded"] is True  # a 0 that somebody gave is a score
    assert imported(home, ("ana", "Oral exam", 8, 20)) == {"assignments": 1, "scores": 1}
    told = rows_of(home, "Oral exam")
    assert {name: (row["score"], row["max_score"]) for name, row in told.items()} == {"ana": (8, 20), "kim": (11.5, 20)}
    # nbgrader reads it as one of its own
    with home.read().gradebook() as gradebook:
        shown = {x["student"]: (x["score"], x["max_score"]) for x in gradebook.submission_dicts("Oral exam")}
        assert shown == {"ana": (8, 20), "kim": (11.5, 20)}
        assert gradebook.find_assignment("Oral exam").max_score == 20
    home.nbgrader("export", "--to", "grades.csv")
    assert "Oral exam" in (home.course / "grades.csv").read_text()


def test_an_import_is_whole_or_nothing(home: GraderHome) -> None:
    before = {name: rows_of(home)[name]["score"] for name in ("ana", "ben")}
    good = ("ana", "new", 1, 2)
    with pytest.raises(IllumiDeskError, match="nbgrader's own") as error:
        imported(home, good, ("ana", "ps1", 1, 10))
    assert error.value.status == 409
    (home.course / "source/ps2").mkdir()
    with pytest.raises(IllumiDeskError, match="nbgrader's own"):
        imported(home, good, ("ana", "ps2", 1, 10))
    bad: list[tuple[Any, Any, Any, Any]] = [
        ("../x", "new", 1, 2), ("ana", "a/b", 1, 2), ("ana", "new", -1, 2), ("ana", "new", float("nan"), 2),
        ("ana", "new", 1, 3), ("ana", "new", 2, 2), ("ben", "new", "1", 2), ("ben", "new", True, 2),
        ("ben", "new", 1, 10**400), (None, None, None, None),
    ]  # fmt: skip
    for row in bad:
        with pytest.raises(IllumiDeskError):
            imported(home, good, row)
    with home.read().gradebook() as gradebook:
        assert [assignment.name for assignment in gradebook.assignments] == ["ps1"]
    assert before == {name: rows_of(home)[name]["score"] for name in ("ana", "ben")}


def export(home: GraderHome) -> Path:
    course = home.read()
    with course.gradebook() as gradebook:
        duedates_export.export(course, gradebook)
    return home.exchange / COURSE


def dates(file: Path) -> Any:
    return json.loads(file.read_text())


def test_due_dates_for_students(home: GraderHome) -> None:
    folder = export(home)
    common = folder / "duedates.json"
    assert dates(common) == {"assignments": {"ps1": "2026-03-01T12:00:00Z"}}
    assert stat.S_IMODE(common.stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "duedates").stat().st_mode) & 0o777 == 0o711
    assert list((folder / "duedates").iterdir()) == []
    # `daemon` and `bin` are accounts of every machine; zoe is of the gradebook alone
    put(home, "daemon", "ps1", 3600)
    put(home, "bin", "", 7200)
    put(home, "zoe", "", 60)
    with home.read().gradebook() as gradebook:
        gradebook.add_assignment("secret-exam", duedate=DUE)  # not released: its name is nobody's business
    export(home)
    assert dates(common) == {"assignments": {"ps1": "2026-03-01T12:00:00Z"}}
    own = {file.name: file for file in (folder / "duedates").iterdir()}
    assert own.keys() == {"daemon.json", "bin.json"}
    assert dates(own["daemon.json"]) == {"assignments": {"ps1": "2026-03-01T13:00:00Z"}}
    assert dates(own["bin.json"]) == {"assignments": {"ps1": "2026-03-01T14:00:00Z"}}
    for name in ("daemon", "bin"):
        with own[f"{name}.json"].open() as file:
            assert acl.entries(file.fileno()) == {pwd.getpwnam(name).pw_uid: 4}
            assert os.fstat(file.fileno()).st_mode & 0o7 == 0
    # Nothing is written that is so already
    before = {file: file.stat().st_ino for file in (common, *own.values())}
    export(home)
    assert before == {file: file.stat().st_ino for file in (common, *own.values())}
    # What somebody put in the place of a file is replaced, and not followed
    victim = home.home / "victim"
    victim.write_text("mine")
    for file in (common, own["bin.json"]):
        file.unlink()
        file.symlink_to(victim)
    put(home, "daemon", "ps1", 0)
    export(home)
    assert victim.read_text() == "mine"
    assert dates(common) == {"assignments": {"ps1": "2026-03-01T12:00:00Z"}}
    assert [file.name for file in (folder / "duedates").iterdir()] == ["bin.json"]
    assert not (folder / "duedates/bin.json").is_symlink()


def test_nobody_sees_who_has_more_time(home: GraderHome, monkeypatch: pytest.MonkeyPatch) -> None:
    members = ["bin", "daemon", "grader-intro101", "no-account", "sys"]
    monkeypatch.setattr(duedates_export, "_members", lambda _: members)
    folder = export(home) / "duedates"

    def seen() -> dict[str, Any]:
        return {file.name: file.stat() for file in folder.iterdir()}

    first = seen()
    assert first.keys() == {"bin.json", "daemon.json", "sys.json"}
    assert dates(folder / "bin.json") == {"assignments": {}}
    put(home, "daemon", "ps1", 3600)
    export(home)
    second = seen()
    assert dates(folder / "daemon.json") == {"assignments": {"ps1": "2026-03-01T13:00:00Z"}}
    assert {found.st_size for found in (*first.values(), *second.values())} == {4096}
    assert all(second[name].st_ctime_ns > first[name].st_ctime_ns for name in first)


def test_only_the_student_reads_their_own_dates(home: GraderHome) -> None:
    put(home, "bin", "", 7200)
    folder = export(home)

    def reader(name: str) -> int:
        """0 where another account can read it, 1 where not (or where this test may not become another account)."""
        fd = os.open(folder, os.O_RDONLY)
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(pwd.getpwnam(name).pw_uid)
                os.read(os.open("duedates/bin.json", os.O_RDONLY, dir_fd=fd), 1)
                os._exit(0)
            except PermissionError:
                os._exit(1)
            finally:
                os._exit(2)
        os.close(fd)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert reader("daemon") == 1
    if os.getuid() == 0:
        assert reader("bin") == 0


def test_without_access_lists_nobody_sees_whose_date_differs(home: GraderHome, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, "bin", "", 7200)
    monkeypatch.setattr(acl, "set_entry", lambda *_: False)
    folder = export(home)
    assert (folder / "duedates.json").exists()
    assert list((folder / "duedates").iterdir()) == []


async def test_the_watch_follows_the_gradebook(home: GraderHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duedates_export, "INTERVAL", 0.05)
    common = home.exchange / COURSE / "duedates.json"
    follows: list[None] = []
    follow = duedates_export._follow
    monkeypatch.setattr(duedates_export, "_follow", lambda: (follows.append(None), follow())[1])
    put(home, "cyd", "", 3600)
    watching = asyncio.create_task(duedates_export.watch())

    async def until(wanted: str) -> None:
        async with asyncio.timeout(60):
            while not common.exists() or dates(common)["assignments"].get("ps1") != wanted:
                await asyncio.sleep(0.05)

    try:
        await until("2026-03-01T12:00:00Z")
        with home.read().gradebook() as gradebook:  # as the formgrader's page does
            gradebook.update_or_create_assignment("ps1", duedate="2026-04-01 12:00:00 UTC")
        await until("2026-04-01T12:00:00Z")
        # A script that knows nothing of us, on an assignment whose date nbgrader could not add an extension to
        with sqlite3.connect(home.course / "gradebook.db", timeout=60) as other:
            other.execute("UPDATE assignment SET duedate = NULL")
        other.close()
        async with asyncio.timeout(60):
            while dates(common)["assignments"]:
                await asyncio.sleep(0.05)
        with home.read().gradebook() as gradebook:
            assert gradebook.find_submission("ps1", "cyd").extension is None
        # It comes to rest
        count = -1
        async with asyncio.timeout(60):
            while count != len(follows):
                count = len(follows)
                await asyncio.sleep(2)
    finally:
        watching.cancel()
