// The files of JupyterLab and of the hub's pages, answered by the proxy itself: out of the environments, compressed when
// those were built.
//
// Only files whose address has a digest of their content, because it leads to the same bytes in every environment and for
// ever: JupyterLab's in their names (1014.073326ef5d98db5e.js), the hub's as `?v=` (SHA-512, as Tornado makes it). So it does not matter whose server would have answered, nor from
// which build it runs: a page of an older build asks for older names, which go on to its server where no environment has
// them any more. Browsers may keep them for as long as they like.
//
// Everything else goes on to the server as before, uncompressed: pages, answers of APIs, people's files, websockets. What
// holds a secret must not be compressed together with what a stranger chose (BREACH). These files hold neither, and the
// servers give them to everybody, too.
//
// Nothing that a visitor sends becomes a path: it is looked up in a list of what there is.
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pipeline } from "node:stream";

const { ILLUMIDESK_PROXY_ENVIRONMENTS: environments = "", ILLUMIDESK_PROXY_HUB: hub = "" } = process.env;

const TYPES = {
  ".css": "text/css",
  ".eot": "application/vnd.ms-fontobject",
  ".gif": "image/gif",
  ".ico": "image/x-icon",
  ".jpg": "image/jpeg",
  ".js": "text/javascript",
  ".json": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".ttf": "font/ttf",
  ".wasm": "application/wasm",
  ".woff": "font/woff",
  ".woff2": "font/woff2",
};
// Rspack gives 16 digits, webpack 20 and 32.
const DIGEST = /(?:^|\.)(?:[0-9a-f]{16}|[0-9a-f]{20}|[0-9a-f]{32})\.[a-z0-9]+$/;
const OF_SERVERS = /^\/(?:user|services)\/[^/?#]+\/((?:static\/(?:lab|notebook)|lab\/extensions)\/[^?#]+)/;
const OF_HUB = /^\/(hub\/static\/[^?#]+\?v=[0-9a-f]{128})$/;

// The list of files --------------------------------------------------------------------------------------------------

// Where an environment keeps what its servers give out under these addresses.
function folders(environment) {
  const found = [
    ["static/lab", path.join(environment, "share/jupyter/lab/static")],
    ["lab/extensions", path.join(environment, "share/jupyter/labextensions")],
  ];
  for (const python of list(path.join(environment, "lib"))) {
    found.push(["static/notebook", path.join(environment, "lib", python.name, "site-packages/notebook/static")]);
  }
  return found;
}

function list(folder, options = {}) {
  try {
    return fs.readdirSync(folder, { withFileTypes: true, ...options });
  } catch {
    return [];
  }
}

// The files below a folder that are of a known type: where they are, and whether a compressed one is beside them.
function inside(folder) {
  const entries = list(folder, { recursive: true }).filter((entry) => entry.isFile());
  const names = new Set(entries.map((entry) => path.join(entry.parentPath, entry.name)));
  return [...names]
    .filter((file) => TYPES[path.extname(file)])
    .map((file) => ({ file, tag: path.basename(file), type: TYPES[path.extname(file)], packed: names.has(`${file}.gz`) }));
}

// Adds the files of one build of a users' environment to `files`, by their addresses.
function addBuild(files, build) {
  for (const [address, folder] of folders(build)) {
    for (const one of inside(folder).filter(({ tag }) => DIGEST.test(tag))) {
      files.set(`${address}/${path.relative(folder, one.file)}`, one);
    }
  }
}

// Adds those of the hub's pages that are compressed.
function addHub(files, build) {
  const folder = path.join(build, "share/jupyterhub/static");
  for (const one of inside(folder).filter(({ packed }) => packed)) {
    const tag = crypto.createHash("sha512").update(fs.readFileSync(one.file)).digest("hex");
    files.set(`hub/static/${path.relative(folder, one.file)}?v=${tag}`, { ...one, tag });
  }
}

function real(link) {
  try {
    return [fs.realpathSync(link)];
  } catch {
    return []; // a link whose build is gone
  }
}

let builds = "";
let files = new Map();
let looked = -Infinity;

// The list, made anew where an environment's link leads elsewhere than before; looked at once a second at most.
function current() {
  const now = performance.now();
  if (now - looked < 1000) {
    return files;
  }
  looked = now;
  const found = list(environments).flatMap(({ name }) => real(path.join(environments, name))).sort();
  const ofHub = hub ? real(hub) : [];
  const state = [...found, "", ...ofHub].join("\n");
  if (state !== builds) {
    const fresh = new Map();
    try {
      found.forEach((build) => addBuild(fresh, build));
      ofHub.forEach((build) => addHub(fresh, build));
    } catch {
      return files; // a build that goes away meanwhile; the next look is in a second
    }
    [builds, files] = [state, fresh];
  }
  return files;
}

// Answers -------------------------------------------------------------------------------------------------------------

// RFC 9110, 12.5.3. Browsers write `gzip, deflate, br`; what forbids it (`gzip;q=0`) is kept to.
function takesGzip(header = "") {
  for (const part of header.toLowerCase().split(",")) {
    const [coding, ...parameters] = part.split(";").map((word) => word.trim());
    if (coding === "gzip" || coding === "x-gzip") {
      return !parameters.some((word) => /^q=0(\.0*)?$/.test(word));
    }
  }
  return false;
}

// RFC 9110, 13.1.2: compared without regard to weakness.
function knows(header, etag) {
  return header === "*" || (header ?? "").split(",").some((one) => one.trim().replace(/^W\//, "") === etag);
}

// Whether this request is for such a file; then it is answered, or handed to `goOn` where the file is gone meanwhile.
export function answerStatic(req, res, goOn) {
  if (req.method !== "GET" && req.method !== "HEAD") {
    return false;
  }
  const address = (OF_SERVERS.exec(req.url) ?? OF_HUB.exec(req.url))?.[1];
  const known = address && current().get(address);
  if (!known) {
    return false;
  }
  const packed = known.packed && takesGzip(req.headers["accept-encoding"]);
  fs.open(packed ? `${known.file}.gz` : known.file, (error, descriptor) => {
    if (error) {
      goOn();
      return;
    }
    const size = fs.fstatSync(descriptor).size;
    const etag = `"${known.tag}-${size}${packed ? "-gz" : ""}"`;
    const headers = {
      "Cache-Control": "public, max-age=31536000, immutable",
      ETag: etag,
      // A part that is asked for is answered with the whole (RFC 9110, 14.2).
      "Accept-Ranges": "none",
      "X-Content-Type-Options": "nosniff",
      "Content-Security-Policy": "frame-ancestors 'self'",
      ...(known.packed && { Vary: "Accept-Encoding" }),
    };
    if (knows(req.headers["if-none-match"], etag)) {
      fs.close(descriptor);
      res.writeHead(304, headers);
      res.end();
      return;
    }
    res.writeHead(200, {
      ...headers,
      "Content-Type": known.type,
      "Content-Length": size,
      ...(packed && { "Content-Encoding": "gzip" }),
    });
    if (req.method === "HEAD") {
      fs.close(descriptor);
      res.end();
      return;
    }
    // A visitor who leaves, or a disk that fails, ends this answer alone.
    pipeline(fs.createReadStream(null, { fd: descriptor }), res, () => {});
  });
  return true;
}
