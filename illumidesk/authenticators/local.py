"""Local sign-in: a name that an admin added, and a password that is set at the first sign-in."""

from __future__ import annotations

from typing import Any

from firstuseauthenticator import FirstUseAuthenticator
from firstuseauthenticator.firstuseauthenticator import ResetPasswordHandler
from jupyterhub.apihandlers.users import UserAPIHandler
from jupyterhub.auth import Authenticator
from jupyterhub.handlers.login import LoginHandler
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Bool

from illumidesk import names
from illumidesk.authenticators.passwords import MAX_PASSWORD, check_password, hash_password
from illumidesk.errors import IllumiDeskError


class SignInHandler(LoginHandler):  # type: ignore[misc]
    """The sign-in page. The authenticator may say what is wrong in `custom_login_error`.

    Upstream's takes less than JupyterHub gives it, so that a form that has expired ends at an empty page.
    """

    custom_login_error = ""

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        return super()._render(self.custom_login_error or login_error, username, **kwargs)


class ChangePasswordHandler(ResetPasswordHandler):  # type: ignore[misc]
    """The page for a new password. Upstream's hashes on the hub's event loop."""

    @web.authenticated
    async def post(self) -> None:
        """Change the password."""
        self._register_template_path()
        problem = await self.authenticator.change_password(
            self.current_user.name, self.get_body_argument("password", "", strip=False)
        )
        page = await self.render_template(
            "reset.html",
            result=True,
            alert="danger" if problem else "success",
            result_message=problem or "Your password has been changed.",
        )
        self.finish(page)


class UserHandler(UserAPIHandler):  # type: ignore[misc]
    """JupyterHub's user, whose name is also the account's and stays."""

    async def patch(self, user_name: str) -> None:
        """Change the user, but not the name."""
        body = self.get_json_body()
        if isinstance(body, dict) and body.get("name", user_name) != user_name:
            raise web.HTTPError(400, "A name stays: it is the account's on this machine. Add another user instead.")
        await super().patch(user_name)


class LocalAuthenticator(FirstUseAuthenticator):  # type: ignore[misc]
    """JupyterHub's first-use authenticator on our registry.

    It differs in three ways: hashes live in the registry and not in a dbm file (whose format depends on the Python
    that runs), hashing is cheaper and happens off the hub's event loop (a class signs in at the same minute), and
    strangers are refused unless `open_signup` is on.
    """

    registry = AnyTrait(help="Where people are kept (a Registry); the hub's by default.")
    make_person = AnyTrait(help="Coroutine function that makes a person of a name, with account; the hub's by default.")
    open_signup = Bool(False, help="Whether strangers may make themselves an account.").tag(config=True)

    # Nothing of ours is in the dbm file that the base class looks after.
    check_passwords_on_startup = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.registry is None:
            self.registry = self.parent.classroom.registry
        if self.make_person is None and self.parent is not None:
            self.make_person = self.parent.classroom.ensure_person
        # Who may come in is decided below, by the registry.
        self.allow_all = True

    def validate_username(self, name: str) -> bool:
        """Whether `name` may be an account. Also guards names that an admin types into JupyterHub's own panel."""
        try:
            names.check_account(name)
        except IllumiDeskError:
            return False
        return bool(Authenticator.validate_username(self, name))

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:
        """Upstream's pages, with our sign-in page."""
        pages = dict(super().get_handlers(app))
        ours = {r"/login": SignInHandler, r"/auth/change-password": ChangePasswordHandler}
        # Before JupyterHub's own, which has the same address.
        return [(r"/api/users/([^/]+)", UserHandler), *{**pages, **ours}.items()]

    async def add_user(self, user: Any) -> None:
        """JupyterHub has a new user (made in its admin panel, by its API or by signing in): give them an account.

        Raises:
            IllumiDeskError: where the name cannot be had; JupyterHub then forgets the user.
        """
        super().add_user(user)
        if not self.registry.is_present(user.name):
            await self.make_person(user.name)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """The name that may sign in; None where it may not. The first password given for a name is kept.

        Args:
            handler: the sign-in page; gets `custom_login_error` where there is something better to say than
                "invalid username or password".
            data: `username` and `password` as typed.
        """
        name: str = self.normalize_username(data["username"].strip())
        password = data["password"]
        if len(password.encode()) > MAX_PASSWORD:
            handler.custom_login_error = self._password_problem(password)
            return None
        person = self.registry.person(name)
        if person is None or person.retired is not None or self.registry.is_from_platform(name):
            # Somebody from a learning management system has no password, so a first one would be anybody's.
            if person is not None or not self.open_signup or not self.validate_username(name):
                # As long as a wrong password would take, so that names cannot be told apart by the clock.
                await hash_password(password)
                return None
            stored = None
        else:
            stored = person.password_hash
        if stored is not None:
            matches, better = await check_password(password, stored)
            if better is not None and (now := self.registry.person(name)) and now.password_hash == stored:
                self.registry.set_password_hash(name, better)
            return name if matches else None
        problem = self._password_problem(password)
        if problem:
            handler.custom_login_error = problem
            return None
        if person is None:
            try:
                await self.make_person(name)
            except IllumiDeskError as error:
                self.log.warning("%s may not sign up: %s", name, error.message)
                handler.custom_login_error = f"{name} cannot be used here: please choose another name."
                return None
        fresh = await hash_password(password)
        current = self.registry.person(name)
        if current is not None and current.password_hash is not None:
            # Somebody else was quicker while this one was hashed: theirs counts.
            return None
        self.registry.set_password_hash(name, fresh)
        self.log.info("%s has set a password", name)
        return name

    async def change_password(self, name: str, password: str) -> str:
        """Change the password of somebody who is signed in; returns what is wrong with it, or nothing."""
        if self.registry.is_from_platform(name):
            return "You come from a learning management system and have no password here."
        problem = self._password_problem(password)
        if not problem:
            self.registry.set_password_hash(name, await hash_password(password))
        return problem

    async def delete_user(self, user: Any) -> None:
        """JupyterHub's panel deletes the user: the account is closed and memberships end; files are kept."""
        await self.parent.classroom.close_person(user.name)

    def _password_problem(self, password: str) -> str:
        if len(password) < self.min_password_length:
            return f"That password is too short: please choose one of at least {self.min_password_length} characters."
        if len(password.encode()) > MAX_PASSWORD:
            return f"That password is too long: please choose one of at most {MAX_PASSWORD} bytes."
        return ""
