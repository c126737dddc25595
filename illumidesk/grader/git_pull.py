"""Links that bring a git repository into a home: nbgitpuller's, with a page of ours that says what it kept.

`GET git-pull?repo=…[&branch=…][&subPath=…][&app=…][&urlpath=…][&targetpath=…][&depth=…][&backup=…]`, as nbgitpuller
takes it. The pulling is nbgitpuller's own. Ours are the page, which stays open where the person's own changes met the
teacher's, the addresses of VS Code and Theia, and which repositories on this machine may be pulled.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import nbgitpuller
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from nbgitpuller.errors import BranchExistError, BranchResolveError
from nbgitpuller.pull import GitPuller, execute_cmd
from tornado import web

from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

_RENAMED = re.compile(r"Renamed (.*) to (.*) to avoid conflict with upstream")
#: `git@HOST:OWNER/NAME.git`
_SCP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:]+", re.ASCII)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fetching {name}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
code, pre {{ overflow-wrap: anywhere; white-space: pre-wrap; }}
</style>
</head>
<body>
<main>
<h1 id="title">Fetching {name}</h1>
<p id="said" role="status">This takes a moment.</p>
<ul id="kept"></ul>
<p><a id="go" href="{target}" hidden>Go on</a></p>
<details><summary>What git said</summary><pre id="log"></pre></details>
<noscript><p>This page needs JavaScript.</p></noscript>
</main>
<script>
const part = (id) => document.getElementById(id);
const source = new EventSource({api});
function end(title, said, link) {{
  source.close();
  document.title = part("title").textContent = title;
  part("said").textContent = said;
  part("go").textContent = link;
  part("go").hidden = false;
  part("go").focus();
}}
source.onmessage = (message) => {{
  const event = JSON.parse(message.data);
  if (event.output) part("log").textContent += event.output;
  if (event.phase === "error") end("It could not be fetched", event.message, "Go to your files without it");
  if (event.phase !== "finished") return;
  if (!event.kept.length) {{ source.close(); location.replace(part("go").href); return; }}
  for (const line of event.kept) {{
    const item = document.createElement("li");
    item.textContent = line;
    part("kept").append(item);
  }}
  end("Your own work was kept", "The newest version is here. You had changed some of the same files:", "Go on");
}};
source.onerror = () => end("It could not be fetched", "The connection to your server was lost. Open the link again.",
                           "Go to your files");
</script>
</body>
</html>
"""


def page_of(app: str, folder: Path, path: str) -> str:
    """The page below the server's address where what was pulled opens.

    Args:
        app: `notebook`, `lab`, `vscode`, `theia` or `rstudio`; anything else is the notebook's page, as in nbgitpuller.
        folder: the repository's folder.
        path: the same folder or a file in it, relative to the home.
    """
    match app.lower():
        case "lab" | "jupyterlab":
            return f"lab/tree/{quote(path)}"
        case "vscode":
            return f"vscode/?folder={quote(str(folder))}"
        case "theia":
            return f"theia/#{quote(str(folder))}"
        case "rstudio":
            return "rstudio/"
    return f"{'notebooks' if path.lower().endswith('.ipynb') else 'tree'}/{quote(path)}"


def check_local(repository: str, folders: list[Path]) -> str:
    """`repository`; one on this machine only where it is in one of `folders`, and then as a `file:` address.

    Raises:
        IllumiDeskError: where it is somewhere else.
    """
    try:
        parts = urlsplit(repository)
    except ValueError:
        raise _no_address(repository) from None
    if (parts.scheme in ("https", "http", "ssh", "git") and parts.netloc) or _SCP.fullmatch(repository):
        return repository
    if parts.scheme not in ("", "file"):
        raise _no_address(repository)
    real = Path(os.path.realpath(parts.path))
    if (
        parts.netloc
        or not parts.path.startswith("/")
        or not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders)
    ):
        raise IllumiDeskError(
            f"{repository} is not in a folder of this machine from which links may fetch",
            hint="ask your teacher; git.folders in /etc/illumidesk/config.yaml names these folders",
        )
    if not os.access(real, os.R_OK | os.X_OK):
        raise IllumiDeskError(
            f"there is no repository {repository} that you may read", hint="are you in the course that it belongs to?"
        )
    return f"file://{quote(str(real))}"


def _no_address(repository: str) -> IllumiDeskError:
    return IllumiDeskError(f"{repository} is no address of a git repository", hint="ask whoever made the link")


