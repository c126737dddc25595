"""Descriptions of environments: what is read, what is refused, and what the lists of earlier versions become."""

from __future__ import annotations

from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.host import descriptions
from illumidesk.host.conffiles import ensure_conffile, shipped_digest
from illumidesk.host.environments import read_requirements
from illumidesk.host.steps import Progress
from illumidesk.host.users_environments import based_on, folder, migrate_lists, server_requirements, whole
from illumidesk.paths import Paths, data

CONDA = """\
# for the class
name: ml
channels:
  - conda-forge   # first
  - /srv/channel
dependencies:
  - python=3.12
  - numpy >=1.26,<3
  - pip
  - pip:
      - scikit-learn>=1.5  # newer than conda's
      - "pkg @ https://example.org/x#egg=x"
"""


def test_conda_s_own_format() -> None:
    found = descriptions.parse(CONDA, file="ml.yml")
    assert found.name == "ml"
    assert found.channels == ("conda-forge", "file:///srv/channel")
    assert found.conda == ("python=3.12", "numpy >=1.26,<3", "pip")
    assert found.pip == ("scikit-learn>=1.5", "pkg @ https://example.org/x#egg=x")


def test_pip_alone() -> None:
    found = descriptions.parse("dependencies: [pip, {pip: [numpy]}]", file="x.yml")
    assert (found.name, found.channels, found.conda, found.pip) == ("", (), (), ("numpy",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it has no dependencies"),
        ("name: x", "it has no dependencies"),
        ("- a\n- b", "it has no dependencies"),
        ("a: [", "not valid YAML"),
        ("dependencies: numpy", "dependencies must be a list"),
        ("dependencies: [1.0]", "1.0 is not a dependency"),
        ("dependencies: ['--file x']", "is not a dependency"),
        ("dependencies: [{npm: [x]}]", "there is only pip, not npm"),
        ("dependencies: [{pip: ['-r x.txt']}]", "-r is an option, not a package"),
        ("dependencies: [{pip: ['--index-url https://x']}]", "--index-url is an option"),
        ("dependencies: [{pip: ['']}]", "is not a package for pip"),
        ("dependencies: []\nvariables: {A: b}", "variables is not understood here"),
        ("dependencies: []\nchannels: ['https://me:secret@x.org/c']", "passwords and tokens"),
        ("dependencies: []\nchannels: ['https://x.org/t/secret/c']", "passwords and tokens"),
        ("dependencies: []\nchannels: ['-x']", "is no channel"),
        ("dependencies: []\nbased_on: ../x", "not a valid environment name"),
        ("dependencies: []\nbased_on: [a]", "not a valid environment name"),
    ],
)
def test_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(IllumiDeskError) as caught:
        descriptions.parse(text, file="/etc/x.yml")
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("/etc/x.yml")


def test_changed_keeps_comments() -> None:
    before = descriptions.parse(CONDA, file="ml.yml")
    assert descriptions.changed(before, name="ml") is before
    after = descriptions.changed(before, name="other", channels=("ours",))
    assert (after.name, after.channels, after.conda, after.pip) == ("other", ("ours",), before.conda, before.pip)
    assert "# for the class" in after.text
    assert "# newer than conda's" in after.text
    named = descriptions.changed(descriptions.parse("dependencies:\n  - pip: [numpy]\n", file="x"), name="plain")
    assert named.text.splitlines()[0] == "name: plain"


def test_packages_are_added_and_removed_in_place() -> None:
    head = "name: x\nbased_on: default\ndependencies:\n  - pip:\n"
    text = f"{head}      # frames\n      - pandas  # for week 2\n      - Foo_Bar>=1\n"
    description = descriptions.parse(text, file="x.yml")
    assert description.based_on == "default"
    more = descriptions.with_packages(description, ["numpy>=2", "foo-bar>=2"])
    assert more.pip == ("pandas", "numpy>=2", "foo-bar>=2")
    assert "# for week 2" in more.text
    fewer = descriptions.with_packages(more, [], ["Pandas", "foo.bar"])
    assert (fewer.pip, fewer.based_on) == (("numpy>=2",), "default")
    none = descriptions.with_packages(fewer, [], ["numpy"])
    assert none.pip == ()
    again = descriptions.with_packages(none, ["polars"])
    assert again.pip == ("polars",)
    assert again.text.endswith("dependencies:\n  - pip:\n      - polars\n")


