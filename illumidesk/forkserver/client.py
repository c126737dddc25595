"""What a person's unit runs: have the fork server fork the program into this unit, or else run it here.

Runs by itself (`python -I -S client.py SOCKET PROGRAM ARGUMENT…`) and imports next to nothing: it is on the way of
every start. It is the unit's main process, and as such the one that systemd hears. Once the forked server is there, it
tells systemd that this is the main process now, and ends.

The conversation on the socket: the client sends a length (8 bytes), that many bytes (`pack`), and its standard streams
beside them. The answer is a line, `forked PID` or `no REASON`. To `forked` the client answers `go` when systemd knows;
a server that does not hear it ends.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket  # noqa: N812 -- the module `socket` takes as long to import as the rest together

#: Seconds for the fork server to load an environment, and to fork.
PATIENCE = 20.0
MAX_MESSAGE = 16 << 20


def pack(arguments: list[bytes], variables: dict[bytes, bytes], folder: bytes) -> bytes:
    """What a program is started with, as bytes between NULs, which none of it can hold."""
    words = [folder, b"%d" % len(arguments), *arguments, *(b"%s=%s" % pair for pair in variables.items())]
    return b"\0".join(words)


def unpack(message: bytes) -> tuple[list[bytes], dict[bytes, bytes], bytes]:
    """What `pack` packed.

    Raises:
        ValueError: where it did not.
    """
    folder, count, *words = message.split(b"\0")
    arguments, pairs = words[: int(count)], words[int(count) :]
    if len(arguments) != int(count) or not arguments or not all(b"=" in pair for pair in pairs):
        raise ValueError("the message is not whole")
    return arguments, dict(pair.split(b"=", 1) for pair in pairs), folder


def notify(*lines: str, wait: bool = False, address: str | None = None) -> None:
    """Tell systemd; see sd_notify(3). Below another init it does nothing.

    Args:
        lines: such as `READY=1`.
        wait: return only when systemd has taken it in.
        address: where it listens; what it has told this process by default.
    """
    address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    channel = Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    channel.connect(address)
    channel.send("\n".join(lines).encode())
    if wait:
        # systemd closes what comes along with a barrier once it has dealt with what came before.
        reader, writer = os.pipe()
        channel.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, writer.to_bytes(4, sys.byteorder))])
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
    channel.close()


def ask(path: str, message: bytes) -> str:
    """Have a server forked and made the unit's main process.

    Returns:
        Why not; empty where it is there.
    """
    connection = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    connection.settimeout(PATIENCE)
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    try:
        connection.connect(path)
        head = len(message).to_bytes(8, "big")
        connection.sendmsg([head], [(SOL_SOCKET, SCM_RIGHTS, streams)])
        connection.sendall(message)
        answer = b""
        while not answer.endswith(b"\n"):
            more = connection.recv(4096)
            if not more:
                return "it ended"
            answer += more
    except OSError as error:
        return f"it does not answer ({error})"
    word, _, rest = answer.decode("utf-8", "replace").strip().partition(" ")
    if word != "forked" or not rest.isdigit():
        return rest or "it speaks another language"
    notify(f"MAINPID={rest}", wait=True)
    connection.send(b"go")
    say(f"Forked by the fork server as process {rest}.")
    return ""


def say(text: str) -> None:
    """An ordinary line (<6>) in the unit's journal."""
    os.write(2, f"<6>{text}\n".encode())


def main() -> None:
    """Entry point."""
    path, *command = sys.argv[1:]
    message = pack([os.fsencode(word) for word in command], dict(os.environb), os.getcwdb())  # noqa: PTH109
    why = ask(path, message)
    if not why:
        return
    say(f"Started the ordinary way, not by the fork server: {why}.")
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
