"""How people sign in."""

from illumidesk.authenticators.local import LocalAuthenticator
from illumidesk.authenticators.lti import LTI11Authenticator, LTI13Authenticator

__all__ = ["LTI11Authenticator", "LTI13Authenticator", "LocalAuthenticator"]
