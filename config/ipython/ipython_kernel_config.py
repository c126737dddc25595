"""What kernels do on a machine that people share: no TCP ports, and they go first where memory runs out.

A port on 127.0.0.1 is open to every account of the machine.

Installed as ENVIRONMENT/etc/ipython/ipython_kernel_config.py, which IPython runs in each kernel before it opens its
sockets. `KernelManager.transport=ipc` takes care of a kernel's own channels; two things are left, and end here:

- ipykernel listens on 127.0.0.1 for what forked children print (`IOPubThread._setup_pipe_in`). It gets a unix socket in
  the server's runtime folder instead. See https://github.com/ipython/ipykernel, ipykernel/iostream.py. Where a later
  ipykernel binds no TCP port there, nothing is changed.
- JupyterLab's debugger makes debugpy listen on 127.0.0.1 without asking who connects: whoever connects runs code as the
  one who debugs. It is switched off.

Where a unit's memory is used up, Linux ends its biggest process. With many small kernels that would be the server, and
with it all of them.
"""

import contextlib
import inspect
import os
import sys
import tempfile
from pathlib import Path

import zmq
from ipykernel.iostream import IOPubThread
from zmq.eventloop.zmqstream import ZMQStream


def _setup_pipe_in(self):
    """As upstream's, on a unix socket."""
    self._pipe_uuid = os.urandom(16)
    folder = Path(os.environ["JUPYTER_RUNTIME_DIR"])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    self._pipe_address = f"ipc://{tempfile.mkdtemp(prefix='io-', dir=folder)}/pipe"
    pipe_in = self.socket.context.socket(zmq.PULL)
    pipe_in.linger = 0
    pipe_in.bind(self._pipe_address)
    self._pipe_in = ZMQStream(pipe_in, self.io_loop)
    self._pipe_in.on_recv(self._handle_pipe_msg)


def _setup_pipe_out(self):
    """As upstream's: a forked child needs a context of its own."""
    context = zmq.Context()
    pipe_out = context.socket(zmq.PUSH)
    pipe_out.linger = 3000
    pipe_out.connect(self._pipe_address)
    return context, pipe_out


if "JUPYTER_RUNTIME_DIR" in os.environ and "tcp://" in inspect.getsource(IOPubThread._setup_pipe_in):
    IOPubThread._setup_pipe_in = _setup_pipe_in
    IOPubThread._setup_pipe_out = _setup_pipe_out
# As if debugpy were not installed, for ipykernel alone; it also starts quicker without.
sys.modules["debugpy"] = None
import ipykernel.debugger  # noqa: E402,F401

del sys.modules["debugpy"]

# Servers have 300 (OOMScoreAdjust=): a kernel goes before one that is up to 0.3 of the limit bigger.
with contextlib.suppress(OSError):
    Path("/proc/self/oom_score_adj").write_text("600")
