"""The database of people, courses, memberships and platforms. The hub alone opens it."""

from illumidesk.registry.models import (
    MEMBER_ROLES,
    Base,
    Column,
    Context,
    Course,
    Delivery,
    Identity,
    Invite,
    LTIVersion,
    MemberRole,
    Membership,
    Person,
    Platform,
    ResourceLink,
    ResultSourcedId,
    ToolKey,
)
from illumidesk.registry.store import Registry

__all__ = [
    "MEMBER_ROLES",
    "Base",
    "Column",
    "Context",
    "Course",
    "Delivery",
    "Identity",
    "Invite",
    "LTIVersion",
    "MemberRole",
    "Membership",
    "Person",
    "Platform",
    "Registry",
    "ResourceLink",
    "ResultSourcedId",
    "ToolKey",
]