def test_what_it_is_based_on_comes_along(paths: Paths) -> None:
    def describe(name: str, text: str) -> descriptions.Description:
        (folder(paths) / f"{name}.yml").write_text(text)
        return descriptions.read(folder(paths) / f"{name}.yml")

    describe("default", "channels: [ours]\ndependencies: [python=3.12, {pip: [jupyterlab]}]\n")
    describe("mine", "based_on: default\ndependencies: [{pip: [pandas]}]\n")
    top = whole("top", describe("top", "based_on: mine\ndependencies: [r-base, {pip: [numpy]}]\n"), paths)
    assert (top.conda, top.pip) == (("python=3.12", "r-base"), ("jupyterlab", "pandas", "numpy"))
    assert top.channels == ("ours",)
    assert (based_on("default", paths), based_on("mine", paths), based_on("top", paths)) == (["mine"], ["top"], [])
    describe("default", "based_on: top\ndependencies: []\n")
    with pytest.raises(IllumiDeskError, match="default is based on itself: default → top → mine → default"):
        whole("default", descriptions.read(folder(paths) / "default.yml"), paths)
    with pytest.raises(IllumiDeskError, match="x is based on none, which is not described here"):
        whole("x", describe("x", "based_on: none\ndependencies: []\n"), paths)


def test_packages_beside_those_of_conda() -> None:
    description = descriptions.parse("dependencies: [python=3.12]\n", file="x.yml")
    more = descriptions.with_packages(description, ["numpy"])
    assert (more.conda, more.pip) == (("python=3.12",), ("numpy",))


def test_pinned_is_a_description() -> None:
    text = descriptions.pinned("ml", ("conda-forge",), ["python=3.12.1", "numpy=2.0"], ["x==1", "y @ https://e.org/y"])
    found = descriptions.parse(text, file="x")
    assert found.conda == ("python=3.12.1", "numpy=2.0", "pip")
    assert found.pip == ("x==1", "y @ https://e.org/y")


def test_the_shipped_one_needs_no_channel_and_serves_people() -> None:
    found = descriptions.read(data("config", "environments", "default.yml"))
    assert (found.name, found.conda, found.channels) == ("default", (), ())
    assert set(server_requirements()) <= set(found.pip)


# Lists of earlier versions

LIST = """\
# What everybody has.

jupyterlab>=4.4,<5
numpy  # for the second term
pkg @ https://example.org/x#egg=x
'odd: one'
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    folder(paths).mkdir(parents=True)
    return paths


def test_a_list_becomes_a_description() -> None:
    text = descriptions.from_requirements("ml", LIST)
    found = descriptions.parse(text, file="ml.yml")
    assert found.name == "ml"
    assert found.pip == ("jupyterlab>=4.4,<5", "numpy", "pkg @ https://example.org/x#egg=x", "'odd: one'")
    assert "# What everybody has." in text
    assert "# for the second term" in text
    assert descriptions.parse(descriptions.from_requirements("empty", "# nothing\n"), file="x").pip == ()
    shipped = descriptions.from_requirements(
        "default", "# In default.txt. Add packages and run install.sh\n# again.\n\n# A\nx\n"
    )
    assert "again" not in shipped
    assert "# A" in shipped


def shipped_list(paths: Paths, tmp_path: Path, text: str = "jupyterlab>=4\n") -> Path:
    source = tmp_path / "shipped" / "default.txt"
    source.parent.mkdir()
    source.write_text(text)
    target = folder(paths) / "default.txt"
    ensure_conffile(source, target, paths=paths)
    return target


def migrate(paths: Paths) -> Progress:
    progress = Progress()
    migrate_lists(paths, shipped_digest(folder(paths) / "default.txt", paths=paths), progress)
    return progress


def bring(paths: Paths) -> str:
    return ensure_conffile(data("config", "environments", "default.yml"), folder(paths) / "default.yml", paths=paths)


def test_the_list_that_nobody_changed_goes(paths: Paths, tmp_path: Path) -> None:
    shipped_list(paths, tmp_path)
    assert migrate(paths).notes == []
    assert bring(paths) == "written"
    assert [file.name for file in folder(paths).iterdir()] == ["default.yml"]


def test_what_somebody_wrote_stays(paths: Paths, tmp_path: Path) -> None:
    file = shipped_list(paths, tmp_path)
    file.write_text(file.read_text() + "pandas>=2\n")
    (folder(paths) / "ml.txt").write_text(LIST)
    notes = migrate(paths).notes
    assert len(notes) == 2
    assert descriptions.read(folder(paths) / "default.yml").pip == ("jupyterlab>=4", "pandas>=2")
    assert descriptions.read(folder(paths) / "ml.yml").pip == read_requirements(folder(paths) / "ml.txt.old")
    assert bring(paths) == "beside"
    assert bring(paths) == "kept"
    before = sorted(folder(paths).iterdir())
    assert migrate(paths).notes == []
    assert sorted(folder(paths).iterdir()) == before


def test_a_list_beside_a_description_is_not_read(paths: Paths) -> None:
    bring(paths)
    (folder(paths) / "default.txt").write_text("pandas\n")
    assert "is not read any more" in migrate(paths).notes[0]
    assert (folder(paths) / "default.txt").exists()


def test_a_list_that_cannot_be_read_stops(paths: Paths) -> None:
    (folder(paths) / "ml.txt").write_text("-r other.txt\n")
    with pytest.raises(IllumiDeskError, match="line 1"):
        migrate(paths)
    assert (folder(paths) / "ml.txt").exists()
    assert not (folder(paths) / "ml.yml").exists()
