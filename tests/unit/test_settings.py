"""Settings: the shipped file says what the code does, and mistakes are named."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illumidesk import settings
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import data
from illumidesk.settings import Settings

SHIPPED = data("config", "config.yaml")


def test_the_shipped_file_equals_the_defaults() -> None:
    assert settings.load(SHIPPED) == Settings()


def test_the_shipped_file_mentions_every_key() -> None:
    from illumidesk.host import yaml_edit

    raw = yaml_edit.load(SHIPPED.read_text("utf-8"))
    own_limits = re.compile(r"roles\.\w+\.limits(\..*)?")
    missing = [key for key in settings.known_keys() if not own_limits.fullmatch(key) and not yaml_edit.has(raw, key)]
    assert missing == []


def test_the_shipped_file_explains_role_limits() -> None:
    assert "limits: {memory: 2G}" in SHIPPED.read_text("utf-8")


@pytest.mark.parametrize("text", ["", "# nothing\n", "limits:\n", "limits:\n  # cpu: 2\nidle:\n", "{}", "---\n"])
def test_empty_files_and_sections_mean_the_defaults(text: str) -> None:
    assert settings.parse(text) == Settings()


def test_a_missing_file_means_the_defaults(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "none.yaml") == Settings()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("limits: {memry: 1G}", "there is no setting limits.memry", "limits.memory"),
        ("memory: 1G", "there is no setting memory", "limits.memory"),
        ("signin: {}", "there is no setting signin", "sign_in"),
        ("proxy: {http_port: 0}", "proxy.http_port cannot be 0", ""),
        ("limits: {memory: lots}", "512M or 1G", ""),
        ("limits: {memory: true}", "512M or 1G", ""),
        ("limits: {memory: -1}", "512M or 1G", ""),
        ("limits: {cpu: -1}", "limits.cpu cannot be -1", ""),
        ("idle: {servers: 2w}", "30m or 2h", ""),
        ("roles: {learner: {nbgrader: [formgrade]}}", "roles.learner.nbgrader.0", "formgrader"),
        ("roles: {learner: {environment: ../../etc}}", "not a valid environment name", "lower-case"),
        ("roles: {teacher: {}}", "there is no setting roles.teacher", "roles"),
        ("public_url: jupyter.example.edu", "public_url", ""),
        ("public_url: 'https://a.example/hub'", "without a path", ""),
        ("public_url: 'https://me@a.example'", "give a name such as class.example.org", ""),
        ("workspaces: {gallery: 'http://vsx.example.edu'}", "workspaces.gallery", ""),
        ("workspaces: {gallery: 'https://me:pw@vsx.example.edu'}", "give an address such as https://open-vsx.org", ""),
        ("sign_in: {lti: {public_url: 'https://a.example'}}", "no setting sign_in.lti.public_url", "public_url"),
        ("sign_in: {lti: {roles: {Mentor: tutor}}}", "sign_in.lti.roles.Mentor", ""),
        ("sign_in: {lti: {roles: {Mentor: students}}}", "sign_in.lti.roles.Mentor", "student"),
        ("a: [", "not valid YAML in line", "indentation"),
        ("limits:\n  cpu: 1\n cpu: 2\n", "not valid YAML in line", "indentation"),
        ("- 1", "must hold keys and values", "comments"),
        ("limits: 5", "limits cannot be 5", ""),
        ("courses: {bio101: {environmnt: x}}", "no setting courses.bio101.environmnt", "courses.bio101.environment"),
        ("courses: {'Bio 1': {}}", "not a valid course id", "lower-case"),
        ("courses: {bio: {workspace: vscod}}", "courses.bio.workspace cannot be 'vscod'", "vscode"),
        ("courses: {bio: {workspaces: [lab, x]}}", "courses.bio.workspaces cannot be 'x'", "there is notebook"),
        ("workspaces: {offered: [marimo]}", "workspaces.offered cannot be 'marimo'", "there is notebook"),
        ("workspaces: {ask: sometimes}", "workspaces.ask cannot be 'sometimes'", ""),
        ("workspaces: {types: {lab: {path: x}}}", "has a meaning already", ""),
        ("workspaces: {types: {A: {path: x}}}", "lower-case letters", ""),
        ("workspaces: {types: {m: {}}}", "workspaces.types.m.path", ""),
        ("workspaces: {types: {m: {path: 'https://a.example'}}}", "workspaces.types.m.path cannot be", ""),
        ("workspaces: {types: {m: {path: ../x}}}", "workspaces.types.m.path cannot be", ""),
    ],
)
def test_mistakes_are_named(text: str, message: str, hint: str) -> None:
    with pytest.raises(IllumiDeskError) as caught:
        settings.parse(text, name="FILE")
    assert message in caught.value.message
    assert "FILE" in caught.value.message
    assert hint in caught.value.hint


def test_a_role_inherits_the_limits_it_does_not_name() -> None:
    current = settings.parse("limits: {memory: 2G, cpu: 3}\nroles: {grader: {limits: {memory: 4G}}}")
    assert current.limits_of("grader").memory == 4 << 30
    assert current.limits_of("grader").cpu == 3
    assert current.limits_of("learner").memory == 2 << 30


@given(st.integers(0, 1 << 50), st.sampled_from(["", "K", "M", "G", "k", "m", "g", "KiB", "MB", " GiB"]))
def test_sizes(number: int, unit: str) -> None:
    factor = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit.strip().lower()[:1]]
    assert settings.parse_size(f"{number}{unit}") == int(float(number) * factor)


@given(st.integers(0, 10**6), st.sampled_from([("", 1), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_durations(number: int, unit: tuple[str, int]) -> None:
    assert settings.parse_duration(f"{number}{unit[0]}") == number * unit[1]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner)))
def test_a_size_is_a_number_or_a_value_error(value: object) -> None:
    for parse in (settings.parse_size, settings.parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(value) >= 0


KEYS = settings.known_keys()


@given(st.sampled_from(KEYS), st.data())
def test_a_slip_in_a_key_finds_it_or_another_real_one(key: str, source: st.DataObject) -> None:
    at = source.draw(st.integers(0, len(key) - 1))
    near = settings.nearest_key(key[:at] + key[at + 1 :])
    assert near in KEYS


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, "x"]) | st.text(max_size=6),
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats() | st.text(max_size=6),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_any_mapping_is_settings_or_one_sentence(raw: dict[str, object]) -> None:
    try:
        message = ""
        assert isinstance(settings.validate(raw), Settings)
    except IllumiDeskError as error:
        message = error.message
    assert message == "" or message.startswith("config.yaml: ")


@pytest.mark.parametrize("key", ["roles.learner", "roles.instructor", "roles.grader"])
def test_a_role_that_is_named_in_part_keeps_its_other_defaults(key: str) -> None:
    current = settings.parse(f"roles: {{{key.removeprefix('roles.')}: {{default_url: /tree}}}}")
    role = getattr(current.roles, key.removeprefix("roles."))
    assert role.nbgrader == getattr(Settings().roles, key.removeprefix("roles.")).nbgrader


def test_limits_are_finite() -> None:
    with pytest.raises(IllumiDeskError):
        settings.parse("limits: {cpu: .inf}")


def test_lti_roles_that_are_named_leave_the_others_as_they_are() -> None:
    roles = settings.parse("sign_in: {lti: {roles: {Mentor: ta}}}").sign_in.lti.roles
    assert roles == {**settings.LTI_ROLES, "Mentor": "ta"}


@pytest.mark.parametrize("url", ["https://A.example/", "https://a.example", " https://a.example "])
def test_the_public_url_is_written_one_way(url: str) -> None:
    assert settings.parse(f"public_url: '{url}'").public_url == "https://a.example"


def test_a_courses_own_counts_before_the_roles() -> None:
    current = settings.parse("courses: {bio101: {environment: bio}, 2024: {workspace: lab}}")
    assert current.environment_of("learner") == current.environment_of("learner", "other") == "default"
    assert current.environment_of("learner", "bio101") == current.environment_of("grader", "bio101") == "bio"
    assert current.environment_of("learner", "2024") == "default"
    assert list(current.offered_workspaces("2024")) == ["lab"]


def test_what_is_offered() -> None:
    everything = ["notebook", "lab", "nbclassic", "vscode", "theia", "rstudio"]
    assert list(settings.parse("").offered_workspaces()) == everything
    own = "workspaces: {types: {marimo: {title: Marimo, path: /marimo/, memory: 300M}}%s}\n"
    current = settings.parse(own % "")
    assert list(current.offered_workspaces()) == [*everything, "marimo"]
    marimo = current.offered_workspaces()["marimo"]
    assert (marimo.title, marimo.path, marimo.memory, marimo.program) == ("Marimo", "marimo/", 300 << 20, False)
    current = settings.parse(own % ", offered: [vscode, lab]" + "courses: {bio101: {workspaces: [marimo, lab]}}")
    assert list(current.offered_workspaces()) == ["vscode", "lab"]
    assert list(current.offered_workspaces("other")) == ["vscode", "lab"]
    assert list(current.offered_workspaces("bio101")) == ["marimo", "lab"]
