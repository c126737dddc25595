"""What opening a page costs in a real browser: bytes over the wire, and seconds until it can be used."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, Playwright

#: Seconds without a byte after which a page is taken to have loaded.
QUIET = 3.0


class Wire:
    """A TCP relay in front of a site, which counts what goes to the browser: headers, bodies and websockets.

    Args:
        target: the site's address, `http://HOST:PORT`.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.port = 0
        #: Bytes to the browser so far, and when the last of them went (monotonic seconds).
        self.received = 0
        self.last = time.monotonic()

    @property
    def url(self) -> str:
        """The site's address through the relay."""
        return f"http://127.0.0.1:{self.port}"

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            site = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, site[1], counted=False))
            group.create_task(self._copy(site[0], writer, counted=True))

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while content := await source.read(1 << 16):
                if counted:
                    self.received += len(content)
                    self.last = time.monotonic()
                sink.write(content)
                await sink.drain()
        sink.close()

    @contextlib.contextmanager
    def relaying(self) -> Iterator[Wire]:
        """Relay in a thread until the end of the block."""
        loop = asyncio.new_event_loop()
        ready, done = threading.Event(), asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await done.wait()
            server.close()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(done.set)
            thread.join(10)


@dataclass(frozen=True)
class Opening:
    """One opening of a page.

    Args:
        seconds: until it could be used.
        received: bytes to the browser until nothing more came.
    """

    seconds: float
    received: int


def opening(wire: Wire, page: Page, act: Callable[[Page], None]) -> Opening:
    """Do `act`, which returns when the page can be used, and wait until nothing more comes."""
    before, began = wire.received, time.monotonic()
    act(page)
    seconds = time.monotonic() - began
    # A websocket's heartbeat every now and then would keep this from ever ending.
    deadline = time.monotonic() + 30
    while time.monotonic() < min(deadline, wire.last + QUIET):
        page.wait_for_timeout(200)
    return Opening(round(seconds, 2), wire.received - before)


@contextlib.contextmanager
def own_browser(playwright: Playwright, folder: Path, arguments: list[str]) -> Iterator[BrowserContext]:
    """A browser with a profile of its own in `folder`, which keeps what it may keep on disk, as people's do."""
    executable = shutil.which("chromium")
    assert executable, "Chromium is missing: apt-get install chromium"
    context = playwright.chromium.launch_persistent_context(
        folder, executable_path=executable, args=arguments, viewport={"width": 1280, "height": 800}
    )
    context.set_default_timeout(180_000)
    try:
        yield context
    finally:
        context.close()


def click_to_notebook(page: Page, course: str) -> None:
    """From the click on the LMS's link to a notebook whose kernel is there: a new one, or the one that was open.

    Args:
        page: where.
        course: the address of the LMS's page with the link.
    """
    page.goto(course)
    page.get_by_role("button", name="Open notebook").click()
    page.locator(".jp-Launcher:visible, .jp-Notebook:visible").first.wait_for()
    if not page.locator(".jp-Notebook:visible").count():
        page.locator(".jp-LauncherCard:visible").filter(has_text="Python 3").first.click()
    page.locator(".jp-Notebook:visible .jp-CodeCell .cm-content").first.wait_for()
    page.get_by_text("| Idle").first.wait_for()
