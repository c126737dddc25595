// Loaded before Theia (node --require), which knows ports alone: has it listen on the unix socket $ILLUMIDESK_SOCKET,
// that its owner alone can open, and on nothing else.
"use strict";

const fs = require("node:fs");
const net = require("node:net");

const socket = process.env.ILLUMIDESK_SOCKET;
delete process.env.ILLUMIDESK_SOCKET; // not for what Theia starts

if (socket) {
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...given) {
    const first = given[0];
    const path = typeof first === "string" || first?.path !== undefined;
    if (path) {
      return listen.apply(this, given); // a socket already
    }
    const callback = given.findLast((one) => typeof one === "function");
    const before = process.umask(0o177);
    try {
      return listen.call(this, { path: socket }, () => callback?.());
    } finally {
      process.umask(before);
    }
  };
}
