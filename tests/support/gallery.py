"""A gallery of extensions with one extension in it, on loopback by https: what VS Code and Theia ask of Open VSX.

The API is that of https://github.com/eclipse/openvsx/wiki: `api/-/search` and `api/v2/-/query` for Theia, and below
`vscode/` the adapter to the API of VS Code's marketplace.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from tests.support.certificates import make_certificate, make_key, pem, pem_of_key
from tests.support.extensions import manifest, vsix

NAME = "lent"
VERSION = "1.0.0"
_MOMENT = "2026-01-01T00:00:00.000Z"
_ID = "00000000-0000-4000-8000-000000000001"


@dataclass
class Gallery:
    """The running stand-in.

    Args:
        url: its address.
        authority: the certificate that whoever asks must trust.
        asked: the method and the path of each request, in order.
    """

    url: str
    authority: bytes
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """The type and the content of what lies at a path."""
        package = manifest(NAME, VERSION)
        if path == "/vscode/gallery/extensionquery":
            count = {"metadataType": "ResultCount", "metadataItems": [{"name": "TotalCount", "count": 1}]}
            found = {"extensions": [self._in_marketplace()], "pagingToken": None, "resultMetadata": [count]}
            return _json({"results": [found]})
        if path == f"/vscode/gallery/class/{NAME}/latest":
            return _json(self._in_marketplace())
        if path == "/api/-/search":
            return _json({"offset": 0, "totalSize": 1, "extensions": [self._in_open_vsx(search=True)]})
        if path == "/api/v2/-/query":
            return _json({"offset": 0, "totalSize": 1, "extensions": [self._in_open_vsx()]})
        if path.endswith(("/Microsoft.VisualStudio.Services.VSIXPackage", ".vsix")):
            return "application/octet-stream", vsix(NAME, VERSION)
        if path.endswith("/Microsoft.VisualStudio.Code.Manifest"):
            return _json(package)
        return None

    def _in_marketplace(self) -> dict[str, Any]:
        package = manifest(NAME, VERSION)
        asset = f"{self.url}/vscode/asset/class/{NAME}/{VERSION}"
        kinds = ("Microsoft.VisualStudio.Code.Manifest", "Microsoft.VisualStudio.Services.VSIXPackage")
        version = {
            "version": VERSION,
            "lastUpdated": _MOMENT,
            "assetUri": asset,
            "fallbackAssetUri": asset,
            "files": [{"assetType": kind, "source": f"{asset}/{kind}"} for kind in kinds],
            "properties": [
                {"key": "Microsoft.VisualStudio.Code.Engine", "value": package["engines"]["vscode"]},  # type: ignore[index]
                {"key": "Microsoft.VisualStudio.Code.ExtensionKind", "value": "workspace"},
            ],
        }
        return {
            "extensionId": _ID,
            "extensionName": NAME,
            "displayName": package["displayName"],
            "shortDescription": package["description"],
            "publisher": {"publisherId": _ID, "publisherName": "class", "displayName": "Class"},
            "versions": [version],
            "statistics": [],
            "flags": "",
            "tags": [],
            "releaseDate": _MOMENT,
            "publishedDate": _MOMENT,
            "lastUpdated": _MOMENT,
            "categories": [],
        }

    def _in_open_vsx(self, *, search: bool = False) -> dict[str, Any]:
        package = manifest(NAME, VERSION)
        own = f"{self.url}/api/class/{NAME}"
        found = {
            "url": own,
            "name": NAME,
            "namespace": "class",
            "version": VERSION,
            "timestamp": _MOMENT,
            "displayName": package["displayName"],
            "description": package["description"],
            "downloadCount": 0,
            "deprecated": False,
            "engines": package["engines"],
            "allVersions": [{"version": VERSION, "url": f"{own}/{VERSION}", "engines": package["engines"]}],
        }
        files = {"download": f"{own}/{VERSION}/file/class.{NAME}-{VERSION}.vsix"}
        if search:
            return found | {"files": files}
        return found | {
            "namespaceUrl": f"{self.url}/api/class",
            "reviewsUrl": f"{own}/reviews",
            "files": files,
            "allVersions": {VERSION: f"{own}/{VERSION}"},
            "allVersionsUrl": f"{own}/versions",
            "targetPlatform": "universal",
            "preview": False,
            "preRelease": False,
            "namespaceAccess": "public",
            "publishedBy": {"loginName": "class"},
            "active": True,
            "dependencies": [],
            "bundledExtensions": [],
            "reviewCount": 0,
            "categories": [],
            "tags": [],
        }


def _json(content: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(content).encode()


@contextmanager
def gallery(folder: Path) -> Iterator[Gallery]:
    """Serve it while the context lasts; `folder` takes its key and certificate."""
    key = make_key()
    certificate = make_certificate(key, "127.0.0.1", ca=True, common_name="a gallery of a test")
    held = folder / "gallery.pem"
    held.write_bytes(pem_of_key(key) + pem(certificate))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        running: ClassVar[Gallery]

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            found = ("text/plain", b"") if self.command == "OPTIONS" else self.running.answer(path)
            if self.command != "OPTIONS":
                self.running.asked.append(f"{self.command} {path}")
            kind, content = found or ("application/json", b"{}")
            self.send_response(200 if found else 404)
            # As Open VSX does: pages of other hosts may ask.
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
            self.send_header("Access-Control-Allow-Headers", self.headers.get("Access-Control-Request-Headers") or "*")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_HEAD = do_OPTIONS = _answer  # noqa: N815 -- as http.server calls them

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(held)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Handler.running = Gallery(f"https://127.0.0.1:{server.server_port}", pem(certificate))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Handler.running
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
