// When assignments are due, in nbgrader's Assignment List.
//
// A federated extension of JupyterLab 4 as its loader wants it (jupyterlab/staging/index.js): a container
// `_JUPYTERLAB[NAME]` with `init` and `get`. It is written by hand and shares no modules, so that nothing is built.
// nbgrader's list stays as it is: its rows get a line each, whenever it draws them.
(() => {
  "use strict";

  const LISTS = ["released_assignments_list", "fetched_assignments_list", "submitted_assignments_list"];
  const MARK = "illumidesk-duedate";
  const MINUTE = 60_000;
  const UNITS = [
    ["day", 24 * 60 * MINUTE],
    ["hour", 60 * MINUTE],
    ["minute", MINUTE],
  ];

  /** The largest unit that fits into a span of milliseconds, and how many of it; at least one minute. */
  function inUnits(span) {
    const [unit, length] = UNITS.find(([, length]) => span >= length) ?? UNITS[UNITS.length - 1];
    return [Math.max(1, Math.floor(span / length)), unit];
  }

  /** "in 2 days"; for what is past "2 hours late", or "2 hours ago" where it was handed in. */
  function hint(due, now, handedIn) {
    const [count, unit] = inUnits(Math.abs(due - now));
    const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "always" });
    if (due >= now || handedIn || !relative.resolvedOptions().locale.startsWith("en")) {
      return relative.format(due >= now ? count : -count, unit);
    }
    return `${count} ${unit}${count === 1 ? "" : "s"} late`;
  }

  /** "Tue 1 Dec, 23:00" in the browser's language and time zone, with the year where it is another one. */
  function shown(due, now) {
    const sameYear = due.getFullYear() === now.getFullYear();
    return new Intl.DateTimeFormat(undefined, {
      weekday: "short",
      day: "numeric",
      month: "short",
      hour: "2-digit",
      minute: "2-digit",
      ...(sameYear ? {} : { year: "numeric" }),
    }).format(due);
  }

  /** The answer of our extension in the person's server; nothing where it does not answer. */
  async function ask(settings) {
    const headers = {};
    const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
    if (settings.token) {
      headers.Authorization = `token ${settings.token}`;
    }
    if (xsrf) {
      headers["X-XSRFToken"] = xsrf[1];
    }
    try {
      const url = new URL("illumidesk/duedates", new URL(settings.baseUrl, document.baseURI));
      const response = await fetch(url, { headers, credentials: "same-origin", cache: "no-store" });
      return response.ok ? ((await response.json()).courses ?? {}) : {};
    } catch (error) {
      console.warn("When assignments are due is not known:", error);
      return {};
    }
  }

  /** Course and assignment of a row of the list; null where it has no such parts. */
  function subject(row) {
    const name = row.querySelector(":scope > div > .item_name");
    const course = row.querySelector(":scope > div > .item_course")?.textContent;
    const assignment = name?.firstElementChild?.textContent;
    return course && assignment ? { name, course, assignment } : null;
  }

  function rowsOf(panel, list) {
    return [...panel.querySelectorAll(`#${list} > .list_item`)];
  }

  /** Write the dates into all rows of the list, or take away what is no longer so. */
  function write(panel, courses) {
    const key = ({ course, assignment }) => JSON.stringify([course, assignment]);
    const handedIn = new Set(rowsOf(panel, LISTS[2]).map(subject).filter(Boolean).map(key));
    const now = new Date();
    for (const row of LISTS.flatMap((list) => rowsOf(panel, list))) {
      const about = subject(row);
      const dates = about && courses[about.course];
      const due = new Date(dates?.assignments?.[about.assignment] ?? NaN);
      const before = row.querySelector(`.${MARK}`);
      if (!about || Number.isNaN(due.valueOf())) {
        before?.remove();
        continue;
      }
      const line = before ?? document.createElement("div");
      const late = due < now && !handedIn.has(key(about));
      const own = dates.own?.includes(about.assignment) ? ", your own date" : "";
      const text = `due ${shown(due, now)} (${hint(due, now, handedIn.has(key(about)))}${own})`;
      line.className = MARK;
      line.style.cssText = `font-size: 90%; font-weight: ${late ? 600 : 400}; color: var(--jp-ui-font-color1)`;
      if (line.textContent !== text) {
        const time = document.createElement("time");
        time.dateTime = due.toISOString();
        time.textContent = text;
        line.replaceChildren(time);
      }
      if (!before) {
        about.name.append(line);
      }
    }
  }

  /** Keep the dates in one Assignment List up to date. */
  function follow(panel, settings) {
    let courses = {};
    let asking = 0;
    const told = new WeakSet();

    async function redrawn() {
      const rows = LISTS.flatMap((list) => rowsOf(panel, list));
      if (rows.every((row) => told.has(row))) {
        return;
      }
      rows.forEach((row) => told.add(row));
      const turn = ++asking;
      write(panel, courses);
      const answer = await ask(settings);
      if (turn === asking) {
        courses = answer;
        write(panel, courses);
      }
    }

    new MutationObserver(redrawn).observe(panel, { childList: true, subtree: true });
    const timer = setInterval(() => (panel.isConnected ? write(panel, courses) : clearInterval(timer)), MINUTE);
    void redrawn();
  }

  const plugin = {
    id: "illumidesk:duedates",
    description: "Shows when assignments are due in nbgrader's Assignment List.",
    autoStart: true,
    activate: (app) => {
      const followed = new WeakSet();
      const look = () => {
        const panel = document.getElementById(LISTS[0])?.closest("#assignments");
        if (panel && !followed.has(panel)) {
          followed.add(panel);
          follow(panel, app.serviceManager.serverSettings);
        }
      };
      // The list is a panel that comes and goes. JupyterLab tells of its layout; in Notebook a command opens the list.
      app.shell.layoutModified?.connect(look);
      app.shell.currentChanged?.connect(look);
      app.commands.commandExecuted.connect((_, { result }) => result.then(look, look));
      void app.restored.then(look);
    },
  };

  globalThis._JUPYTERLAB = globalThis._JUPYTERLAB ?? {};
  globalThis._JUPYTERLAB.illumidesk = {
    init: () => undefined,
    get: async (name) => {
      if (name !== "./extension") {
        throw new Error(`illumidesk has no module ${name}`);
      }
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
