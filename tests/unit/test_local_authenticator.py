"""Local sign-in: who gets in, and what the page says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import bcrypt
import pytest

from illumidesk.authenticators import LocalAuthenticator
from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Registry

GOOD = "a good password"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry.sqlite")
    registry.ensure_person("ana")
    return registry


def make(registry: Registry, **traits: object) -> LocalAuthenticator:
    async def make_person(name: str) -> None:
        if name == "ubuntu":
            raise IllumiDeskError("ubuntu is an account of this machine")
        registry.ensure_person(name)

    return LocalAuthenticator(registry=registry, make_person=make_person, min_password_length=8, **traits)


async def sign_in(authenticator: LocalAuthenticator, name: str, password: str) -> tuple[str | None, str]:
    handler = SimpleNamespace(custom_login_error="")
    result = await authenticator.authenticate(handler, {"username": name, "password": password})
    return result, handler.custom_login_error


async def test_the_first_password_is_kept(registry: Registry) -> None:
    authenticator = make(registry)
    assert await sign_in(authenticator, "ana", GOOD) == ("ana", "")
    assert await sign_in(authenticator, "ana", GOOD) == ("ana", "")
    assert await sign_in(authenticator, " ANA ", GOOD) == ("ana", "")
    assert (await sign_in(authenticator, "ana", "another one"))[0] is None
    stored = registry.person("ana")
    assert stored is not None
    assert stored.password_hash is not None
    assert stored.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert GOOD not in stored.password_hash


@pytest.mark.parametrize("password", [GOOD, "x" * 72])
async def test_a_hash_of_an_earlier_version_holds_and_is_made_anew(registry: Registry, password: str) -> None:
    def stored() -> str:
        person = registry.person("ana")
        assert person is not None
        return person.password_hash or ""

    old = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    registry.set_password_hash("ana", old)
    authenticator = make(registry)
    assert (await sign_in(authenticator, "ana", "another one"))[0] is None
    # bcrypt takes no more than 72 bytes, and a longer password was never kept.
    assert (await sign_in(authenticator, "ana", f"{'x' * 72}y"))[0] is None
    assert stored() == old
    assert (await sign_in(authenticator, "ana", password))[0] == "ana"
    new = stored()
    assert new.startswith("$argon2id$")
    assert (await sign_in(authenticator, "ana", password))[0] == "ana"
    assert stored() == new
    assert (await sign_in(authenticator, "ana", "another one"))[0] is None


async def test_a_password_changed_while_an_old_one_is_looked_at_stays(registry: Registry) -> None:
    registry.set_password_hash("ana", bcrypt.hashpw(GOOD.encode(), bcrypt.gensalt(12)).decode())
    authenticator = make(registry)
    signing_in = asyncio.create_task(sign_in(authenticator, "ana", GOOD))
    await asyncio.sleep(0.01)
    registry.set_password_hash("ana", "of the new one")
    assert (await signing_in)[0] == "ana"
    person = registry.person("ana")
    assert person is not None
    assert person.password_hash == "of the new one"
    # What is no hash matches nothing.
    assert (await sign_in(authenticator, "ana", GOOD))[0] is None


async def test_of_two_first_passwords_at_once_one_counts(registry: Registry) -> None:
    authenticator = make(registry)
    results = await asyncio.gather(
        sign_in(authenticator, "ana", "first password"), sign_in(authenticator, "ana", "second password")
    )
    assert sorted(name is not None for name, _ in results) == [False, True]


@pytest.mark.parametrize("name", ["mallory", "root", "grader-intro101", "illumidesk-hub", "../x", "", "a" * 40])
async def test_strangers_are_refused(registry: Registry, name: str) -> None:
    assert (await sign_in(make(registry), name, GOOD))[0] is None
    assert [person.name for person in registry.people()] == ["ana"]


async def test_strangers_may_come_where_the_door_is_open(registry: Registry) -> None:
    authenticator = make(registry, open_signup=True)
    assert (await sign_in(authenticator, "ben", "short"))[0] is None
    assert registry.person("ben") is None
    assert (await sign_in(authenticator, "ben", GOOD))[0] == "ben"
    assert (await sign_in(authenticator, "root", GOOD))[0] is None
    name, message = await sign_in(authenticator, "ubuntu", GOOD)
    assert name is None
    assert "choose another name" in message
    assert registry.person("ubuntu") is None


async def test_somebody_who_was_removed_stays_out(registry: Registry) -> None:
    authenticator = make(registry, open_signup=True)
    await sign_in(authenticator, "ana", GOOD)
    registry.retire_person("ana")
    assert (await sign_in(authenticator, "ana", GOOD))[0] is None


@pytest.mark.parametrize(
    ("password", "says"), [("short", "at least 8"), ("x" * 1025, "at most 1024"), ("é" * 600, "at most 1024")]
)
async def test_a_password_that_will_not_do_is_explained(registry: Registry, password: str, says: str) -> None:
    name, message = await sign_in(make(registry), "ana", password)
    assert name is None
    assert says in message
    person = registry.person("ana")
    assert person is not None
    assert person.password_hash is None


async def test_changing_the_password(registry: Registry) -> None:
    authenticator = make(registry)
    await sign_in(authenticator, "ana", GOOD)
    assert "too short" in await authenticator.change_password("ana", "short")
    assert await authenticator.change_password("ana", "a new password") == ""
    assert (await sign_in(authenticator, "ana", GOOD))[0] is None
    assert (await sign_in(authenticator, "ana", "a new password"))[0] == "ana"


async def test_nobody_from_a_platform_gets_a_password(registry: Registry) -> None:
    platform, _ = registry.add_platform("Moodle", "1.1", key="key", secret="a-secret-of-some-length")
    name, _ = registry.ensure_identity(platform.id, "4", ["zoe"])
    authenticator = make(registry)
    assert (await sign_in(authenticator, name, GOOD))[0] is None
    assert "learning management system" in await authenticator.change_password(name, GOOD)
    person = registry.person(name)
    assert person is not None
    assert person.password_hash is None


async def test_a_longer_password_is_another_one(registry: Registry) -> None:
    authenticator = make(registry)
    assert (await sign_in(authenticator, "ana", "x" * 72))[0] == "ana"
    assert (await sign_in(authenticator, "ana", "x" * 73))[0] is None
    assert (await sign_in(authenticator, "ana", "x" * 72))[0] == "ana"


async def test_the_event_loop_is_free_while_passwords_are_hashed(registry: Registry) -> None:
    for n in range(8):
        registry.ensure_person(f"s{n}")
    authenticator = make(registry)
    turns = 0
    signing_in = asyncio.gather(*(sign_in(authenticator, f"s{n}", GOOD) for n in range(8)))
    while not signing_in.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 50
    assert {name for name, _ in signing_in.result()} == {f"s{n}" for n in range(8)}
