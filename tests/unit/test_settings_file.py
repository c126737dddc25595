"""Editing config.yaml: one key changes, and nothing else in the file does."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from illumidesk import settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import settings_file, yaml_edit
from illumidesk.paths import Paths, data
from illumidesk.settings import Settings

SHIPPED = data("config", "config.yaml").read_text("utf-8")
KEYS = settings.known_keys()
MAPPINGS = ("sign_in.lti.roles", "courses", "workspaces.types")  # are changed in an editor
LEAVES = [key for key in KEYS if key not in MAPPINGS and not any(other.startswith(f"{key}.") for other in KEYS)]
VALUES = {bool: ["true", "no"], int: ["80", "8080"], float: ["0.5", "2"], str: ["default", "other"], tuple: ["[]"]}


def values_for(key: str) -> list[str]:
    if key.endswith(".memory"):
        return ["512M", "3G", "0"]
    if key.startswith("idle."):
        return ["0", "45m", "1d"]
    if key.endswith(".nbgrader"):
        return ["[]", "[formgrader]", "[assignment-list, course-list]"]
    if key == "workspaces.ask":
        return ["never", "always"]
    if key == "workspaces.offered":
        return ["[]", "[lab]", "[vscode, lab]"]
    if key.endswith("min_password_length"):
        return ["1", "64"]
    if key.endswith("memory_percent"):
        return ["10", "100"]
    if key == "public_url":
        return ["https://lms.example.org", "http://192.0.2.7:8080"]
    if key == "proxy.trusted":
        return ["[]", "[127.0.0.1/32]", "[10.0.0.0/8, ::1/128]"]
    if key == "environments.channels":
        return ["[]", "[file:///srv/channel]", "[conda-forge, https://conda.example.org/ours]"]
    if key == "workspaces.gallery":
        return ["https://vsx.example.edu", '""']
    if key == "environments.channel_alias":
        return ["https://conda.example.org", "file:///srv/channels"]
    value = settings_file.typed_value(Settings(), key)
    return VALUES[type(value)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(SHIPPED)
    return file


def lines_changed(before: str, after: str) -> list[str]:
    import difflib

    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


# Text


@pytest.mark.parametrize("key", [key for key in LEAVES if ".limits." not in key])
def test_setting_a_key_of_the_shipped_file_changes_its_line_only(key: str) -> None:
    for given_value in values_for(key):
        value = settings_file.parse_value(key, given_value)
        after = yaml_edit.with_value(SHIPPED, key, value, KEYS)
        assert len(lines_changed(SHIPPED, after)) <= 2
        assert len(after.splitlines()) == len(SHIPPED.splitlines())
        assert settings_file.typed_value(settings.parse(after), key) == settings_file.typed_value(
            settings.validate(nested(key, value)), key
        )


@pytest.mark.parametrize("key", [key for key in LEAVES if ".limits." not in key])
def test_unsetting_a_key_of_the_shipped_file_removes_its_line_only(key: str) -> None:
    after = yaml_edit.without_value(SHIPPED, key)
    changed = lines_changed(SHIPPED, after)
    assert len(changed) == 1
    assert changed[0].startswith("- ")
    assert settings.parse(after) == Settings()


@pytest.mark.parametrize("key", MAPPINGS)
def test_a_key_that_is_a_mapping_is_not_set_but_may_be_unset(key: str) -> None:
    with pytest.raises(IllumiDeskError, match="takes one value"):
        settings_file.parse_value(key, "{Mentor: ta}")
    after = yaml_edit.without_value(SHIPPED, key)
    assert settings.parse(after) == Settings()
    assert settings_file.plain_value(Settings(), key) == settings_file.typed_value(Settings(), key)


def test_what_a_course_has_is_set_key_by_key(path: Path) -> None:
    settings_file.set_value(path, "courses.bio101.environment", "course-bio101")
    settings_file.set_value(path, "courses.2024.workspaces", "[lab, vscode]")
    settings_file.set_value(path, "courses.2024.workspace", "lab")
    assert len(lines_changed(SHIPPED, path.read_text())) == 2
    current = settings.load(path)
    assert current.course("bio101").environment == "course-bio101"
    assert (current.course("2024").workspaces, current.course("2024").workspace) == (("lab", "vscode"), "lab")
    assert settings_file.plain_value(current, "courses.2024.workspaces") == ["lab", "vscode"]
    assert settings_file.plain_value(current, "courses.none.environment") == ""
    assert settings_file.plain_value(current, "courses")["bio101"]["environment"] == "course-bio101"
    assert settings_file.typed_value(current, "courses")["2024"]["workspace"] == "lab"
    assert settings.validate(settings_file.plain_values(current)) == current
    assert settings_file.unset_value(path, "courses.bio101.environment")
    assert settings.load(path).course("bio101") == settings.Course()
    assert not settings_file.unset_value(path, "courses.bio101.environment")
    assert settings_file.unset_value(path, "courses.2024")
    assert settings.load(path).course("2024") == settings.Course()
    assert path.read_text() == SHIPPED, "nothing is left of a course that has no settings"


def test_what_a_course_has_is_set_in_a_file_that_names_others(path: Path) -> None:
    path.write_text("courses:\n  # mine\n  chem: {workspace: lab}\n\nidle:\n  servers: 1h\n")
    settings_file.set_value(path, "courses.bio101.environment", "course-bio101")
    assert "# mine" in path.read_text()
    current = settings.load(path)
    assert (current.course("chem").workspace, current.course("bio101").environment) == ("lab", "course-bio101")


@options(max_examples=25, deadline=None)  # reading YAML in Python is slow
@given(st.lists(st.tuples(st.sampled_from(LEAVES), st.booleans(), st.integers(0, 9)), max_size=6), st.booleans())
def test_any_series_of_edits_keeps_comments_and_says_what_was_asked(
    edits: list[tuple[str, bool, int]], windows: bool
) -> None:
    text = SHIPPED.replace("\n", "\r\n") if windows else SHIPPED
    comments = [line for line in text.splitlines() if line.strip().startswith("#")]
    wanted: dict[str, object] = {}
    for key, keep, choice in edits:
        if keep:
            values = values_for(key)
            value = settings_file.parse_value(key, values[choice % len(values)])
            text = yaml_edit.with_value(text, key, value, KEYS)
            wanted[key] = settings_file.typed_value(settings.validate(nested(key, value)), key)
        elif yaml_edit.has(yaml_edit.load(text), key):
            text = yaml_edit.without_value(text, key)
            wanted.pop(key, None)
    current = settings.parse(text)
    for key, expected in wanted.items():
        assert settings_file.typed_value(current, key) == expected
    assert [line for line in text.splitlines() if line.strip().startswith("#")] == comments
    assert ("\r\n" in text) == windows
    assert not windows or "\n" not in text.replace("\r\n", "")


@options(max_examples=25, deadline=None)
@given(st.sampled_from(LEAVES), st.integers(0, 9))
def test_keys_that_are_absent_are_added_to_any_file(key: str, choice: int) -> None:
    values = values_for(key)
    value = settings_file.parse_value(key, values[choice % len(values)])
    expected = settings.validate(nested(key, value))
    for text in ("", "# a comment\n", "# a comment", "---\n", "limits:\n", "proxy:\n\n# end\n", "idle: {}\n"):
        after = yaml_edit.with_value(text, key, value, KEYS)
        assert settings.parse(after) == expected
        assert all(line in after for line in text.split("\n") if line.startswith("#"))
        again = yaml_edit.without_value(after, key)
        assert settings.parse(again) == Settings()


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ("limits: {memory: 2G, cpu: 1} # both\n", "limits.cpu", 3, "limits: {memory: 2G, cpu: 3} # both\n"),
        ("limits:   # c\n", "limits.cpu", 3, "limits:   # c\n  cpu: 3\n"),
        ("limits:\n    cpu: 1 # c\n", "limits.tasks", 9, "limits:\n    cpu: 1 # c\n    tasks: 9\n"),
        ("limits:\n  cpu: 1", "limits.tasks", 9, "limits:\n  cpu: 1\n  tasks: 9\n"),
        ("limits:\n  # p\n  tasks: 1\n", "limits.cpu", 9, "limits:\n  cpu: 9\n  # p\n  tasks: 1\n"),
        ("# head\nidle:\n  graders: 1m\n", "limits.cpu", 9, "# head\nlimits:\n  cpu: 9\nidle:\n  graders: 1m\n"),
        ("# h\n\n# i\nidle:\n  servers: 1\n", "limits.cpu", 9, "# h\n\nlimits:\n  cpu: 9\n# i\nidle:\n  servers: 1\n"),
        ("limits:\n  cpu:  # c\n  tasks: 5\n", "limits.cpu", 2, "limits:\n  cpu: 2  # c\n  tasks: 5\n"),
        ("proxy:\n  bind: 'x' # c\n", "proxy.bind", "y", "proxy:\n  bind: y # c\n"),
        ("proxy:\n  bind: |\n    x\n\n# c\n", "proxy.bind", "y", "proxy:\n  bind: y\n\n# c\n"),
        (
            "roles:\n  learner:\n    nbgrader: # c\n    - formgrader # d\n    - x\n    # f\n    default_url: /x\n",
            "roles.learner.nbgrader",
            [],
            "roles:\n  learner:\n    nbgrader: [] # c\n    # f\n    default_url: /x\n",
        ),
        ("limits: &l {cpu: 1}\n", "limits.cpu", 2, "limits: {cpu: 2}\n"),
        ('"limits": {"cpu": 1}\n', "limits.cpu", 2, '"limits": {cpu: 2}\n'),
    ],
)  # fmt: skip
def test_ways_of_writing(before: str, key: str, value: object, after: str) -> None:
    assert yaml_edit.with_value(before, key, value, KEYS) == after


@pytest.mark.parametrize(
    ("before", "key", "after"),
    [
        ("limits: {memory: 2G, cpu: 1} # both\n", "limits.cpu", "limits: {memory: 2G} # both\n"),
        ("limits: {cpu: 1} # c\n", "limits.cpu", "limits: {} # c\n"),
        ("limits:\n  # why\n  cpu: 1 # c\n\n# next\nidle:\n", "limits.cpu", "limits:\n  # why\n\n# next\nidle:\n"),
        ("idle:\nlimits:\n  cpu: 1", "limits.cpu", "idle:\nlimits:\n"),
        ("roles:\n  grader:\n    nbgrader:\n    - a\n  # x\n", "roles.grader.nbgrader", "roles:\n  grader:\n  # x\n"),
        ("a: 1\nlimits:\n  cpu: 1\n", "a", "limits:\n  cpu: 1\n"),
    ],
)  # fmt: skip
def test_ways_of_removing(before: str, key: str, after: str) -> None:
    assert yaml_edit.without_value(before, key) == after


def test_a_shared_anchor_is_refused_rather_than_changed_twice() -> None:
    text = "roles:\n  learner: &x\n    default_url: /a\n  instructor: *x\n"
    with pytest.raises(IllumiDeskError, match="cannot change"):
        yaml_edit.with_value(text, "roles.instructor.default_url", "/b", KEYS)
    with pytest.raises(IllumiDeskError, match="cannot change"):
        yaml_edit.without_value(text, "roles.instructor.default_url")


@pytest.mark.parametrize("text", ["- 1\n", "x\n", "a: [\n", "a: 1\na: 2\n", "limits: 5\n"])
def test_what_is_no_settings_file_is_refused(text: str) -> None:
    with pytest.raises(IllumiDeskError):
        yaml_edit.with_value(text, "limits.cpu", 1, KEYS)


# Values


@pytest.mark.parametrize(
    ("key", "given_value", "message", "hint"),
    [
        ("limits.memry", "1G", "there is no setting limits.memry", "limits.memory"),
        ("limits", "1G", "limits is a section", "limits.memory"),
        ("limits.memory", "lots", "limits.memory cannot be 'lots'", ""),
        ("limits.memory", "", "no value", "unset"),
        ("limits.memory", "{a: 1}", "takes one value", ""),
        ("limits.memory", "[1", "not valid YAML", ""),
        ("proxy.http_port", "99999", "less than or equal to 65535", ""),
        ("sign_in.local.open_signup", "ture", "sign_in.local.open_signup cannot be", "true"),
        ("sign_in.local.open_signup", "2024", "sign_in.local.open_signup cannot be", "true or false"),
        ("roles.learner.nbgrader", "[formgradr]", "cannot be 'formgradr'", "formgrader"),
        ("roles.learner.nbgrader", "formgrader", "cannot be 'formgrader'", "list"),
        ("courses.bio101", "lab", "courses.bio101 is a section", "courses.bio101.environment"),
        (
            "courses.bio101.enviroment",
            "x",
            "there is no setting courses.bio101.enviroment",
            "courses.bio101.environment",
        ),
        ("courses.bio101.environment.x", "x", "there is no setting", ""),
        ("courses.Bio.environment", "x", "not a valid course id", "lower-case"),
        ("courses.bio101.environment", "../x", "courses.bio101.environment cannot be '../x'", "lower-case"),
        ("courses.bio101.workspace", "vscod", "courses.bio101.workspace cannot be 'vscod'", "vscode"),
        ("courses.bio101.workspaces", "[vscod]", "courses.bio101.workspaces cannot be 'vscod'", "vscode"),
        ("workspaces.offered", "[x y]", "give a name", ""),
        ("workspaces.types.lab.title", "x", "choose another", ""),
        ("roles.learner.environment", "../x", "roles.learner.environment cannot be '../x'", "lower-case"),
    ],
)
def test_wrong_values_are_refused_and_the_file_stays(
    path: Path, key: str, given_value: str, message: str, hint: str
) -> None:
    with pytest.raises(IllumiDeskError) as caught:
        settings_file.set_value(path, key, given_value)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert path.read_text() == SHIPPED


def test_texts_need_no_quotes(path: Path) -> None:
    assert settings_file.set_value(path, "roles.learner.environment", "2024") == "'2024'"
    assert settings_file.set_value(path, "proxy.bind", "::") == "'::'"
    assert settings_file.set_value(path, "proxy.bind", "") == "''"
    current = settings.load(path)
    assert (current.roles.learner.environment, current.proxy.bind) == ("2024", "")


def test_yes_is_written_as_true(path: Path) -> None:
    assert settings_file.set_value(path, "sign_in.local.open_signup", "yes") == "true"
    assert "open_signup: true" in path.read_text()


@given(st.integers(0, 1 << 45))
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert settings.parse_size(settings_file.format_size(size)) == size


@given(st.integers(0, 10**9))
def test_durations_are_shown_as_they_are_read(seconds: int) -> None:
    assert settings.parse_duration(settings_file.format_duration(seconds)) == seconds


def test_plain_values_are_the_shipped_file() -> None:
    plain = settings_file.plain_values(Settings())
    assert settings.validate(plain) == Settings()
    assert plain == yaml_edit.load(SHIPPED)


def test_a_roles_limits_in_effect() -> None:
    current = settings.parse("limits: {memory: 2G}\nroles: {grader: {limits: {cpu: 4}}}")
    assert settings_file.plain_value(current, "roles.grader.limits.memory") == "2G"
    assert settings_file.plain_value(current, "roles.grader.limits") == {"memory": "2G", "cpu": 4.0, "tasks": 512}
    assert settings_file.typed_value(current, "roles.learner.limits.memory") == 2 << 30
    with pytest.raises(IllumiDeskError):
        settings_file.plain_value(current, "roles.grader.limit")


# The file


def test_mode_and_owner_stay(path: Path) -> None:
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    settings_file.set_value(path, "limits.cpu", "2")
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert [entry.name for entry in path.parent.iterdir()] == ["config.yaml"]


def test_a_link_to_the_file_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    settings_file.set_value(link, "limits.cpu", "2")
    assert link.is_symlink()
    assert settings.load(path).limits.cpu == 2


def test_a_missing_file_is_made_with_the_shipped_comments(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    settings_file.set_value(path, "limits.cpu", "2")
    assert "# Processor cores." in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(IllumiDeskError, match="there is no folder"):
        settings_file.set_value(tmp_path / "none" / "config.yaml", "limits.cpu", "2")


def test_unset_falls_back_to_the_default(path: Path) -> None:
    settings_file.set_value(path, "limits.cpu", "2")
    assert settings_file.unset_value(path, "limits.cpu")
    assert not settings_file.unset_value(path, "limits.cpu")
    assert settings.load(path) == Settings()


def test_unset_of_a_section_keeps_its_comments(path: Path) -> None:
    for section in ("limits", "roles", "roles.learner", "proxy"):
        settings_file.unset_value(path, section)
    text = path.read_text()
    assert "# Processor cores." in text
    assert "cpu" not in text
    assert settings.load(path) == Settings()


def test_unset_repairs_a_file_with_an_unknown_key(path: Path) -> None:
    path.write_text(SHIPPED.replace("  cpu: 1.0\n", "  cpu: 1.0\n  cpus: 2 # mine\n"))
    with pytest.raises(IllumiDeskError, match=r"limits\.cpus"):
        settings_file.set_value(path, "limits.cpu", "2")
    assert settings_file.unset_value(path, "limits.cpus")
    assert path.read_text() == SHIPPED
    with pytest.raises(IllumiDeskError) as caught:
        settings_file.unset_value(path, "limits.cpus")
    assert "limits.cpu" in caught.value.hint


def test_set_repairs_a_wrong_value(path: Path) -> None:
    path.write_text(SHIPPED.replace("cpu: 1.0", "cpu: many"))
    settings_file.set_value(path, "limits.cpu", "1.0")
    assert path.read_text() == SHIPPED


def test_edits_at_the_same_time_are_all_kept(path: Path) -> None:
    values = {
        "limits.cpu": "3",
        "limits.tasks": "99",
        "idle.servers": "5h",
        "proxy.http_port": "81",
        "proxy.bind": "::1",
    }
    threads = [threading.Thread(target=settings_file.set_value, args=(path, *item)) for item in values.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = yaml_edit.load(path.read_text())
    assert all(yaml_edit.has(own, key) for key in values)
    current = settings.load(path)
    assert (current.limits.cpu, current.limits.tasks, current.idle.servers) == (3, 99, 5 * 3600)
    assert (current.proxy.http_port, current.proxy.bind) == (81, "::1")


def test_a_failed_write_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        settings_file.set_value(path, "limits.cpu", "2")
    assert path.read_text() == SHIPPED
    assert [entry.name for entry in path.parent.iterdir()] == ["config.yaml"]


def test_who_is_not_root_is_told_so(path: Path) -> None:
    path.parent.chmod(0o500)
    if os.geteuid() == 0:
        # Root may write everywhere: be nobody for a moment, who may pass through pytest's folders but not write.
        for folder in [*path.parents][:-2]:
            folder.chmod(folder.stat().st_mode | 0o011)
        path.parent.chmod(0o555)
        path.chmod(0o644)
        os.seteuid(65534)
    try:
        with pytest.raises(IllumiDeskError) as caught:
            settings_file.set_value(path, "limits.cpu", "2")
    finally:
        if os.geteuid() == 65534:
            os.seteuid(0)
    assert "sudo" in caught.value.hint


def test_an_environment_that_is_not_built_is_refused(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    settings_file.check_environments(Settings(), paths)  # nothing is installed: nothing to compare with
    program = paths.environments / "default/bin/jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    settings_file.check_environments(Settings(), paths)
    with pytest.raises(IllumiDeskError) as caught:
        settings_file.check_environments(settings.parse("roles: {learner: {environment: defualt}}"), paths)
    assert "roles.learner.environment" in caught.value.message
    assert "default" in caught.value.hint
    (paths.environments / "tools/bin").mkdir(parents=True)
    with pytest.raises(IllumiDeskError, match="servers cannot run from that environment"):
        settings_file.check_environments(settings.parse("roles: {learner: {environment: tools}}"), paths)
    with pytest.raises(IllumiDeskError) as caught:
        settings_file.check_environments(settings.parse("roles: {learner: {environment: xyz}}"), paths)
    assert caught.value.hint == "there is default, tools"
    settings_file.check_environments(settings.parse("courses: {bio101: {}, chem: {environment: default}}"), paths)
    with pytest.raises(IllumiDeskError, match=r"courses\.bio101\.environment cannot be 'defalt'"):
        settings_file.check_environments(settings.parse("courses: {bio101: {environment: defalt}}"), paths)


def nested(key: str, value: object) -> dict[str, object]:
    raw: dict[str, object] = {}
    for part in reversed(key.split(".")):
        raw = {part: value}
        value = raw
    return raw
