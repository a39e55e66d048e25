"use strict";
(() => {
  const $ = (query, from = document) => [...from.querySelectorAll(query)];
  const root = document.documentElement;

  // The reader's own choice of light or dark; the system's until there is one.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = { get() { try { return localStorage.getItem("repbench-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("repbench-theme", value); } catch { /* a page from a file may have no storage */ } } };
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`); };
  const chosen = remembered.get();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  theme.hidden = false;
  nameTheme();
  system.addEventListener("change", nameTheme);
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; remembered.set(root.dataset.theme); nameTheme(); });

  // Filters hide rows and columns; coverage counts the columns that are shown.
  const table = document.getElementById("table");
  const body = document.getElementById("rows");
  const controls = document.getElementById("controls");
  const filters = $("select[data-filter]", controls);
  const status = document.getElementById("status");
  const search = document.getElementById("search");
  const headings = $("thead th", table);
  const rows = $("tr", body);
  controls.hidden = false;
  const wanted = name => { const filter = filters.find(each => each.dataset.filter === name); return filter ? filter.value : ""; };
  const apply = () => {
    const shown = new Set();
    headings.forEach((heading, place) => {
      const { task, corpus } = heading.dataset;
      const hidden = task !== undefined && ((wanted("task") && task !== wanted("task")) || (wanted("corpus") && corpus !== wanted("corpus")));
      heading.hidden = hidden;
      $("tbody tr", table).forEach(row => { row.children[place].hidden = hidden; });
      if (task !== undefined && !hidden) shown.add(place);
    });
    const text = search.value.trim().toLowerCase();
    let count = 0;
    rows.forEach(row => {
      const fits = ["mode", "layer", "fraction"].every(name => !wanted(name) || row.dataset[name] === wanted(name));
      // Of the numbers shown: heard if one is, unknown if one is, else not heard.
      const said = new Set([...shown].map(place => row.children[place].dataset.verdict));
      const heard = ["heard", "unknown", "not heard"].find(word => said.has(word)) || "";
      const before = row.querySelector("[data-heard]");
      before.dataset.value = heard;
      before.querySelector("summary").textContent = heard;
      row.querySelector("[data-heard-word]").textContent = heard;
      const asked = [...shown].filter(place => row.children[place].dataset.value !== undefined).length;
      row.hidden = !(fits && asked && (!wanted("heard") || heard === wanted("heard")) && (!text || row.dataset.system.toLowerCase().includes(text)));
      row.querySelector("[data-coverage]").textContent = `${asked}/${shown.size}`;
      row.querySelector("[data-coverage]").dataset.value = asked;
      count += !row.hidden;
    });
    status.textContent = `${count} of ${rows.length} rows shown`;
  };
  filters.forEach(filter => filter.addEventListener("change", apply));
  search.addEventListener("input", apply);
  controls.addEventListener("submit", event => event.preventDefault());
  document.getElementById("reset").addEventListener("click", () => { filters.forEach(filter => { filter.value = ""; }); search.value = ""; apply(); });

  // Sorting: the first press puts the better end on top; what is missing stays below.
  const sortBy = (heading, direction) => {
    const place = headings.indexOf(heading);
    const key = row => { const value = row.children[place].dataset.value; return value === undefined || value === "" ? null : value; };
    const compare = (a, b) => (heading.dataset.kind === "text" ? a.localeCompare(b, undefined, { numeric: true }) : Number(a) - Number(b));
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((left, right) => {
      const [a, b] = [key(left), key(right)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
    body.append(...rows);
    headings.forEach(each => { if (each.querySelector("button")) each.setAttribute("aria-sort", each === heading ? direction : "none"); });
  };
  headings.forEach(heading => {
    const button = heading.querySelector("button");
    if (!button) return;
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = heading.dataset.first;
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = heading.getAttribute("aria-sort") === first ? other : first;
      sortBy(heading, direction);
      status.textContent = `sorted by ${heading.dataset.label}, ${direction}`;
    });
  });

  const fractions = filters.find(filter => filter.dataset.filter === "fraction");
  if (fractions && fractions.dataset.start) fractions.value = fractions.dataset.start;
  apply();
  const firstQuestion = headings.find(heading => heading.dataset.task !== undefined);
  if (firstQuestion) sortBy(firstQuestion, firstQuestion.dataset.first);

  // A number opens its details; without this script its link leads to the same text below.
  const dialog = document.getElementById("behind");
  const content = document.getElementById("behind-content");
  document.addEventListener("click", event => {
    const link = event.target.closest("a[data-behind]");
    if (link) {
      const source = document.getElementById(link.dataset.behind);
      document.getElementById("behind-title").textContent = source.querySelector("summary").textContent;
      content.replaceChildren(...[...source.children].slice(1).map(child => child.cloneNode(true)));
      dialog.showModal();
      event.preventDefault();
      return;
    }
    const copy = event.target.closest("button[data-copy]");
    if (copy) {
      const code = copy.previousElementSibling;
      getSelection().selectAllChildren(code);
      if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => { copy.textContent = "Copied"; }, () => {});
    }
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView({ behavior: "instant" }); }
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
