"""How people sign in."""

from illumidesk.authenticators.local import LocalAuthenticator

__all__ = ["LocalAuthenticator"]
