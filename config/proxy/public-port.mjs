// Loaded before configurable-http-proxy (node --import): what the public port needs beyond proxying.
//
// - What a visitor says about itself in X-Forwarded-* and the like is believed from the reverse proxies alone that the
//   settings name, because the hub and people's servers believe whatever reaches them.
// - With HTTPS: the plain port redirects, browsers are told to stay with HTTPS, and a renewed certificate is taken over
//   at SIGHUP (systemctl reload) while connections stay open.
// - The challenges by which a certificate authority sees that the domain is ours (RFC 8555) are answered on the plain
//   port, whether or not HTTPS is on.
// - JupyterLab's own files come from the proxy itself, compressed and to be kept (static-files.mjs).
//
// Everything comes from variables that illumidesk-proxy.service and its drop-in set.
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import ConfigurableProxy from "configurable-http-proxy/lib/configproxy.js";
import { answerStatic } from "./static-files.mjs";

const {
  ILLUMIDESK_PROXY_ADDRESS: address = "",
  ILLUMIDESK_PROXY_PLAIN_PORT: plainPort = "",
  ILLUMIDESK_PROXY_REDIRECT: redirectTo = "",
  ILLUMIDESK_PROXY_HSTS: hsts = "",
  ILLUMIDESK_PROXY_TRUSTED: trusted = "",
  ILLUMIDESK_PROXY_CHALLENGES: challenges = "",
} = process.env;

function say(text) {
  console.warn(`[public port] ${text}`);
}

// Who is believed ---------------------------------------------------------------------------------------------------

const reverseProxies = new net.BlockList();
for (const network of trusted.split(" ").filter(Boolean)) {
  const [base, prefix] = network.split("/");
  const family = net.isIPv6(base) ? "ipv6" : "ipv4";
  reverseProxies.addSubnet(base, Number(prefix), family);
}

// An IPv4 address as such also where the socket speaks both: ::ffff:192.0.2.1
function plainAddress(text) {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text ?? "");
  return mapped ? mapped[1] : (text ?? "");
}

function isTrusted(peer) {
  const family = net.isIP(peer);
  return family !== 0 && reverseProxies.check(peer, family === 6 ? "ipv6" : "ipv4");
}

// A header that may be a list, each proxy on the way having added to its end.
function listed(header) {
  return (header ?? "").split(",").map((part) => part.trim()).filter(Boolean);
}

// Says who visits and how, in the two headers that the hub and Jupyter's servers look at first. Returns the scheme.
function introduce(req) {
  const peer = plainAddress(req.socket.remoteAddress);
  let client = peer;
  let scheme = req.socket.encrypted ? "https" : "http";
  if (isTrusted(peer)) {
    const before = listed(req.headers["x-forwarded-for"]).map(plainAddress);
    // From the near end: what stands left of the first stranger is that stranger's word.
    while (isTrusted(client) && before.length > 0 && net.isIP(before.at(-1))) {
      client = before.pop();
    }
    const said = listed(req.headers["x-forwarded-proto"]).at(-1)?.toLowerCase();
    scheme = said === "https" || said === "http" ? said : scheme;
    delete req.headers["forwarded"];
  } else {
    for (const name of Object.keys(req.headers)) {
      if (name === "forwarded" || name.startsWith("x-forwarded-")) {
        delete req.headers[name];
      }
    }
  }
  req.headers["x-real-ip"] = client;
  req.headers["x-scheme"] = scheme;
  return scheme;
}

// Challenges --------------------------------------------------------------------------------------------------------

// Whether this was a challenge, and so is answered. A token is base64url (RFC 8555, 8.3), so it leads nowhere else.
function answerChallenge(req, res) {
  const token = /^\/\.well-known\/acme-challenge\/([A-Za-z0-9_-]{1,256})$/.exec(req.url)?.[1];
  if (!challenges || !token || (req.method !== "GET" && req.method !== "HEAD")) {
    return false;
  }
  fs.readFile(path.join(challenges, token), (error, content) => {
    res.writeHead(error ? 404 : 200, { "Content-Type": "text/plain" });
    res.end(error ? "" : content);
  });
  return true;
}

// The proxy itself --------------------------------------------------------------------------------------------------

const { handleProxyWeb, handleProxyWs } = ConfigurableProxy.prototype;

ConfigurableProxy.prototype.handleProxyWeb = function (req, res) {
  if (!req.socket.encrypted && answerChallenge(req, res)) {
    return undefined;
  }
  const scheme = introduce(req);
  if (scheme === "https" && hsts) {
    res.setHeader("Strict-Transport-Security", `max-age=${hsts}`);
  }
  const goOn = () => handleProxyWeb.call(this, req, res);
  return answerStatic(req, res, goOn) ? undefined : goOn();
};

ConfigurableProxy.prototype.handleProxyWs = function (req, socket, head) {
  introduce(req);
  return handleProxyWs.call(this, req, socket, head);
};

// The plain port beside HTTPS ---------------------------------------------------------------------------------------

// To the address in the settings, whatever Host says. Not to be remembered, so that HTTPS can be switched off again.
function redirect(req, res) {
  if (answerChallenge(req, res)) {
    return;
  }
  const target = req.url.startsWith("/") ? req.url : "/";
  res.writeHead(308, { Location: redirectTo + target, "Cache-Control": "no-store" });
  res.end();
}

if (plainPort) {
  http
    .createServer(redirect)
    .on("error", (error) => {
      say(`cannot listen on port ${plainPort}: ${error.message}`);
      process.exit(1);
    })
    .listen(Number(plainPort), address);
}

// The certificate ---------------------------------------------------------------------------------------------------

// Mozilla's "intermediate". The proxy's own list names none of TLS 1.3, and Node takes that for "no TLS 1.3".
const security = {
  minVersion: "TLSv1.2",
  ciphers: [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
  ].join(":"),
};

function option(name) {
  return process.argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);
}

const { createServer } = https;
let publicServer;

https.createServer = function (options, ...rest) {
  publicServer = createServer.call(this, { ...options, ...security }, ...rest);
  return publicServer;
};

// Open connections stay as they are; new ones get the new certificate. What cannot be used is left alone.
process.on("SIGHUP", () => {
  if (!publicServer) {
    return;
  }
  try {
    const fresh = { ...security, key: fs.readFileSync(option("ssl-key")), cert: fs.readFileSync(option("ssl-cert")) };
    tls.createSecureContext(fresh);
    publicServer.setSecureContext(fresh);
    say("the certificate was read anew");
  } catch (error) {
    say(`the new certificate cannot be used, the old one stays: ${error.message}`);
  }
});
