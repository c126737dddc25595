"""Which courses the Course List shows."""

from illumidesk.grader.course_list import courses_taught


def test_courses_taught() -> None:
    groups = ["nbgrader-a", "formgrade-z", "formgrade-cs-102", "other", "formgrade"]
    assert courses_taught(groups) == ["cs-102", "z"]
