"""What the documentation says exists: commands, flags, settings, units, files and links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import machine
import pytest

from illumidesk.cli import app
from illumidesk.settings import field_of, known_keys

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_OURS = re.compile(r"(?:^|\s)(?:sudo (?:[A-Z_]+=\S+ )?)?illumidesk (?=[a-z-])")
_SHELL_WORDS = {"|", "||", "&&", ";", ">", "<"}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_lines(text: str) -> Iterator[str]:
    """Lines of code blocks that are typed into a shell, and code within sentences."""
    for language, block in _FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            yield from (line.removeprefix("$ ") for line in block.splitlines())
    yield from _SPAN.findall(_FENCE.sub("", text))


def commands(text: str) -> Iterator[list[str]]:
    """The words after each `illumidesk` that a page tells people to type."""
    for line in code_lines(text):
        found = _OURS.search(line)
        if found is None or line[: found.start()].strip():
            continue
        rest = line[found.end() :]
        words = []
        for word in shlex.split(rest, comments=True):
            if word in _SHELL_WORDS:
                break
            # As a signature has them: [--title TITLE] [NAME]...
            words.append(word.removesuffix("...").strip("[]"))
        yield words


def check_command(words: list[str]) -> None:
    command: click.Command = app
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if "…" in words or not words:
        # A command's name alone, as in a heading or a hint
        return
    # As the command line has it: click remembers the first that it is told.
    context = click.Context(command, **{**command.context_settings, "help_option_names": ["-h", "--help"]})
    if words in (["-h"], ["--help"]):
        return
    known, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest, f"{rest} is too much"
    for parameter in command.params:
        value = known.get(str(parameter.name))
        if isinstance(parameter.type, click.Choice) and isinstance(value, str) and value.islower():
            assert value in parameter.type.choices, f"{value} is not one of {parameter.type.choices}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_exist(page: Path) -> None:
    for words in commands(page.read_text("utf-8")):
        try:
            check_command(words)
        except (click.UsageError, AssertionError) as error:
            pytest.fail(f"illumidesk {shlex.join(words)}: {error}")


def test_commands_are_found() -> None:
    """The test above looks at something."""
    text = (
        "```sh\nsudo illumidesk user add ana  # her\n```\nRun `sudo illumidesk config reload`, or `illumidesk` alone."
    )
    assert list(commands(text)) == [["user", "add", "ana"], ["config", "reload"]]
    with pytest.raises(AssertionError):
        check_command(["user", "ad", "ana"])
    with pytest.raises(click.NoSuchOption):
        check_command(["user", "add", "--adm", "ana"])
    with pytest.raises(AssertionError):
        check_command(["enroll", "bio101", "ana", "--role", "teacher"])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{link}: there is no {target}"
        if anchor:
            assert anchor in anchors(file.read_text("utf-8")), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_directives_lead_somewhere(page: Path) -> None:
    for language, block in _FENCE.findall(page.read_text("utf-8")):
        if language == "{toctree}":
            for entry in block.splitlines():
                if entry and not entry.startswith(":"):
                    assert (page.parent / f"{entry}.md").exists(), f"toctree: {entry}"
    for included in re.findall(r"^```\{include\} (\S+)", page.read_text("utf-8"), re.MULTILINE):
        assert (page.parent / included).exists(), f"include: {included}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,4} (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    entries = {line for _, block in _FENCE.findall(index) for line in block.splitlines()}
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        if name != "index" and not name.startswith(("_", "screenshots/")):
            assert name in entries, f"{name} is in no toctree of index.md"


def test_every_setting_is_explained() -> None:
    text = (DOCS / "how-to" / "settings.md").read_text("utf-8")
    keys = known_keys()
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    for key in leaves:
        shown = re.sub(r"^roles\.\w+\.", "roles.ROLE.", key)
        assert text.count(f"`{shown}`") >= 2, f"{shown}: once in the table and once in words"
    for role in {key.split(".")[1] for key in keys if key.startswith("roles.")}:
        assert f"`roles.{role}`" in text


def test_no_setting_is_invented() -> None:
    for page in PAGES:
        for words in commands(page.read_text("utf-8")):
            if words[:1] == ["config"] and words[1:2] and words[1] in ("get", "set", "unset") and len(words) > 2:
                assert field_of(words[2]) or words[2].isupper(), f"{page_id(page)}: {words[2]}"


def test_the_installers_flags_are_explained() -> None:
    usage = re.search(r"<<'USAGE'\n(.*?)^USAGE", (ROOT / "install.sh").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert usage is not None
    page = (DOCS / "install.md").read_text("utf-8")
    explained = set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE))
    assert explained == set(re.findall(r"^  (--[a-z-]+)", usage[1], re.MULTILINE))
    assert set(re.findall(r"ILLUMIDESK_[A-Z_]+", usage[1])) <= set(re.findall(r"ILLUMIDESK_[A-Z_]+", page))


def test_units_exist() -> None:
    shipped = {file.name for file in (ROOT / "systemd").iterdir()}
    for page in PAGES:
        for unit in re.findall(r"\billumidesk(?:-[a-z]+)?@?[A-Z]*\.(?:service|slice)\b", page.read_text("utf-8")):
            assert re.sub(r"@[A-Z]*\.", "@.", unit) in shipped, f"{page_id(page)}: {unit}"


def test_machine_commands_exist() -> None:
    parser = machine.make_parser()
    seen = 0
    for page in PAGES:
        for line in code_lines(page.read_text("utf-8")):
            if line.startswith("sudo scripts/machine.py "):
                arguments, unknown = parser.parse_known_args(shlex.split(line)[2:])
                assert not unknown or arguments.function is machine.command_try, f"{page_id(page)}: {line}"
                seen += 1
    assert seen


def test_promised_tests_exist() -> None:
    written = "".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    page = (DOCS / "security.md").read_text("utf-8")
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in written, name
    for file in re.findall(r"`(\w+/test_\w+\.py)`", page):
        assert (ROOT / "tests" / file).exists(), file
