"""This installation's addresses, as platforms are given them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """This installation.

    Attributes:
        base: its address as people see it, `https://HOST[:PORT]`.
    """

    base: str

    @property
    def start(self) -> str:
        """Where a link leads: to the person's own server."""
        return f"{self.base}/hub/"

    @property
    def launch11(self) -> str:
        """LTI 1.1's launch."""
        return f"{self.base}/hub/lti11/launch"

    @property
    def login(self) -> str:
        """LTI 1.3's login initiation."""
        return f"{self.base}/hub/lti13/login"

    @property
    def launch13(self) -> str:
        """LTI 1.3's redirect address."""
        return f"{self.base}/hub/lti13/launch"

    @property
    def jwks(self) -> str:
        """The tool's public keys."""
        return f"{self.base}/hub/lti13/jwks"

    @property
    def config(self) -> str:
        """Canvas's configuration."""
        return f"{self.base}/hub/lti13/config.json"

    @property
    def cartridge(self) -> str:
        """LTI 1.1's configuration as XML."""
        return f"{self.base}/hub/lti11/config.xml"

    @property
    def domain(self) -> str:
        """Host, and port where it is not the scheme's."""
        return self.base.partition("://")[2]
