"""Which column of the platform an assignment's grades go to.

A link that opens the assignment says so; a column that was made for it, too. Otherwise its title decides, where just
one column has it. Where that is not clear, nothing is guessed: a teacher is asked once, and the answer is kept.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from illumidesk.errors import IllumiDeskError
from illumidesk.lti import ags
from illumidesk.lti.services import ServiceError, Services
from illumidesk.registry import Column, Context, Platform, ResourceLink
from illumidesk.registry.grades import GradeRecords
from illumidesk.registry.models import ColumnSource

#: The key of a column that is to be made.
NEW = "new"


@dataclass(frozen=True)
class Place:
    """Somewhere that grades can go.

    Attributes:
        key: tells it from the others; `NEW` for a column that is to be made.
        label: what the platform calls it.
        line_item: its address by LTI 1.3.
        link_id: the registry's number of the link by LTI 1.1.
        maximum: its points; 0 where they are not known.
        assignment: the assignment that its link opens, "" where it has none or it opens something else.
        resource_id: what the platform keeps as this tool's name for what is graded, "" for nothing.
        tag: likewise, another one.
    """

    key: str
    label: str
    line_item: str = ""
    link_id: int | None = None
    maximum: float = 0
    assignment: str = ""
    resource_id: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Found:
    """Where an assignment's grades go in one platform's course.

    Attributes:
        platform: the platform.
        context: its course.
        column: the place; None where it is not known, or would have to be made.
        make: whether a column will be made with the first grade.
        places: what a teacher may choose of, where it is not clear.
        problem: why there is no place at all.
    """

    platform: Platform
    context: Context
    column: Column | None = None
    make: bool = False
    places: tuple[Place, ...] = ()
    problem: IllumiDeskError | None = None


def decide(
    assignment: str, places: Sequence[Place], *, taken: Iterable[str] = (), may_make: bool
) -> tuple[Place | None, ColumnSource]:
    """The place of an assignment, and why it is that one; None where it is not clear.

    Args:
        assignment: its name.
        places: all there are, those of its link first.
        taken: keys of those that other assignments have.
        may_make: whether the platform lets this tool make columns.
    """
    free = [place for place in _free(assignment, places, taken) if place.resource_id in ("", assignment)]
    for said in ("assignment", "resource_id", "tag"):
        for place in free:
            if getattr(place, said) == assignment:
                return place, "link"
    titled = [place for place in free if _folded(place.label) == _folded(assignment)]
    if len(titled) == 1:
        return titled[0], "title"
    if not free and may_make:
        return Place(NEW, assignment), "made"
    return None, "teacher"


def _free(assignment: str, places: Sequence[Place], taken: Iterable[str]) -> list[Place]:
    """Those that no other assignment has."""
    gone = set(taken)
    return [place for place in places if place.key not in gone and place.assignment in ("", assignment)]


def _folded(text: str) -> str:
    """A title without what people write now so, now so: case, spaces and punctuation."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