def trust(repository: str) -> None:
    """Have git read a repository on this machine that somebody else owns, as `git config --global` does by hand.

    Args:
        repository: a `file:` address that `check_local` gave; nothing is done for another.
    """
    if not repository.startswith("file://"):
        return
    path = unquote(urlsplit(repository).path)
    have = subprocess.run(
        ["git", "config", "--global", "--get-all", "safe.directory"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    for each in (path, f"{path}/.git"):
        if Path(each).is_dir() and each not in have:
            subprocess.run(["git", "config", "--global", "--add", "safe.directory", each], check=True)


class Puller(GitPuller):  # type: ignore[misc]
    """nbgitpuller's pull, which notes in `kept` what it did about the person's own changes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: One sentence for each file in which the person's changes met the teacher's.
        self.kept: list[str] = []

    def rename_local_untracked(self) -> Iterator[str]:
        """A file of the person's own that the teacher now has as well gets another name."""
        for line in super().rename_local_untracked():
            if found := _RENAMED.search(line):
                old, new = (os.path.relpath(path, self.repo_dir) for path in found.groups())
                self.kept.append(f"Your own {old} is now {new}; {old} is your teacher's.")
            yield line

    def merge(self) -> Iterator[str]:
        """The person's version wins where both changed the same lines.

        Merging by lines can break a notebook, which is JSON: then the whole file stays as the person had it.
        """
        mine, theirs = self._git("rev-parse", "HEAD")[0], f"origin/{self.branch_name}"
        base = self._git("merge-base", mine, theirs)
        both: list[str] = []
        if base:
            changed = [set(self._git("diff", "--name-only", "-z", base[0], each)) for each in (mine, theirs)]
            both = sorted(changed[0] & changed[1])
        yield from super().merge()
        broken = [name for name in both if name.endswith(".ipynb") and not _is_json(Path(self.repo_dir, name))]
        if broken:
            yield from execute_cmd(["git", "checkout", mine, "--", *broken], cwd=self.repo_dir)
            yield from self.commit_all()
        for name in both:
            if name in broken:
                self.kept.append(f"{name}: yours was kept whole, your teacher's changes are not in it.")
            elif self._git("diff", "--name-only", mine, "--", name):
                self.kept.append(f"{name}: your changes were kept; your teacher's are in it where you changed nothing.")
            elif self._git("diff", "--name-only", theirs, "--", name):
                self.kept.append(f"{name}: yours was kept, your teacher's changes are not in it.")

    def _git(self, *argv: str) -> list[str]:
        done = subprocess.run(["git", *argv], cwd=self.repo_dir, capture_output=True, check=False)
        return [os.fsdecode(part) for part in re.split(rb"[\0\n]", done.stdout) if part] if not done.returncode else []


def _is_json(file: Path) -> bool:
    if not file.exists():
        return True  # both removed it
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return True


class _Link:
    """What a link asks for.

    Args:
        handler: whose query it is.
        home: where the server's files begin.

    Raises:
        IllumiDeskError: where it asks for what no link may.
    """

    def __init__(self, handler: JupyterHandler, home: Path) -> None:
        def first(*names: str) -> str:
            return next((text for name in names if (text := handler.get_query_argument(name, ""))), "")

        self.repository = first("repo").rstrip("/")
        self.branch = first("branch")
        self.depth = first("depth")
        self.backup = first("backup").lower() in ("1", "true", "yes")
        self.name = first("targetpath", "targetPath") or self.repository.rpartition("/")[2]
        if not self.repository or self.repository.startswith("-") or not self.name:
            raise IllumiDeskError("this link names no repository", hint="ask whoever made it")
        if self.branch.startswith("-") or (self.depth and not self.depth.isdecimal()):
            raise IllumiDeskError("this link names no branch that git could have", hint="ask whoever made it")
        place = Path(os.getenv("NBGITPULLER_PARENTPATH", ""), self.name)
        within = os.path.normpath(place)
        if place.is_absolute() or within == "." or within.startswith(".."):
            raise IllumiDeskError("this link would put files outside of your home", hint="ask whoever made it")
        self.folder = home / within
        sub = os.path.normpath(Path(within, first("subpath", "subPath")))
        app = first("app") or os.getenv("NBGITPULLER_APP", "notebook")
        self.page = first("urlpath", "urlPath") or page_of(app, self.folder, sub)


def _home(handler: JupyterHandler) -> Path:
    return Path(handler.settings["server_root_dir"]).expanduser()


class PageHandler(JupyterHandler):
    """`GET git-pull`: the page, which starts the pull and goes where the link leads."""

    @web.authenticated
    async def get(self) -> None:
        """Show it."""
        problem, target, name = "", f"{self.base_url}lab", "the repository"
        try:
            link = _Link(self, _home(self))
            # below this server whatever it says
            target, name = self.base_url + link.page.lstrip("/"), link.name
        except IllumiDeskError as error:
            self.set_status(error.status)
            problem = f"{error.message[0].upper()}{error.message[1:]}."
        if problem:
            self.finish(f"<!doctype html><html lang='en'><title>Link</title><p>{html.escape(problem)}</p></html>")
            return
        # An event stream is no visit of a page: behind a hub it takes the token, and an EventSource sends no header.
        token = quote(self.xsrf_token)
        api = json.dumps(f"{self.base_url}git-pull/api?{self.request.query}&_xsrf={token}").replace("<", "\\u003c")
        self.set_header("Cache-Control", "no-store")
        self.finish(_PAGE.format(name=html.escape(name), target=html.escape(target), api=api))


class ApiHandler(JupyterHandler):
    """`GET git-pull/api`: pulls, as a stream of events: `syncing` with output, then `finished` or `error`."""

    _lock = asyncio.Lock()

    def get_login_url(self) -> str:
        """An event stream is not sent to a page."""
        raise web.HTTPError(403)

    @web.authenticated
    async def get(self) -> None:
        """Pull and tell how it goes."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[str | None] = asyncio.Queue()

        def say(line: str | None) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        try:
            link = _Link(self, _home(self))
            async with self._lock:
                pulled = asyncio.create_task(
                    asyncio.to_thread(pull, link, self.settings["illumidesk_git_folders"], say)
                )
                while (line := await lines.get()) is not None:
                    self.log.info("git-pull: %s", line.rstrip())
                    await self._emit({"phase": "syncing", "output": line})
                kept = await pulled
            for line in kept:
                self.log.info("git-pull %s: %s", link.folder, line)
            await self._emit({"phase": "finished", "kept": kept})
        except IllumiDeskError as error:
            self.log.warning("git-pull: %s", error.message)
            hint = f" {error.hint[0].upper()}{error.hint[1:]}." if error.hint else ""
            await self._emit({"phase": "error", "message": f"{error.message[0].upper()}{error.message[1:]}.{hint}"})

    async def _emit(self, event: dict[str, Any]) -> None:
        self.write(f"data: {json.dumps(event)}\n\n")
        await self.flush()


def pull(link: _Link, folders: list[Path], say: Callable[[str | None], None]) -> list[str]:
    """Clone what a link names, or bring it up to date. Blocks.

    Args:
        link: the link.
        folders: from where on this machine links may fetch.
        say: told each line of output, and None at the end.

    Returns:
        a sentence for each file in which the person's changes met the teacher's.

    Raises:
        IllumiDeskError: where it cannot be done; what was there is still there.
    """
    try:
        repository = check_local(link.repository, folders)
        trust(repository)
        if link.folder.exists() and not link.backup and not (link.folder / ".git").exists():
            # git would look for a repository further up
            raise IllumiDeskError(
                f"there is a folder {link.folder} of your own", hint="rename it and open the link again; it stays"
            )
        depth = int(link.depth) if link.depth else None
        puller = Puller(repository, str(link.folder), branch=link.branch or None, depth=depth, backup=link.backup)
        for line in puller.pull():
            say(line)
        return puller.kept
    except BranchExistError:
        raise IllumiDeskError(f"the repository has no branch {link.branch}", hint="ask whoever made the link") from None
    except (BranchResolveError, subprocess.CalledProcessError, OSError) as error:
        raise _explained(error, link) from error
    except Exception as error:
        # nbgitpuller raises a plain Exception where another git is at work in the folder
        if type(error) is not Exception:
            raise
        raise IllumiDeskError("another git is at work in this folder", hint="try again in a few minutes") from error
    finally:
        say(None)


def _explained(error: Exception, link: _Link) -> IllumiDeskError:
    command = list(getattr(error, "cmd", None) or [])
    if isinstance(error, BranchResolveError) or "ls-remote" in command or "clone" in command or "fetch" in command:
        return IllumiDeskError(
            f"{urlsplit(link.repository).hostname or link.repository} does not give the repository",
            hint="it may be private, empty or misspelt, or this machine has no way to it; ask whoever made the link",
        )
    return IllumiDeskError(
        f"the newest version could not be put into {link.folder}",
        hint="nothing of yours was removed; rename that folder and open the link again to have a fresh copy",
    )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.git_pull"}]


def _load_jupyter_server_extension(server: Any) -> None:
    settings = server.web_app.settings
    folders = server.config.get("IllumiDeskGit", {}).get("folders", [])
    settings["illumidesk_git_folders"] = [Paths.current().shared, *(Path(folder) for folder in folders)]
    base = settings["base_url"]
    server.web_app.add_handlers(
        ".*$", [(url_path_join(base, "git-pull"), PageHandler), (url_path_join(base, "git-pull/api"), ApiHandler)]
    )
    # Older forms of links (git-sync, interact) lead to git-pull
    nbgitpuller._load_jupyter_server_extension(server)
