"""Packages that people ask for."""

from __future__ import annotations

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.requirements import check_requirement, check_requirements, package_name


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("pandas", "pandas"),
        (" Numpy >= 2 , < 3 ", "Numpy<3,>=2"),
        ("scikit-learn==1.5.*", "scikit-learn==1.5.*"),
        ("dask[dataframe]~=2025.1", "dask[dataframe]~=2025.1"),
    ],
)
def test_taken(text: str, requirement: str) -> None:
    assert check_requirement(text) == requirement
    assert check_requirement(requirement) == requirement


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a package"),
        ("two words", "is not a package"),
        ("pandas>", "is not a package"),
        ("pandas>=x", "is not a package"),
        ("-e .", "is an option"),
        ("--index-url=https://evil.example", "is an option"),
        ("./here", "is an address or a path"),
        ("pandas @ https://evil.example/p.whl", "is an address or a path"),
        ("git+https://evil.example/p", "is an address or a path"),
        ("C:\\packages", "is an address or a path"),
        ("pandas; python_version < '3'", "has a condition"),
        ("pandas\nnumpy", "is not a package"),
        ("pandas\x00", "is not a package"),
        ("a" * 201, "is too long"),
    ],
)
def test_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(IllumiDeskError, match=sentence) as refused:
        check_requirement(text)
    assert refused.value.hint
    assert "\n" not in refused.value.message


def test_several() -> None:
    assert check_requirements(["pandas", "numpy >=2", "pandas"]) == ["pandas", "numpy>=2"]
    with pytest.raises(IllumiDeskError, match="are the same package"):
        check_requirements(["scikit-learn>=1", "Scikit_Learn>=2"])
    with pytest.raises(IllumiDeskError, match="no package is named"):
        check_requirements([])
    assert package_name("Scikit_Learn[x]>=2") == "scikit-learn"
