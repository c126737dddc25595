"""Links that fetch git repositories, with real repositories and a real server."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.notebook_server import NotebookServer, notebook_server

NOTEBOOK = {
    "cells": [{"cell_type": "code", "source": ["1 + 1"], "metadata": {}, "outputs": [], "execution_count": None}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


def git(folder: Path, *argv: str) -> str:
    identity = ["-c", "user.name=Teacher", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *argv], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@dataclass
class Teacher:
    """Somebody with a repository that links name, and their own copy of it."""

    remote: Path
    work: Path

    def push(self, **contents: str | None) -> None:
        """Change files (`__` is a dot; None removes), commit and push."""
        for name, text in contents.items():
            file = self.work / name.replace("__", ".")
            if text is None:
                file.unlink()
            else:
                file.write_text(text)
        git(self.work, "add", "-A")
        git(self.work, "commit", "-qm", "material")
        git(self.work, "push", "-q", "origin", "HEAD:main")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookServer]:
    folder = tmp_path_factory.mktemp("pull")
    (folder / "root/srv/nbgrader/shared/intro101").mkdir(parents=True)
    with notebook_server(folder, (), variables={"ILLUMIDESK_ROOT": str(folder / "root")}) as server:
        yield server


def make(server: NotebookServer, name: str) -> Teacher:
    remote = server.home.parent / "root/srv/nbgrader/shared/intro101" / name
    remote.mkdir()
    git(remote, "init", "-q", "--bare", "-b", "main")
    work = server.home.parent / "teachers" / name
    work.parent.mkdir(exist_ok=True)
    git(work.parent, "clone", "-q", str(remote), str(work))
    teacher = Teacher(remote, work)
    teacher.push(notes__md="one\ntwo\nthree\nfour\nfive\nsix\nseven\n", lab__ipynb=json.dumps(NOTEBOOK, indent=1))
    return teacher


def events(server: NotebookServer, **query: str) -> list[dict[str, Any]]:
    """What the server tells while it pulls."""
    request = urllib.request.Request(
        f"{server.url}git-pull/api?{urlencode(query)}", headers={"Authorization": f"token {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        text = answer.read().decode()
    return [json.loads(part.removeprefix("data: ")) for part in text.split("\n\n") if part]


def pull(server: NotebookServer, repository: Path | str, **query: str) -> list[str]:
    told = events(server, repo=str(repository), **query)
    assert told[-1]["phase"] == "finished", told
    kept: list[str] = told[-1]["kept"]
    return kept


def refused(server: NotebookServer, repository: Path | str, **query: str) -> str:
    (told,) = [event for event in events(server, repo=str(repository), **query) if event["phase"] != "syncing"]
    assert told["phase"] == "error"
    message: str = told["message"]
    return message


def test_a_repository_comes_and_is_brought_up_to_date(server: NotebookServer) -> None:
    teacher = make(server, "plain")
    assert pull(server, teacher.remote, branch="main") == []
    assert (server.home / "plain/notes.md").read_text().startswith("one\n")
    teacher.push(week2__md="more")
    assert pull(server, f"file://{teacher.remote}", targetpath="plain") == []
    assert (server.home / "plain/week2.md").read_text() == "more"


def test_a_students_changes_are_kept_and_told(server: NotebookServer) -> None:
    teacher = make(server, "kept")
    pull(server, teacher.remote)
    home = server.home / "kept"
    (home / "notes.md").write_text("one\ntwo\nMINE\nfour\nfive\nsix\nseven\n")
    (home / "week2.md").write_text("my own week 2")
    teacher.push(notes__md="ONE\ntwo\nTHEIRS\nfour\nfive\nsix\nSEVEN\n", week2__md="the teacher's week 2")
    told = pull(server, teacher.remote)
    assert (home / "notes.md").read_text() == "ONE\ntwo\nMINE\nfour\nfive\nsix\nSEVEN\n"
    assert (home / "week2.md").read_text() == "the teacher's week 2"
    (renamed,) = home.glob("week2__*.md")
    assert renamed.read_text() == "my own week 2"
    assert told == [
        f"Your own week2.md is now {renamed.name}; week2.md is your teacher's.",
        "notes.md: your changes were kept; your teacher's are in it where you changed nothing.",
    ]
    assert pull(server, teacher.remote) == []


def test_a_notebook_stays_one(server: NotebookServer) -> None:
    """Both add a cell in the middle: lines of both together would be no JSON."""
    teacher = make(server, "books")
    pull(server, teacher.remote)
    lines = (server.home / "books/lab.ipynb").read_text()
    mine = lines.replace('"1 + 1"', '"1 + 1\\n",\n    "# mine"').replace('"nbformat": 4,', '"nbformat": 4, "x": [')
    mine = mine.replace('"nbformat_minor": 5', '"y"],\n "nbformat_minor": 5')
    theirs = lines.replace('"1 + 1"', '"2 + 2"').replace('"nbformat_minor": 5', '"nbformat_minor": 4')
    json.loads(mine)
    (server.home / "books/lab.ipynb").write_text(mine)
    teacher.push(lab__ipynb=theirs)
    told = pull(server, teacher.remote)
    assert "mine" in json.dumps(json.loads((server.home / "books/lab.ipynb").read_text()))
    assert len(told) == 1
    assert told[0].startswith("lab.ipynb: your")


def test_what_a_teacher_removed_and_a_student_changed_stays(server: NotebookServer) -> None:
    teacher = make(server, "gone")
    pull(server, teacher.remote)
    (server.home / "gone/notes.md").write_text("mine")
    teacher.push(notes__md=None)
    assert pull(server, teacher.remote) == ["notes.md: yours was kept, your teacher's changes are not in it."]
    assert (server.home / "gone/notes.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({"app": "notebook"}, "tree/r"),
        ({"app": "notebook", "subPath": "a b/x.ipynb"}, "notebooks/r/a%20b/x.ipynb"),
        ({}, "tree/r"),
        ({"app": "lab", "subPath": "x.ipynb"}, "lab/tree/r/x.ipynb"),
        ({"app": "vscode"}, "vscode/?folder=HOME/r"),
        ({"app": "theia", "targetpath": "week 1"}, "theia/#HOME/week%201"),
        ({"urlpath": "lab/tree/r/x.md"}, "lab/tree/r/x.md"),
        ({"urlPath": "//evil.example/x"}, "evil.example/x"),
    ],
)
def test_where_a_link_leads(server: NotebookServer, query: dict[str, str], page: str) -> None:
    status, _, text = server.get(f"git-pull?{urlencode({'repo': 'https://git.example/r', **query})}")
    assert status == 200
    assert f'href="/user/ana/{page.replace("HOME", str(server.home))}"' in text


def test_a_link_is_shown_as_text(server: NotebookServer) -> None:
    _, _, text = server.get(f"git-pull?{urlencode({'repo': 'https://x/</script><b>', 'targetpath': '<i>'})}")
    assert "<b>" not in text
    assert "<i>" not in text


def test_what_no_link_may(server: NotebookServer, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "secret")
    assert "not in a folder of this machine" in refused(server, tmp_path / "secret")
    link = server.home.parent / "root/srv/nbgrader/shared/intro101/link"
    link.symlink_to(tmp_path / "secret")
    assert "not in a folder of this machine" in refused(server, link)
    for local in ("file://other.host/x", "./x", "../x", "~/x", "x/../../y", "x"):
        assert "not in a folder of this machine" in refused(server, local)
    assert "outside of your home" in refused(server, "https://git.example/r", targetpath="../x")
    assert "outside of your home" in refused(server, "https://git.example/r", targetpath="/tmp/x")
    assert "no branch" in refused(server, "https://git.example/r", branch="--upload-pack=x")
    assert "names no repository" in refused(server, "")
    for odd in ("ext::sh -c id", "host:path", "https:x", "http://[x", "javascript:x"):
        assert "is no address of a git repository" in refused(server, odd)
    assert server.get("git-pull/api?repo=x", token="")[0] == 403


def test_what_cannot_be_fetched(server: NotebookServer) -> None:
    shared = server.home.parent / "root/srv/nbgrader/shared/intro101"
    assert "there is no repository" in refused(server, shared / "none").lower()
    teacher = make(server, "short")
    assert "has no branch nope" in refused(server, teacher.remote, branch="nope")
    message = refused(server, "http://127.0.0.1:9/r.git")
    assert message.startswith("127.0.0.1 does not give the repository.")
    assert "private" in message
    assert not os.path.lexists(server.home / "r.git")
    # a folder of the person's own of that name
    (server.home / "short").mkdir()
    (server.home / "short/mine.md").write_text("mine")
    assert "of your own. Rename it" in refused(server, teacher.remote)
    assert (server.home / "short/mine.md").read_text() == "mine"
