"""The database of people, courses and memberships. The hub alone opens it."""

from illumidesk.registry.models import MEMBER_ROLES, Base, Course, MemberRole, Membership, Person
from illumidesk.registry.store import Registry

__all__ = ["MEMBER_ROLES", "Base", "Course", "MemberRole", "Membership", "Person", "Registry"]
