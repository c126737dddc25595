// Loaded into every Node of a person (NODE_OPTIONS): writes down to whom it opens a connection, a line each.
"use strict";

const fs = require("node:fs");
const net = require("node:net");

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const asked = Array.isArray(given[0]) ? given[0][0] : given[0];
  if (asked && typeof asked === "object" && asked.port) {
    fs.appendFileSync(`${process.env.HOME}/whom`, `${asked.host ?? "localhost"}:${asked.port}\n`);
  }
  return connect.apply(this, given);
};
