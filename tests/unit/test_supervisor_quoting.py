"""What the supervisor writes for systemd reads back as it was. The system tests ask a real systemd."""

from __future__ import annotations

import shlex

from hypothesis import given
from hypothesis import strategies as st

from illumidesk.supervisor import quoting
from illumidesk.supervisor.policy import check_variables
from illumidesk.supervisor.systemd import escape, unescape


def fit(value: str) -> bool:
    try:
        check_variables({"A": value})
    except ValueError:
        return False
    return True


values = st.text(st.characters() | st.sampled_from("\"'\\$`\n\t #;=%"), max_size=30).filter(fit)


def read_environment_file(text: str) -> dict[str, str]:
    """As systemd's parse_env_file_internal: double quotes with backslashes before `"`, `\\`, `` ` `` and `$`."""
    found: dict[str, str] = {}
    rest = text
    while rest:
        name, rest = rest.split("=", 1)
        assert rest[0] == '"'
        value, position = "", 1
        while rest[position] != '"':
            if rest[position] == "\\":
                position += 1
                if rest[position] not in '"\\`$':
                    assert rest[position] != "\n"
                    value += "\\"
            value += rest[position]
            position += 1
        assert rest[position + 1] == "\n"
        found[name] = value
        rest = rest[position + 2 :]
    return found


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), values, max_size=5))
def test_an_environment_file_reads_back(variables: dict[str, str]) -> None:
    assert read_environment_file(quoting.environment_file(variables)) == variables


@given(st.lists(values.map(lambda value: "--a=" + value), max_size=5))
def test_words_read_back(arguments: list[str]) -> None:
    # where a backslash stands before a line's end the shell's rules differ from systemd's; the policy has no such
    arguments = [argument.replace("\n", "") for argument in arguments]
    assert shlex.split(quoting.words(arguments)) == arguments


@given(st.from_regex(r"[a-z][a-z0-9_@.-]{0,40}", fullmatch=True))
def test_bus_paths_read_back(unit: str) -> None:
    label = escape(unit)
    assert label.replace("_", "").isalnum()
    assert unescape(label) == unit


def test_a_known_bus_path() -> None:
    assert escape("jupyter-a_1.service") == "jupyter_2da_5f1_2eservice"
