"""The choice by role, and what a server is started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from illumidesk.settings import Limits, parse
from illumidesk.spawners.choice import (
    RoleChoice,
    WorkspaceChoice,
    asked_for,
    asks,
    choose,
    course_of,
    gallery_variables,
    server_arguments,
    server_role,
    server_variables,
    startable,
)


@pytest.mark.parametrize(
    ("member_role", "role"),
    [(None, "standard"), ("student", "learner"), ("ta", "instructor"), ("instructor", "instructor")],
)
def test_role(member_role: str | None, role: str) -> None:
    assert server_role(member_role) == role


def test_limits_of_a_role_fall_back_to_everybodys() -> None:
    settings = parse("limits: {memory: 1G, cpu: 2}\nroles:\n  instructor:\n    limits: {memory: 3G}\n")

    class Choice(RoleChoice):
        settings_now = settings  # type: ignore[assignment]
        member_role = "instructor"  # type: ignore[assignment]

    assert Choice().chosen_limits() == Limits(memory="3G", cpu=2.0)
    assert settings.limits_of("learner") == settings.limits


def test_nothing_listens_on_a_port() -> None:
    arguments = server_arguments(Path("/run/x/server.sock"), "/lab", idle_server=60, idle_kernel=0)
    assert "--ServerApp.sock=/run/x/server.sock" in arguments
    assert "--ServerApp.sock_mode=0660" in arguments
    assert "--KernelManager.transport=ipc" in arguments
    assert not [argument for argument in arguments if "port" in argument.split("=")[0].split(".")[-1].split("_")]


def test_kernel_sockets_fit_a_socket_address() -> None:
    """sun_path holds 107 bytes; a kernel's is RUNTIME/kernel-UUID-ipc-N."""
    runtime = server_variables(Path("/opt/illumidesk/roles/learner"), Path("/opt/illumidesk/envs/default"))
    assert len(runtime["JUPYTER_RUNTIME_DIR"] + "/kernel-" + "x" * 36 + "-ipc-5") < 107


NOTHING = Path("/nonexistent")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """VS Code and RStudio are installed."""
    for name in ("vscode", "rstudio"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"workspace_type": "lab"}, "lab"),
        ({"workspace_type": ["lab", "x"]}, "lab"),
        ({"opt-workspace_type": [" lab "]}, "lab"),
        ({"workspace_type": "lab", "opt-workspace_type": "tree"}, "lab"),
        ({"workspace_type": ["", "lab"]}, ""),
        ({"workspace_type": []}, ""),
        ({"workspace_type": None}, ""),
        ({"workspace_type": {"a": 1}}, "{'a': 1}"),
        ({"workspace_type": 7}, "7"),
        ({"workspace_type": "x" * 9999}, "x" * 64),
        ({"workspace": "lab"}, ""),
    ],
)
def test_what_somebody_asks_for(options: dict[str, object], said: str) -> None:
    assert asked_for(options, "workspace_type") == said


def test_a_course_counts_for_its_members() -> None:
    both = [("bio", "student"), ("chem", "ta")]
    assert course_of("chem", both) == "chem"
    assert course_of("phys", both) == course_of("", both) == course_of("", []) == course_of("bio", []) == ""
    assert course_of("", [("bio", "student")]) == course_of("phys", [("bio", "student")]) == "bio"


COURSES = """
workspaces: {offered: [notebook, lab, vscode, theia, own], types: {own: {path: own/}}}
courses:
  fixed: {workspace: lab}
  fixed-program: {workspace: theia}
  some: {workspaces: [vscode, lab]}
  none-there: {workspaces: [theia]}
"""