class Columns:
    """Finds, makes and remembers columns.

    Args:
        records: the registry.
        services: to ask platforms with.
    """

    def __init__(self, records: GradeRecords, services: Services) -> None:
        self._records = records
        self._services = services

    async def find(self, platform: Platform, context: Context, assignment: str) -> Found:
        """Where the grades go. What is found is remembered; nothing is made on the platform."""
        known = self._known(context, assignment)
        if known is not None:
            return Found(platform, context, known)
        try:
            places = await self.places(platform, context)
        except ServiceError as error:
            return Found(platform, context, problem=error)
        may_make = _may_make(platform, context)
        place, source = decide(assignment, places, taken=self._taken(context, assignment), may_make=may_make)
        if place is not None and place.key == NEW:
            return Found(platform, context, make=True)
        if place is not None:
            return Found(platform, context, self._remember(context, assignment, place, source))
        choices = self._choices(platform, context, assignment, places)
        if not choices:
            return Found(platform, context, problem=_no_place(platform))
        return Found(platform, context, places=tuple(choices))

    async def choices(self, platform: Platform, context: Context, assignment: str) -> list[Place]:
        """The columns that a teacher may choose of, the one in use among them.

        Raises:
            ServiceError: where the platform does not say.
        """
        return self._choices(platform, context, assignment, await self.places(platform, context))

    def _choices(self, platform: Platform, context: Context, assignment: str, places: Sequence[Place]) -> list[Place]:
        free = _free(assignment, places, self._taken(context, assignment))
        return [*free, Place(NEW, assignment)] if _may_make(platform, context) else free

    async def make(self, found: Found, assignment: str, maximum: float) -> Column:
        """Make a column on the platform, or find it made: a second call after a kill makes no second one.

        Raises:
            ServiceError: where the platform does not.
        """
        platform, context = found.platform, found.context
        link = self._link(context, assignment)
        made = await ags.line_items(
            self._services,
            platform,
            context.line_items_url,
            offered=context.ags_scopes,
            resource_id=assignment,
        )
        item = next((one for one in made if one.resource_id == assignment), None)
        if item is None:
            wanted = ags.LineItem(
                id="",
                label=assignment,
                score_maximum=maximum,
                resource_id=assignment,
                resource_link_id=link.resource_link_id if link is not None else "",
            )
            item = await ags.create_line_item(
                self._services, platform, context.line_items_url, wanted, offered=context.ags_scopes
            )
        place = Place(item.id, item.label or assignment, item.id)
        return self._remember(context, assignment, place, "made")

    async def choose(self, platform: Platform, context: Context, assignment: str, key: str, maximum: float) -> Column:
        """A teacher's choice.

        Args:
            platform: the platform.
            context: its course.
            assignment: the assignment.
            key: of one of the places, or `NEW`.
            maximum: points of the assignment, for a column that is made.

        Raises:
            IllumiDeskError: where there is no such place.
        """
        if key == NEW and _may_make(platform, context):
            return await self.make(Found(platform, context), assignment, maximum)
        place = next((one for one in await self.places(platform, context) if one.key == key), None)
        if place is None or place.key in self._taken(context, assignment):
            raise IllumiDeskError(
                "that column is not there, or another assignment has it", hint="load the page again", status=409
            )
        return self._remember(context, assignment, place, "teacher")

    async def places(self, platform: Platform, context: Context) -> list[Place]:
        """Everywhere that grades can go in a platform's course.

        Raises:
            ServiceError: where the platform does not say.
        """
        links = [one for one in self._records.links(context.course_id) if _of(context, one)]
        if platform.version == "1.1":
            return [
                Place(
                    f"link-{link.id}", link.title or link.resource_link_id, link_id=link.id, assignment=link.assignment
                )
                for link in links
                if link.outcome_url
            ]
        found = {
            link.line_item: Place(link.line_item, link.title, link.line_item, assignment=link.assignment)
            for link in links
            if link.line_item
        }
        by_link = {link.resource_link_id: link.assignment for link in links if link.assignment}
        if context.line_items_url:
            for item in await ags.line_items(
                self._services, platform, context.line_items_url, offered=context.ags_scopes
            ):
                said = found[item.id].assignment if item.id in found else ""
                found[item.id] = Place(
                    item.id,
                    item.label,
                    item.id,
                    maximum=item.score_maximum,
                    assignment=said or by_link.get(item.resource_link_id, ""),
                    resource_id=item.resource_id,
                    tag=item.tag,
                )
        return list(found.values())

    def _known(self, context: Context, assignment: str) -> Column | None:
        columns = [one for one in self._records.columns(context.course_id) if _of(context, one)]
        return next((one for one in columns if one.assignment == assignment), None)

    def _taken(self, context: Context, assignment: str) -> set[str]:
        return {
            one.line_item or f"link-{one.link_id}"
            for one in self._records.columns(context.course_id)
            if _of(context, one) and one.assignment != assignment
        }

    def _link(self, context: Context, assignment: str) -> ResourceLink | None:
        links = self._records.links(context.course_id)
        return next((one for one in links if _of(context, one) and one.assignment == assignment), None)

    def _remember(self, context: Context, assignment: str, place: Place, source: ColumnSource) -> Column:
        return self._records.set_column(
            context, assignment, source=source, label=place.label, line_item=place.line_item, link_id=place.link_id
        )


def _of(context: Context, row: Column | ResourceLink) -> bool:
    return (row.platform_id, row.context_id) == (context.platform_id, context.context_id)


def _may_make(platform: Platform, context: Context) -> bool:
    scopes = context.ags_scopes
    return platform.version == "1.3" and bool(context.line_items_url) and (not scopes or ags.LINE_ITEM_SCOPE in scopes)


def _no_place(platform: Platform) -> IllumiDeskError:
    if platform.version == "1.1":
        hint = "add a link to this classroom that takes grades to the course in the LMS, and open it once"
    else:
        hint = (
            "let this tool use grades in the LMS (Assignment and Grade Services), and open its link in the course again"
        )
    return IllumiDeskError(f"{platform.name} offers no column for these grades", hint=hint, status=409)
