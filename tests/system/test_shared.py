"""A course's shared folder, with real accounts in real servers: who reads, who writes, and from when on."""

from __future__ import annotations

import pytest
from machine import CommandError

from tests.support.classroom import Classroom
from tests.support.person import Person

COURSE = "share101"
FOLDER = f"/srv/nbgrader/shared/{COURSE}"
STEM = "~/share101/shared"


@pytest.fixture(scope="module")
def people(classroom: Classroom) -> dict[str, Person]:
    """An instructor, a TA, a student and somebody of another course, whose servers run."""
    names = ("shann", "shtom", "shstu", "shout")
    for name in names:
        classroom.cli("user", "add", name)
    classroom.cli("course", "create", COURSE, "--instructor", "shann")
    classroom.cli("course", "create", "other101", "--instructor", "shout")
    classroom.cli("enroll", COURSE, "shtom", "--role", "ta")
    classroom.cli("enroll", COURSE, "shstu", "--role", "student")
    signed_in = {name: classroom.sign_in(name) for name in names}
    for person in signed_in.values():
        person.start_server()
    return signed_in


def test_instructors_write_and_students_read(people: dict[str, Person]) -> None:
    ann, tom, stu = people["shann"], people["shtom"], people["shstu"]
    assert "exit 0" in ann.shell(f"mkdir {STEM}/week1 && echo '# Day 1' > {STEM}/week1/slides.md")
    # as JupyterLab moves a file, with the mode of a home
    moved = ann.run(
        "import os, shutil; p = os.path.expanduser\n"
        "open(p('~/plan.md'), 'w').write('my plan'); os.chmod(p('~/plan.md'), 0o640)\n"
        f"shutil.move(p('~/plan.md'), p('{STEM}/plan.md'))"
    )
    assert "Error" not in moved
    assert "exit 0" in tom.shell(f"echo '# Day 2' >> {STEM}/week1/slides.md && echo later > {STEM}/week1/next.md")
    assert "exit 0" in ann.shell(f"rm {STEM}/week1/next.md")
    seen = stu.shell(f"cat {STEM}/week1/slides.md {STEM}/plan.md")
    assert "# Day 1\n# Day 2\nmy plan" in seen
    assert stu.server("GET", "api/contents/share101/shared/week1/slides.md")["content"] == "# Day 1\n# Day 2\n"
    tried = stu.shell(
        f"cd {STEM}; touch new; echo x >> week1/slides.md; rm week1/slides.md; mkdir d; chmod 777 .; mv week1 old;"
        " touch /srv/nbgrader/shared/x"
    )
    assert "exit 1" in tried
    assert tried.count("Read-only file system") + tried.count("Permission denied") >= 6, tried
    assert "# Day 2" in ann.shell(f"cat {STEM}/week1/slides.md; ls {STEM}")


def test_other_courses_get_nothing(people: dict[str, Person]) -> None:
    out = people["shout"]
    assert "exit 0" not in out.shell(f"ls {FOLDER}")
    assert "exit 0" not in out.shell(f"cat {FOLDER}/week1/slides.md")
    assert "exit 0" not in out.shell("ls -d ~/share101")
    assert "exit 0" in out.shell("touch ~/other101/shared/mine")


def test_the_grader_writes_it(classroom: Classroom, people: dict[str, Person]) -> None:
    base = classroom.open_grader(people["shann"], COURSE)
    done = people["shann"].shell(f"echo from the grader > {STEM}/grader.md && rm {STEM}/plan.md", base=base)
    assert "exit 0" in done, done
    assert "from the grader" in people["shstu"].shell(f"cat {STEM}/grader.md")


def test_members_pull_a_copy_of_a_private_repository(classroom: Classroom, people: dict[str, Person]) -> None:
    """The grader alone reads the repository, in its own home; a member's server pulls the copy."""
    account = f"grader-{COURSE}"
    script = (
        "git init -q -b main ~/private && cd ~/private && echo hello > a.md && git add a.md &&"
        " git -c user.name=T -c user.email=t@example.org commit -qm first"
    )
    classroom.machine.run(["sh", "-c", script], user=account)
    made = classroom.cli_json("course", "mirror", COURSE, f"file:///home/{account}/private")
    assert made["copies"] == [f"{FOLDER}/private.git"]
    assert classroom.cli("course", "mirror", COURSE).stdout == f"Up to date: {FOLDER}/private.git\n"
    people["shstu"].shell("rm -rf ~/mine")  # of an earlier run on this machine
    told = people["shstu"].get(f"{people['shstu'].base}git-pull/api?repo={FOLDER}/private.git&targetpath=mine").text
    assert '"finished"' in told, told
    assert "hello" in people["shstu"].shell("cat ~/mine/a.md")
    told = people["shout"].get(f"{people['shout'].base}git-pull/api?repo={FOLDER}/private.git&targetpath=mine").text
    assert "there is no repository" in told.lower(), told


def test_membership_changes_while_servers_run(classroom: Classroom, people: dict[str, Person]) -> None:
    stu, tom = people["shstu"], people["shtom"]
    classroom.cli("unenroll", COURSE, "shstu")
    assert "exit 0" not in stu.shell(f"cat {FOLDER}/grader.md")
    # a TA who becomes a student writes nothing from now on, and reads again in the next server
    classroom.cli("enroll", COURSE, "shtom", "--role", "student")
    assert "exit 0" not in tom.shell(f"echo x >> {FOLDER}/week1/slides.md")
    tom.hub_api("DELETE", "users/shtom/server")
    tom.start_server()
    assert "exit 0" in tom.shell(f"cat {FOLDER}/week1/slides.md")
    assert "exit 0" not in tom.shell(f"echo x >> {FOLDER}/week1/slides.md")
    # one who comes in reads at once
    classroom.cli("enroll", COURSE, "shout", "--role", "student")
    assert "from the grader" in people["shout"].shell(f"cat {FOLDER}/grader.md")


def test_nothing_that_a_person_has_is_touched(classroom: Classroom, people: dict[str, Person]) -> None:
    """A link of a student's leads root nowhere, and a folder of theirs stays."""
    stu = people["shstu"]
    stu.hub_api("DELETE", "users/shstu/server")
    classroom.machine.run(
        [
            "sh",
            "-c",
            "rm -rf ~/share101; mkdir -p ~/share101/shared; echo mine > ~/share101/shared/a.md; ln -s /etc ~/other101",
        ],
        user="shstu",
    )
    for course_id in (COURSE, "other101"):
        classroom.cli("enroll", course_id, "shstu", "--role", "student")
    stu.start_server()
    seen = stu.shell("cat ~/share101/shared/a.md ~/share101/shared-folder/grader.md")
    assert "mine\nfrom the grader" in seen
    assert "something of your own and stays" in classroom.journal("jupyter-shstu.service", 200)
    assert classroom.machine.run(["ls", "-d", "/etc/shared"], check=False).returncode != 0
    classroom.machine.run(["rm", "-r", "/home/shstu/share101", "/home/shstu/other101"])


def test_it_goes_into_the_archive(classroom: Classroom, people: dict[str, Person]) -> None:
    archive = classroom.cli_json("course", "remove", COURSE, "--yes")["archive"]
    packed = classroom.machine.run(["tar", "-tzf", archive]).stdout
    assert "srv/nbgrader/shared/share101/week1/slides.md" in packed
    with pytest.raises(CommandError):
        classroom.machine.run(["ls", FOLDER])
    with pytest.raises(CommandError):
        classroom.machine.run(["getent", "group", f"grader-{COURSE}"])
    classroom.cli("course", "remove", "other101", "--yes")