@pytest.mark.parametrize(
    ("wanted", "course_id", "opens"),
    [
        ("", "", None),
        ("lab", "", "lab"),
        ("own", "", "own"),
        ("vscode", "", "vscode"),
        ("theia", "", "notebook"),  # not installed
        ("rstudio", "", "notebook"),  # installed and not offered
        ("emacs", "", "notebook"),
        ("Lab", "", "notebook"),
        ("lab", "unknown", "lab"),
        ("", "fixed", "lab"),
        ("vscode", "fixed", "lab"),
        ("emacs", "fixed", "lab"),
        ("lab", "fixed-program", "notebook"),
        ("", "some", "vscode"),
        ("lab", "some", "lab"),
        ("notebook", "some", "vscode"),
        ("emacs", "some", "vscode"),
        ("", "none-there", "notebook"),
        ("lab", "none-there", "notebook"),
    ],
)
def test_which_workspace_opens(programs: Path, wanted: str, course_id: str, opens: str | None) -> None:
    chosen = choose(parse(COURSES), programs, wanted, course_id)
    assert (chosen.name if chosen else None) == opens
    assert chosen is None or chosen in startable(parse(COURSES), programs, course_id).values()


@pytest.mark.parametrize(
    ("text", "with_programs", "without"),
    [
        ("", True, False),
        ("workspaces: {ask: always}", True, True),
        ("workspaces: {ask: never}", False, False),
        ("workspaces: {offered: [lab, nbclassic]}", False, False),
        ("workspaces: {offered: [lab]}", False, False),
        ("workspaces: {ask: always, offered: [vscode]}", False, False),
        ("workspaces: {offered: [vscode, lab]}", True, False),
        ("workspaces: {types: {own: {path: own/}}}", True, True),
    ],
)
def test_when_a_page_asks(programs: Path, text: str, with_programs: bool, without: bool) -> None:
    assert asks(parse(text), programs) is with_programs
    assert asks(parse(text), NOTHING) is without


class Start(WorkspaceChoice):
    """A spawner, as far as the choice needs one."""

    def __init__(
        self, options: dict[str, object], courses: dict[str, str], programs: Path, text: str = COURSES
    ) -> None:
        self.user_options = options
        self._courses, self._programs, self._settings = courses, programs, parse(text)

    settings_now = property(lambda self: self._settings)  # type: ignore[assignment]
    memberships = property(lambda self: list(self._courses.items()))  # type: ignore[assignment]
    programs = property(lambda self: self._programs)  # type: ignore[assignment]
    member_role = property(lambda self: next(iter(self._courses.values()), None))  # type: ignore[assignment]


def test_a_start_by_course_and_workspace(programs: Path) -> None:
    text = "courses: {bio: {environment: bio, workspace: vscode}, chem: {}}\nroles: {learner: {environment: class}}\n"
    both = {"bio": "student", "chem": "student"}

    def start(options: dict[str, object], courses: dict[str, str]) -> tuple[str, str, str]:
        choice = Start(options, courses, programs, text)
        return choice.chosen_course(), choice.chosen_environment(), choice.chosen_page()

    assert start({}, {}) == ("", "default", "/lab")
    assert start({}, both) == ("", "class", "/lab")
    assert start({"course": "bio", "workspace_type": "lab"}, both) == ("bio", "bio", "/vscode/")
    assert start({"course": "chem", "workspace_type": "notebook"}, both) == ("chem", "class", "/tree")
    assert start({}, {"bio": "student"}) == ("bio", "bio", "/vscode/")
    assert start({"course": "bio"}, {"chem": "student"}) == ("chem", "class", "/lab")
    assert start({"course": "bio"}, {}) == ("", "default", "/lab")


def test_galleries() -> None:
    named = gallery_variables("https://vsx.example.edu/mirror")
    assert named["VSX_REGISTRY_URL"] == "https://vsx.example.edu/mirror"
    addresses = json.loads(named["EXTENSIONS_GALLERY"])
    assert addresses["serviceUrl"] == "https://vsx.example.edu/mirror/vscode/gallery"
    assert addresses["extensionUrlTemplate"].endswith("/vscode/gallery/{publisher}/{name}/latest")
    assert all(not address or address.startswith("https://vsx.example.edu/mirror/") for address in addresses.values())
    # Neither is empty for VS Code, which would then ask Open VSX.
    assert gallery_variables("") == {"EXTENSIONS_GALLERY": "{}", "VSX_REGISTRY_URL": ""}
