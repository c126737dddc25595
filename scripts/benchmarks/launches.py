"""LTI launches a second, by 1.1 and 1.3, and how long others wait for the hub meanwhile.

The stock side is jupyterhub-ltiauthenticator in a stock hub. The platform's keys are 150 ms away. A platform signs on
its own machine, and browsers run on others; here they share the processors with the hub, so their part is told, too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

import aiohttp
from aiohttp import web

from benchmarks.figures import OURS, STOCK, Figure, percentile
from benchmarks.processes import Meter
from benchmarks.rooms import Room, Rooms
from tests.support.lms import LMS, lms
from tests.support.lms_thread import WINDOW

#: Seconds that the platform takes to answer with its keys.
AWAY = 0.15
#: Launches that are under way at the same time, and seconds between two looks at the hub.
AT_ONCE = 20
LOOK = 0.05
#: How many launches of stock by 1.3 suffice: it makes six a second.
STOCK_13 = 60


@dataclass
class Seen:
    """What a series of launches came to.

    Attributes:
        rate: launches a second.
        waits: seconds that somebody else waited for the hub.
        hub: CPU seconds of the hub for each launch.
        own: likewise of the browsers and the platform, which are this process: far below `hub`, or the rate is theirs.
    """

    rate: float = 0.0
    hub: float = 0.0
    own: float = 0.0
    waits: list[float] = field(default_factory=list)


@contextmanager
def far_keys(one: LMS) -> Iterator[None]:
    """Serve the platform's keys after `AWAY` seconds, in a thread; `jwks_url` says where, from then on."""
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(AWAY)
        return web.json_response(one.key_set())

    async def serve() -> None:
        app = web.Application()
        app.router.add_get("/jwks", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        one.jwks_url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """A new browser."""
    jar = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(cookie_jar=jar, headers=WINDOW, timeout=timeout) as session:
        yield session


async def launch_11(url: str, form: dict[str, str]) -> None:
    """Post a signed form; it must sign in."""
    async with browser() as session, session.post(url, data=form, allow_redirects=False) as answer:
        if answer.status != 302 or not any("hub" in cookie.key for cookie in session.cookie_jar):
            raise RuntimeError(f"{url}: {answer.status} {(await answer.text())[-500:]}")


async def launch_13(one: LMS, login: str, callback: str, subject: str) -> None:
    """Begin a login, have the platform answer it, post the answer."""
    target = f"{callback.partition('/hub/')[0]}/hub/home"
    async with browser() as session:
        query = one.login_request(target_link_uri=callback if callback.endswith("launch") else target)
        async with session.get(login, params=query, allow_redirects=False) as answer:
            if answer.status != 302:
                raise RuntimeError(f"{login}: {answer.status} {(await answer.text())[-500:]}")
            asked = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
        # Everybody has a name of their own, as in a class: the tool would otherwise look for a free one each time.
        claims = {"sub": subject, "email": f"p{subject}@example.edu", "name": f"P {subject}"}
        form = one.answer(asked, **claims, target_link_uri=query["target_link_uri"])
        async with session.post(callback, data=form, allow_redirects=False) as answer:
            if answer.status != 302:
                raise RuntimeError(f"{callback}: {answer.status} {(await answer.text())[-500:]}")


@contextmanager
def looking(url: str, waits: list[float]) -> Iterator[None]:
    """Somebody who has nothing to do with the launches asks the hub for a page, again and again, in a thread."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            began = time.perf_counter()
            with urlopen(f"{url}/hub/health", timeout=120) as answer:  # noqa: S310 -- http by construction
                answer.read()
            waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(120)


async def _launch_all(launches: Sequence[Callable[[], Awaitable[None]]]) -> None:
    left = iter(launches)

    async def work() -> None:
        for launch in left:
            await launch()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def series(meter: Meter, room: Room, launches: Sequence[Callable[[], Awaitable[None]]]) -> Seen:
    """Make all launches, `AT_ONCE` at a time, and look at the hub meanwhile."""
    seen = Seen()
    used, own, began = meter.cpu([room.hub_unit]), time.process_time(), time.perf_counter()
    with looking(room.url, seen.waits):
        asyncio.run(_launch_all(launches))
        seen.rate = len(launches) / (time.perf_counter() - began)
    seen.hub = (meter.cpu([room.hub_unit]) - used) / len(launches)
    seen.own = (time.process_time() - own) / len(launches)
    return seen


def of_11(one: LMS, url: str, subjects: list[str]) -> list[Callable[[], Awaitable[None]]]:
    """Launches by 1.1, signed when they are made: stock believes no form that is older than 30 seconds."""

    def form(subject: str) -> dict[str, str]:
        fields = one.fields(
            user_id=subject,
            lis_person_contact_email_primary=f"p{subject}@example.edu",
            lis_person_name_full=f"P {subject}",
        )
        return one.signed(fields, url)

    return [lambda subject=subject: launch_11(url, form(subject)) for subject in subjects]


def of_13(one: LMS, login: str, callback: str, subjects: list[str]) -> list[Callable[[], Awaitable[None]]]:
    """Launches by 1.3; these are signed when the tool has chosen a nonce."""
    return [lambda subject=subject: launch_13(one, login, callback, subject) for subject in subjects]


def measure(rooms: Rooms, people: int) -> list[Figure]:
    """So many people launch twice by each version, at first as new people."""
    one = lms("moodle", 1)
    meter = Meter(rooms.machine.name)
    seen: dict[tuple[str, str], dict[str, Seen]] = {}
    with far_keys(one):
        _register(rooms, one)
        for version in ("1.1", "1.3"):
            less = people if version == "1.1" else min(people, STOCK_13)
            for label, room, number in ((STOCK, rooms.stock, less), (OURS, rooms.ours, people)):
                if label == STOCK:
                    rooms.stock.use(version, _stock_config(one, version))
                # The course is made by the first launch of a term, not by each.
                asyncio.run(_launch_all(_launches(one, room, label, version, [f"{version.replace('.', '')}first"])))
                subjects = [f"{version.replace('.', '')}{n}" for n in range(number)]
                for who in ("new", "returning"):
                    launches = _launches(one, room, label, version, subjects)
                    seen.setdefault((version, who), {})[label] = series(meter, room, launches)
        rooms.ours.cli("lti", "platform", "remove", "Bench 11", "--yes")
        rooms.ours.cli("lti", "platform", "remove", "Bench 13", "--yes")
    figures = []
    for (version, who), found in seen.items():
        figures.append(
            Figure(
                f"launches by LTI {version}, {who} people",
                "a second",
                people,
                {label: round(one.rate, 1) for label, one in found.items()},
                "15x" if version == "1.3" else "",
                less=False,
            )
        )
        for whose, values in (
            ("the hub's", {label: one.hub for label, one in found.items()}),
            ("the load's own", {label: one.own for label, one in found.items()}),
        ):
            figures.append(
                Figure(
                    f"{whose} CPU for a launch by LTI {version}, {who} people",
                    "ms",
                    people,
                    {label: round(1000 * value, 1) for label, value in values.items()},
                )
            )
        figures.append(
            Figure(
                f"99 of 100 others wait no longer for the hub, LTI {version}, {who} people",
                "ms",
                people,
                {label: round(1000 * percentile(one.waits, 99)) for label, one in found.items()},
                "200 ms",
            )
        )
    return figures


def _launches(
    one: LMS, room: Room, label: str, version: str, subjects: list[str]
) -> list[Callable[[], Awaitable[None]]]:
    hub = f"{room.url}/hub"
    if version == "1.1":
        return of_11(one, f"{hub}/lti/launch" if label == STOCK else f"{hub}/lti11/launch", subjects)
    if label == STOCK:
        return of_13(one, f"{hub}/lti13/oauth_login", f"{hub}/lti13/oauth_callback", subjects)
    return of_13(one, f"{hub}/lti13/login", f"{hub}/lti13/launch", subjects)


def _register(rooms: Rooms, one: LMS) -> None:
    secret = rooms.machine.run(["mktemp"]).stdout.strip()
    rooms.machine.write_text(secret, one.secret, 0o600)
    add = ("lti", "platform", "add", "--replace")
    rooms.ours.cli(*add, "Bench 11", "--lti", "1.1", "--key", one.key, "--secret-file", secret)
    rooms.ours.cli(
        *add, "Bench 13", "--lti", "1.3", "--client-id", one.client_id, "--issuer", one.issuer, "--auth-url",
        one.auth_url, "--jwks-url", one.jwks_url, "--token-url", f"{one.issuer}/token", "--deployment", "*",
    )  # fmt: skip


def _stock_config(one: LMS, version: str) -> str:
    if version == "1.1":
        return (
            'c.JupyterHub.authenticator_class = "ltiauthenticator.lti11.auth.LTI11Authenticator"\n'
            f"c.LTI11Authenticator.consumers = {{{one.key!r}: {one.secret!r}}}\n"
            'c.LTI11Authenticator.username_key = "user_id"\n'
        )
    return (
        'c.JupyterHub.authenticator_class = "ltiauthenticator.lti13.auth.LTI13Authenticator"\n'
        f"c.LTI13Authenticator.issuer = {one.issuer!r}\n"
        f"c.LTI13Authenticator.client_id = {{{one.client_id!r}}}\n"
        f"c.LTI13Authenticator.authorize_url = {one.auth_url!r}\n"
        f"c.LTI13Authenticator.jwks_endpoint = {one.jwks_url!r}\n"
        'c.LTI13Authenticator.username_key = "sub"\n'
    )
