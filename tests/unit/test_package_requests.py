"""What instructors ask for, in the registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Registry
from illumidesk.registry.package_requests import MAX_ANSWERED, MAX_OPEN


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.ensure_course("bio101")
    registry.ensure_course("chem1")
    yield registry
    registry.close()


def waiting(registry: Registry) -> list[tuple[str, str, str]]:
    return [(one.course_id, one.requirement, one.asked_by) for one in registry.package_requests.waiting()]


def test_asked_once(registry: Registry) -> None:
    requests = registry.package_requests
    assert len(requests.ask("bio101", "maria", ["pandas", "numpy>=2"])) == 2
    assert requests.ask("bio101", "max", ["pandas"]) == []
    assert len(requests.ask("bio101", "max", ["Numpy>=2.1"])) == 1
    requests.ask("chem1", "maria", ["rdkit"])
    assert waiting(registry) == [
        ("bio101", "pandas", "maria"),
        ("bio101", "Numpy>=2.1", "max"),
        ("chem1", "rdkit", "maria"),
    ]
    with pytest.raises(IllumiDeskError, match="no course none"):
        requests.ask("none", "maria", ["x"])


def test_answered(registry: Registry) -> None:
    requests = registry.package_requests
    requests.ask("bio101", "maria", ["pandas", "numpy", "rdkit"])
    requests.ask("chem1", "maria", ["pandas"])
    assert [one.requirement for one in requests.settle("bio101", ["pandas", "other"], "granted")] == ["pandas"]
    assert requests.settle("bio101", ["pandas"], "granted") == []
    requests.settle("bio101", ["rdkit"], "declined", "No wheels for this machine")
    assert {(one.requirement, one.answer, one.reason) for one in requests.of_course("bio101")} == {
        ("pandas", "granted", ""),
        ("numpy", None, ""),
        ("rdkit", "declined", "No wheels for this machine"),
    }
    assert waiting(registry) == [("bio101", "numpy", "maria"), ("chem1", "pandas", "maria")]
    assert len(requests.ask("bio101", "maria", ["rdkit"])) == 1, "asked again"
    for reason in ("a\nb", "x" * 301):
        with pytest.raises(IllumiDeskError, match="a reason is one line"):
            requests.settle("bio101", ["numpy"], "declined", reason)


def test_taken_back(registry: Registry) -> None:
    registry.package_requests.ask("bio101", "maria", ["Scikit_Learn>=1"])
    assert registry.package_requests.take_back("chem1", "scikit-learn") is False
    assert registry.package_requests.take_back("bio101", "scikit-learn") is True
    assert registry.package_requests.take_back("bio101", "scikit-learn") is False
    assert waiting(registry) == []


def test_not_without_end(registry: Registry) -> None:
    requests = registry.package_requests
    names = [f"package{number}" for number in range(MAX_OPEN)]
    requests.ask("bio101", "maria", names)
    with pytest.raises(IllumiDeskError, match=f"more than {MAX_OPEN} packages"):
        requests.ask("bio101", "maria", ["one-more"])
    assert len(waiting(registry)) == MAX_OPEN
    for _ in range(3):
        requests.settle("bio101", names, "declined")
        requests.ask("bio101", "maria", names)
    assert len(requests.of_course("bio101")) == MAX_ANSWERED + MAX_OPEN


def test_they_go_with_the_course(registry: Registry) -> None:
    registry.package_requests.ask("bio101", "maria", ["pandas"])
    registry.remove_course("bio101")
    assert waiting(registry) == []
