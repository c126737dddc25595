"""A small extension of VS Code, as its packager makes one: a command that says where it is."""

from __future__ import annotations

import io
import json
import zipfile

_VSIX_MANIFEST = """\
<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity Language="en-US" Id="{name}" Version="{version}" Publisher="class" />
    <DisplayName>{title}</DisplayName>
    <Description xml:space="preserve">{about}</Description>
  </Metadata>
  <Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation>
  <Dependencies/>
  <Assets>
    <Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" Addressable="true" />
  </Assets>
</PackageManifest>
"""
_CONTENT_TYPES = """\
<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension=".json" \
ContentType="application/json"/><Default Extension=".js" ContentType="application/javascript"/><Default \
Extension=".vsixmanifest" ContentType="text/xml"/></Types>
"""
_PROGRAM = """\
const vscode = require("vscode");
exports.activate = (context) => context.subscriptions.push(
    vscode.commands.registerCommand("class.%(name)s", () => vscode.window.showInformationMessage("%(said)s")));
"""


def manifest(name: str, version: str = "1.0.0") -> dict[str, object]:
    """The package.json of the extension `class.NAME`, whose command is called `NAME: say hello`."""
    return {
        "publisher": "class",
        "name": name,
        "displayName": name.title(),
        "description": f"Says hello from {name}",
        "version": version,
        "engines": {"vscode": "^1.60.0"},
        "main": "./extension.js",
        "activationEvents": [f"onCommand:class.{name}"],
        "contributes": {"commands": [{"command": f"class.{name}", "title": f"{name}: say hello"}]},
    }


def said_by(name: str) -> str:
    """What the command shows."""
    return f"Hello from {name}, for everybody"


def vsix(name: str, version: str = "1.0.0") -> bytes:
    """The extension as a file."""
    package = manifest(name, version)
    archive = io.BytesIO()
    about = _VSIX_MANIFEST.format(
        name=name, version=version, title=package["displayName"], about=package["description"]
    )
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("extension.vsixmanifest", about)
        opened.writestr("[Content_Types].xml", _CONTENT_TYPES)
        opened.writestr("extension/package.json", json.dumps(package))
        opened.writestr("extension/extension.js", _PROGRAM % {"name": name, "said": said_by(name)})
    return archive.getvalue()
