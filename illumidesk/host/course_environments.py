"""An environment per course: a shared one, and the packages that the course has beside.

It is called `course-COURSE` and is described as every other one, by `based_on` and a list for pip. The setting
`courses.COURSE.environment` names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from illumidesk import names, settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import descriptions, settings_file, users_environments
from illumidesk.host.descriptions import Description
from illumidesk.host.environments import Environment, requirement_name
from illumidesk.host.steps import Progress
from illumidesk.host.users_environments import DEFAULT, description_file, registered
from illumidesk.paths import Paths
from illumidesk.requirements import check_requirements, package_name

_HEAD = """\
# Packages of the course {course_id}. Change them here and run `illumidesk env update {name}`, or run
# `illumidesk course env {course_id} add PACKAGE`.
name: {name}
based_on: {base}
dependencies: []
"""


def description_of(course_id: str, paths: Paths) -> Description | None:
    """The description of a course's own environment; nothing where it has none."""
    file = description_file(names.course_environment(course_id), paths)
    return descriptions.read(file) if file.exists() else None


def base_of(course_id: str, current: settings.Settings) -> str:
    """The shared environment that a course's members have, or had before it got one of its own."""
    chosen = current.course(course_id).environment
    if chosen and chosen != names.course_environment(course_id):
        return chosen
    return current.role("learner").environment


def add(
    course_id: str, requirements: Sequence[str], paths: Paths, progress: Progress, *, base: str = ""
) -> tuple[Environment, bool]:
    """Have the course's environment with these packages, too; it is made where there is none.

    Args:
        course_id: the course.
        requirements: as people give them; one takes the place of that of the same package.
        paths: the layout.
        progress: shows the steps.
        base: the shared environment that it is based on; as it was, or what the members have, where absent.

    Returns:
        What it is made of, and whether it was built now.

    Raises:
        IllumiDeskError: where a package is none or cannot be had; what is in use stays.
    """
    checked = check_requirements(requirements)
    servers = {requirement_name(line) for line in users_environments.server_requirements()} | {"illumidesk"}
    for line in checked:
        if package_name(line) in servers:
            raise IllumiDeskError(
                f"{package_name(line)} serves people, and is not a course's to choose",
                hint="change it in the shared environment's description",
                status=409,
            )
    name = names.course_environment(course_id)
    before = description_of(course_id, paths)
    if before is None:
        base = base or base_of(course_id, settings.load(paths.config_file))
        _check_base(base, paths)
        text = _HEAD.format(course_id=course_id, name=name, base=base)
        before = descriptions.parse(text, file=f"{name}.yml")
    elif base and base != before.based_on:
        raise IllumiDeskError(
            f"{name} is based on {before.based_on or 'no other environment'}",
            hint=f"to base it on {base}, edit {description_file(name, paths)} and run illumidesk env update {name}",
            status=409,
        )
    return users_environments.build(name, descriptions.with_packages(before, checked), paths, progress)


def remove(course_id: str, packages: Sequence[str], paths: Paths, progress: Progress) -> tuple[Environment, bool]:
    """Build the course's environment without these packages.

    Raises:
        IllumiDeskError: where it has none of its own, or not such a package.
    """
    before = _of_its_own(course_id, paths)
    there = {requirement_name(line) for line in before.pip}
    for package in packages:
        if requirement_name(package) not in there:
            listed = ", ".join(before.pip) or "none"
            raise IllumiDeskError(
                f"{package} is no package that was added for {course_id}",
                hint=f"there is {listed}" if before.pip else "it has none beside the shared ones",
                status=404,
            )
    after = descriptions.with_packages(before, [], packages)
    return users_environments.build(names.course_environment(course_id), after, paths, progress)


def use(course_id: str, paths: Paths) -> bool:
    """Have the settings name the course's own environment; whether they did not before."""
    name = names.course_environment(course_id)
    if settings.load(paths.config_file).course(course_id).environment == name:
        return False
    settings_file.set_value(paths.config_file, _key(course_id), name)
    return True


def disuse(course_id: str, paths: Paths) -> bool:
    """Have the settings no longer name it; whether they did. What it was based on is named where that is no role's."""
    current = settings.load(paths.config_file)
    description = description_of(course_id, paths)
    if current.course(course_id).environment != names.course_environment(course_id):
        return False
    base = description.based_on if description is not None else ""
    if base and base != current.role("learner").environment:
        settings_file.set_value(paths.config_file, _key(course_id), base)
    else:
        settings_file.unset_value(paths.config_file, _key(course_id))
    return True


def check_has_one(course_id: str, paths: Paths) -> None:
    """Nothing, where the course has an environment of its own.

    Raises:
        IllumiDeskError: where it has none.
    """
    _of_its_own(course_id, paths)


def _of_its_own(course_id: str, paths: Paths) -> Description:
    found = description_of(course_id, paths)
    if found is None:
        raise IllumiDeskError(
            f"{course_id} has no environment of its own",
            hint=f"illumidesk course env {course_id} add PACKAGE makes one",
            status=404,
        )
    return found


def _check_base(base: str, paths: Paths) -> None:
    if registered(base, paths) is not None:
        raise IllumiDeskError(
            f"{base} is registered, not built here, so nothing can be based on it",
            hint=f"name another one with --based-on, such as {DEFAULT}",
            status=409,
        )
    if not description_file(base, paths).exists():
        raise IllumiDeskError(
            f"there is no description of an environment {base}", hint="`illumidesk env list` says what there is"
        )


def _key(course_id: str) -> str:
    return f"courses.{course_id}.environment"
