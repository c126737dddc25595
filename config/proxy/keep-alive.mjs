// Loaded before configurable-http-proxy (node --import): keeps its connections to unix sockets open.
//
// By itself the proxy asks every unix socket to close after one answer, and Node writes once more, nothing, when a
// request's body has ended. Where a server answered and closed sooner than that, Linux refuses the write, and the person
// sees an error page instead of the answer: about one POST in fifty that is answered at once.
// https://github.com/nodejs/node/issues/41062
import http from "node:http";
import ConfigurableProxy from "configurable-http-proxy/lib/configproxy.js";

// Idle connections are let go after a minute, long before the servers behind would close them.
const agent = new http.Agent({ keepAlive: true, timeout: 60_000 });
const original = ConfigurableProxy.prototype.proxyOptsForTarget;

ConfigurableProxy.prototype.proxyOptsForTarget = function (target) {
  const options = original.call(this, target);
  if (options.target.socketPath) {
    options.agent = agent;
  }
  return options;
};
