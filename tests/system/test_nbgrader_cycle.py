"""nbgrader's whole cycle, as real accounts through real servers, in the words of the pages' own requests.

One student's server is forked, the other's starts by itself.
"""

from __future__ import annotations

import json
from typing import Any

from tests.support.classroom import Classroom
from tests.support.person import Person
from tests.support.ways import Way

COURSE = "intro101"


def assignments(person: Person) -> list[dict[str, Any]]:
    listed = person.server("GET", f"assignments?course_id={COURSE}")
    assert listed["success"], listed
    return list(listed["value"])


def act(person: Person, action: str) -> Any:
    answer = person.server("POST", f"assignments/{action}", {"course_id": COURSE, "assignment_id": "ps1"})
    assert answer["success"], answer
    return answer


def solve(person: Person, answer: str) -> None:
    """Write `answer` into the free-text cells and a right function into the first notebook, as a student would."""
    path = f"api/contents/{COURSE}/ps1/problem1.ipynb"
    notebook = person.server("GET", path)["content"]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and cell["metadata"].get("nbgrader", {}).get("solution"):
            cell["source"] = answer
        if "def squares(n):" in cell["source"]:
            cell["source"] = (
                "def squares(n):\n"
                "    if n < 1:\n"
                "        raise ValueError('n must be at least 1')\n"
                "    return [i ** 2 for i in range(1, n + 1)]\n"
            )
    person.server("PUT", path, {"type": "notebook", "format": "json", "content": notebook})


def test_cycle(classroom: Classroom) -> None:
    classroom.cli("user", "add", "ana", "ben")
    classroom.cli("enroll", COURSE, "ana", "ben", "--role", "student")
    teacher = classroom.sign_in("instructor1")
    base = classroom.open_grader(teacher, COURSE)

    made = teacher.terminal(f"cd && nbgrader quickstart {COURSE}", base=base)
    assert "done-0" in made, made

    def formgrader(method: str, path: str, body: object = None) -> Any:
        return teacher.server(method, f"formgrader/api/{path}", body, base=base)

    def do(path: str) -> None:
        outcome = formgrader("POST", path)
        assert outcome["success"], outcome

    assert formgrader("GET", "status")["status"] is True
    do("assignment/ps1/assign")
    do("assignment/ps1/release")

    started = []
    for name in ("ordinary", "forked"):
        way = Way(classroom, name)
        way.choose()
        started.append(way.start("ana" if way.forked else "ben"))
    ben, ana = started
    for student, answer in ((ana, "ANA SAYS induction"), (ben, "BEN SAYS intuition")):
        [released] = assignments(student)
        assert (released["assignment_id"], released["status"]) == ("ps1", "released")
        act(student, "fetch")
        solve(student, answer)
        act(student, "submit")
        assert "submitted" in {a["status"] for a in assignments(student)}

    # Somebody of another course, or of none, sees nothing of this one.
    classroom.cli("user", "add", "outsider")
    outsider = classroom.sign_in("outsider")
    outsider.start_server()
    assert "Permission denied" in outsider.shell(f"ls /srv/nbgrader/exchange/{COURSE}")

    do("assignment/ps1/collect")
    for name in ("ana", "ben"):
        do(f"submission/ps1/{name}/autograde")
    scores = {}
    for name in ("ana", "ben"):
        submission = formgrader("GET", f"submission/ps1/{name}")
        assert submission["autograded"] is True
        assert submission["needs_manual_grade"] is True
        scores[name] = submission["score"]
    assert all(score > 0 for score in scores.values())

    # By hand: every cell that waits, with a comment, as the formgrader's page does.
    for name, points in (("ana", 2), ("ben", 1)):
        for notebook in formgrader("GET", f"student_notebook_submissions/{name}/ps1"):
            for grade in formgrader("GET", f"grades?submission_id={notebook['id']}"):
                if grade["needs_manual_grade"]:
                    formgrader("PUT", f"grade/{grade['id']}", {"manual_score": points})
            for comment in formgrader("GET", f"comments?submission_id={notebook['id']}"):
                formgrader("PUT", f"comment/{comment['id']}", {"manual_comment": f"a word for {name} alone"})
    graded = {name: formgrader("GET", f"submission/ps1/{name}") for name in ("ana", "ben")}
    assert not any(submission["needs_manual_grade"] for submission in graded.values())
    assert graded["ana"]["score"] > graded["ben"]["score"] > scores["ben"]

    do("assignment/ps1/generate_feedback")
    do("assignment/ps1/release_feedback")
    for student, own, other in ((ana, "ana", "ben"), (ben, "ben", "ana")):
        act(student, "fetch_feedback")
        pages = student.shell(f"find {COURSE}/ps1/feedback -name '*.html' -exec cat {{}} +")
        assert f"a word for {own} alone" in pages
        assert f"a word for {other} alone" not in pages

    # Nor can either find the other's work or feedback by walking the exchange.
    for student, other_name, other_says in ((ana, "ben", "BEN SAYS"), (ben, "ana", "ANA SAYS")):
        hunt = student.shell(
            f"ls /srv/nbgrader/exchange/{COURSE}/inbound /srv/nbgrader/exchange/{COURSE}/feedback /home/{other_name};"
            f" grep -rl '{other_says}' /srv/nbgrader /home /tmp 2>/dev/null; true"
        )
        assert hunt.count("Permission denied") + hunt.count("No such file") >= 3, hunt
        assert other_name + "+" not in hunt
    book = json.loads(
        teacher.shell(
            f'cd ~/{COURSE} && python -c "import json; from nbgrader.api import Gradebook\n'
            "with Gradebook('sqlite:///gradebook.db') as g:\n"
            "  print(json.dumps({s.student.id: s.score for s in g.assignment_submissions('ps1')}))\"",
            base=base,
        ).splitlines()[0]
    )
    assert book == {name: submission["score"] for name, submission in graded.items()}
