"""Where a launch leads, by what its course has for itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from illumidesk.hub.launches import LTI13LaunchHandler
from illumidesk.settings import parse


@pytest.mark.parametrize(
    ("course_id", "target", "leads_to"),
    [
        (None, "", ""),
        (None, "/hub/workspaces/lab", "/hub/workspaces/lab"),
        ("chem", "", ""),
        ("chem", "/hub/user-redirect/lab", "/hub/user-redirect/lab"),
        ("chem", "/hub/workspaces/lab", "/hub/workspaces/lab?course=chem"),
        ("bio101", "", "/hub/workspaces?course=bio101"),
        ("bio101", "/hub/workspaces/lab", "/hub/workspaces/lab?course=bio101"),
        (
            "bio101",
            "/hub/user-redirect/git-pull?repo=a%2Fb&app=lab",
            "/hub/workspaces?course=bio101&next=%2Fhub%2Fuser-redirect%2Fgit-pull%3Frepo%3Da%252Fb%26app%3Dlab",
        ),
        ("bio101", "/user/ana/lab", "/hub/workspaces?course=bio101&next=%2Fuser%2Fana%2Flab"),
        ("bio101", "/hub/workspaces/lab?course=chem", "/hub/workspaces/lab?course=chem"),
        # These are no pages of a person's own server.
        ("bio101", "/hub/home", "/hub/home"),
        ("bio101", "/services/bio101/lab", "/services/bio101/lab"),
        ("bio101", "/users", "/users"),
    ],
)
def test_a_course_with_something_of_its_own_is_named(course_id: str | None, target: str, leads_to: str) -> None:
    handler = LTI13LaunchHandler.__new__(LTI13LaunchHandler)
    handler.course_id = course_id
    handler.classroom = SimpleNamespace(settings=parse("courses: {bio101: {environment: bio}}"))
    assert handler._for_course(target) == leads_to
