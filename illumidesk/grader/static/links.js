// Links from the rows of the formgrader's tables to the hub's pages, beside the names that nbgrader shows.
(() => {
  "use strict";
  const { page, grades } = document.currentScript.dataset;

  // For each page: the cell of a row that names what the row is, the cell that takes the link, and whose grades of
  // which assignment it leads to. nbgrader keeps a name in `data-order`, for sorting, whatever it shows in the cell.
  const ROWS = {
    manage_assignments: { named: "td.name", shown: "td.name", of: (name) => [name] },
    gradebook_assignments: { named: "td.name", shown: "td.name", of: (name) => [name] },
    manage_submissions: { named: "td.student-id", shown: "td.student-name", of: (name) => [window.assignment_id, name] },
    manage_students_assignments: { named: "td.name", shown: "td.name", of: (name) => [name, window.student_id] },
  };
  const rows = ROWS[page];

  function address(assignment, student) {
    const query = student ? `?student=${encodeURIComponent(student)}` : "";
    return `${grades}/${encodeURIComponent(assignment)}${query}`;
  }

  function addLink(row) {
    const name = row.querySelector(rows.named)?.dataset.order;
    const cell = row.querySelector(rows.shown);
    // A cell that nbgrader has emptied is about to be filled again.
    if (!name || !cell || !cell.hasChildNodes() || cell.querySelector(".illumidesk-hub")) {
      return;
    }
    const [assignment, student] = rows.of(name);
    if (!assignment) {
      return;
    }
    const link = document.createElement("a");
    link.className = "illumidesk-hub small text-nowrap";
    link.href = address(assignment, student);
    link.target = "_blank";
    link.rel = "noopener";
    link.textContent = "Send to LMS";
    link.setAttribute(
      "aria-label",
      `Send to LMS: ${assignment}${student ? ` of ${student}` : ""} (opens in a new tab)`,
    );
    const line = document.createElement("div");
    line.append(link);
    cell.append(line);
  }

  function addLinks() {
    document.querySelectorAll("#main-table > tr").forEach(addLink);
  }

  // In JupyterLab the formgrader is in a frame that may not open windows; the page around it may.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a.illumidesk-hub");
    if (!link || window.parent === window) {
      return;
    }
    const outside = window.parent.document.createElement("a");
    outside.href = link.href;
    outside.target = "_blank";
    outside.rel = "noopener";
    event.preventDefault();
    outside.click();
  });

  if (rows) {
    new MutationObserver(addLinks).observe(document.body, { childList: true, subtree: true });
    addLinks();
  }
})();
