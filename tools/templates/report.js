// Tables are sorted by the buttons in their heads; a link to a layer opens what is said of it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.firstElementChild?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !head.classList.contains("n"));
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent.trim();
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row), row]);
    const numeric = head.classList.contains("n");
    rows.sort(([one], [other]) => (numeric ? one - other : one.localeCompare(other)) * (up ? 1 : -1));
    body.append(...rows.map(([, row]) => row));
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }));
}
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", openTarget);
openTarget();
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => {
    for (const each of button.closest("section").querySelectorAll("details")) each.open = button.dataset.open === "1";
  });
}
