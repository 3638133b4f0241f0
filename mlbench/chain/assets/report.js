"use strict";
// The report's own script: draws figures when they come into view, sorts tables, marks where the reader is. It asks no network for anything.
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties, ...children) => { const made = Object.assign(document.createElement(tag), properties || {}); made.append(...children); return made; };

// --- figures -------------------------------------------------------------------------------------------------------------------
const dark = () => root.dataset.theme === "dark";
const MODEBAR = { displaylogo: false, displayModeBar: "hover", responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

// Words as lines of at most so many letters.
function brokenInto(text, room) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines[lines.length - 1] && (lines[lines.length - 1] + " " + word).length > room) lines.push(word);
    else lines[lines.length - 1] = (lines[lines.length - 1] + " " + word).trim();
  }
  return lines;
}

// A title that is wider than its figure is broken into lines at spaces. plotly sets the first of several lines higher than a single one, hence the padding.
function wrapTitle(layout, width) {
  const text = layout.title?.text ?? "";
  const room = Math.max(24, Math.floor((width - 90) / 8.4));
  if (text.length <= room || text.includes("<")) return;
  const lines = brokenInto(text, room), extra = 19 * (lines.length - 1);
  const pad = Object.assign({}, layout.title.pad, { t: (layout.title.pad?.t ?? 0) + Math.round(0.7 * (layout.title.font?.size ?? 17)) });
  layout.title = Object.assign({}, layout.title, { text: lines.join("<br>"), pad });
  layout.margin = Object.assign({}, layout.margin, { t: (layout.margin?.t ?? 64) + extra });
  if (layout.height) layout.height += extra;
}

// On a narrow screen long names beside an axis would leave no room for what is drawn.
function wrapNames(figure, width) {
  if (width >= 560) return;
  const broken = (text) => (typeof text !== "string" || text.length <= 20 || text.includes("<") ? text : brokenInto(text, 20).join("<br>"));
  for (const trace of figure.data) if (Array.isArray(trace.y)) trace.y = trace.y.map(broken);
  for (const [key, axis] of Object.entries(figure.layout || {})) {
    if (/^yaxis\d*$/.test(key)) for (const part of ["categoryarray", "ticktext"]) if (Array.isArray(axis[part])) axis[part] = axis[part].map(broken);
  }
}

// So is the title of a horizontal axis, where there is one axis.
function wrapAxis(layout, width) {
  const text = layout.xaxis?.title?.text ?? "", room = Math.max(20, Math.floor((width - 110) / 7.6));
  if (layout.xaxis2 || text.length <= room || text.includes("<")) return;
  const cut = text.lastIndexOf(" ", room);
  if (cut > 0) layout.xaxis.title = Object.assign({}, layout.xaxis.title, { text: `${text.slice(0, cut)}<br>${text.slice(cut + 1)}` });
}

// The titles above the parts of a figure get as much room as their part is wide, or they would run into each other: two lines for each of theirs, and the figure grows.
function wrapParts(layout, width) {
  const parts = (layout.annotations || []).filter((a) => !a.showarrow && a.xref === "paper" && a.yref === "paper" && a.xanchor === "center" && a.yanchor === "bottom" && a.text);
  const columns = new Set(parts.map((a) => a.x)).size, sides = (layout.margin?.l ?? 64) + (layout.margin?.r ?? 24);
  if (columns < 2) return;
  let more = 0;
  for (const part of parts) {
    const size = part.font?.size ?? 16, room = Math.max(10, Math.floor((width - sides) / columns / (0.58 * size)));
    const before = part.text.split("<br>");
    const lines = before.flatMap((line) => {
      const bold = /^<b>.*<\/b>$/.test(line), words = line.replace(/<\/?b>/g, "");
      if (words.length <= room || words.includes("<")) return [line];
      const cut = brokenInto(words, room).map((w) => (w.length > room ? w.slice(0, room - 1) + "…" : w));
      const kept = cut.length > 2 ? [cut[0], cut[1].slice(0, room - 1).replace(/…$/, "") + "…"] : cut;
      return kept.map((w) => (bold ? `<b>${w}</b>` : w));
    });
    part.text = lines.join("<br>");
    more = Math.max(more, (lines.length - before.length) * Math.round(1.3 * size));
  }
  wrapAxes(layout, (width - sides) / columns);
  if (more) makeRoom(layout, parts, more);
}

// The names of their axes as well.
function wrapAxes(layout, room) {
  let below = 0;
  for (const [key, axis] of Object.entries(layout)) {
    const text = /^xaxis\d*$/.test(key) ? axis.title?.text ?? "" : "", size = axis?.title?.font?.size ?? 14;
    const lines = text.includes("<") ? [text] : brokenInto(text, Math.max(10, Math.floor(room / (0.58 * size))));
    if (lines.length > 1) axis.title = Object.assign({}, axis.title, { text: lines.join("<br>") });
    below = Math.max(below, (lines.length - 1) * Math.round(1.3 * size));
  }
  layout.margin = Object.assign({}, layout.margin, { b: (layout.margin?.b ?? 52) + below });
  layout.height = (layout.height || 420) + below;
}

// So many pixels above each row of parts; what is drawn keeps its size.
function makeRoom(layout, parts, more) {
  const top = layout.margin?.t ?? 64, height = layout.height || 420, inner = height - top - (layout.margin?.b ?? 52);
  const rows = [...new Set(parts.map((a) => a.y))].sort((a, b) => b - a), grown = inner + more * (rows.length - 1);
  const row = (place) => rows.reduce((best, y, n) => (Math.abs(y - place) < Math.abs(rows[best] - place) ? n : best), 0);
  const moved = (place, n) => Math.max(0, 1 - ((1 - place) * inner + n * more) / grown);
  for (const [key, axis] of Object.entries(layout)) {
    if (/^yaxis\d*$/.test(key) && axis.domain) axis.domain = axis.domain.map((place) => moved(place, row(axis.domain[1])));
  }
  for (const part of parts) part.y = moved(part.y, row(part.y));
  layout.margin = Object.assign({}, layout.margin, { t: top + more });
  layout.height = height + more * rows.length;
}

function themed(layout, width) {
  const copy = JSON.parse(JSON.stringify(layout || {}));
  const ink = dark() ? "#c8d1db" : "#1f2933", line = dark() ? "#2f3945" : "#e4e8ee";
  copy.paper_bgcolor = copy.plot_bgcolor = "rgba(0,0,0,0)";
  copy.font = Object.assign({}, copy.font, { color: ink });
  copy.modebar = Object.assign({ bgcolor: dark() ? "rgba(25,33,42,.9)" : "rgba(255,255,255,.9)", color: dark() ? "#7c8998" : "#8b97a6", activecolor: dark() ? "#79aee8" : "#3266a8" }, copy.modebar);
  delete copy.width;
  copy.autosize = true;
  wrapParts(copy, width);
  wrapTitle(copy, width);
  wrapAxis(copy, width);
  if (dark()) {
    for (const key of Object.keys(copy)) if (/^[xy]axis\d*$/.test(key)) Object.assign(copy[key], { gridcolor: line, zerolinecolor: line, linecolor: line });
    for (const note of copy.annotations || []) if (note.font) delete note.font.color;
  }
  return copy;
}

function draw(holder) {
  if (holder.dataset.drawn === root.dataset.theme) return;
  holder.dataset.drawn = root.dataset.theme;
  const data = document.getElementById(holder.dataset.figure);
  if (holder.data) Plotly.purge(holder);
  holder.replaceChildren();
  if (!data) {
    holder.replaceChildren(make("div", { className: "waiting" }, "not in this run"));
    return;
  }
  const figure = JSON.parse(data.textContent);
  if (holder.dataset.pattern) holder.style.height = `${Math.max(120, Math.min(1600, figure.layout?.height || 420))}px`;
  try {
    wrapNames(figure, holder.clientWidth);
    const layout = themed(figure.layout, holder.clientWidth);
    if (layout.height) holder.style.height = `${layout.height}px`;
    Plotly.newPlot(holder, figure.data, layout, MODEBAR);
  } catch (error) {
    holder.textContent = "This figure could not be drawn: " + error.message;
  }
}

// --- a choice of drawings: lists say which figure stands in which place -----------------------------------------------------------
function fill(chooser) {
  const chosen = Object.fromEntries(all("select", chooser).map((list) => [list.dataset.axis, list]));
  for (const holder of all(".canvas[data-pattern]", chooser)) {
    const axes = [...holder.dataset.pattern.matchAll(/\{(\w+)\}/g)].map((m) => m[1]);
    holder.dataset.figure = axes.reduce((name, axis) => name.replace(`{${axis}}`, chosen[axis].value), holder.dataset.pattern);
    delete holder.dataset.drawn;
    const own = chosen[axes[axes.length - 1]];
    holder.nextElementSibling.textContent = axes.length > 1 ? own.selectedOptions[0].textContent : "";
  }
}
for (const chooser of all(".chooser")) {
  fill(chooser);
  chooser.addEventListener("change", () => { fill(chooser); all(".canvas[data-pattern]", chooser).forEach(draw); });
}

const near = new IntersectionObserver((entries) => entries.forEach((e) => { if (e.isIntersecting) draw(e.target); }), { rootMargin: "500px 0px" });
const holders = all(".canvas[data-figure]");
holders.forEach((holder) => near.observe(holder));
const drawAll = () => holders.forEach(draw);
window.addEventListener("beforeprint", drawAll);

// --- light and dark ------------------------------------------------------------------------------------------------------------
function useTheme(name) {
  root.dataset.theme = name;
  holders.filter((h) => h.dataset.drawn && h.dataset.drawn !== name).forEach(draw);
}
useTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
document.getElementById("theme").addEventListener("click", () => useTheme(dark() ? "light" : "dark"));
window.addEventListener("beforeprint", () => useTheme("light"));

// --- code ----------------------------------------------------------------------------------------------------------------------
const code = document.getElementById("code");
code.addEventListener("click", () => {
  const open = code.getAttribute("aria-pressed") !== "true";
  code.setAttribute("aria-pressed", String(open));
  code.textContent = open ? "Hide code" : "Show code";
  root.dataset.code = open ? "shown" : "folded";
  all("details.code").forEach((d) => { d.open = open; });
});

// --- where the reader is -------------------------------------------------------------------------------------------------------
const links = new Map(all(".side a[href^='#']").map((a) => [a.getAttribute("href").slice(1), a]));
const targets = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
function mark() {
  let current = targets[0];
  for (const target of targets) if (target.getBoundingClientRect().top < 140) current = target;
  all(".side li.now, .side li.open").forEach((li) => li.classList.remove("now", "open"));
  if (!current) return;
  const item = links.get(current.id).closest("li");
  item.classList.add("now");
  item.parentElement.closest("li")?.classList.add("open");
}
let ticking = false;
window.addEventListener("scroll", () => { if (!ticking) { ticking = true; requestAnimationFrame(() => { mark(); ticking = false; }); } }, { passive: true });
mark();

// --- tables --------------------------------------------------------------------------------------------------------------------
const PAGE = 15;
const numberOf = (text) => { const value = Number(text.replace(/[,\s%]/g, "").replace("−", "-")); return text.trim() !== "" && !Number.isNaN(value) ? value : null; };

function liven(table) {
  const head = table.tHead, body = table.tBodies[0];
  if (!head || !body || head.rows.length !== 1 || body.rows.length < 3 || all("[colspan],[rowspan]", table).length) return;
  const rows = [...body.rows], titles = [...head.rows[0].cells];
  let order = rows, page = 0, asked = "";
  const count = make("span"), previous = make("button", { type: "button" }, "‹"), next = make("button", { type: "button" }, "›");
  const show = () => {
    const found = order.filter((row) => !asked || row.textContent.toLowerCase().includes(asked));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE));
    count.textContent = `${found.length} of ${rows.length} rows` + (pages > 1 ? `, page ${page + 1} of ${pages}` : "");
    previous.disabled = page === 0;
    next.disabled = page + 1 >= pages;
  };
  titles.forEach((title, n) => {
    title.setAttribute("aria-sort", "none");
    title.tabIndex = 0;
    const sort = () => {
      const down = title.getAttribute("aria-sort") === "ascending", key = (row) => row.cells[n]?.textContent.trim() ?? "";
      titles.forEach((t) => t.setAttribute("aria-sort", "none"));
      title.setAttribute("aria-sort", down ? "descending" : "ascending");
      order = [...rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)], [p, q] = [numberOf(x), numberOf(y)];
        const compared = p !== null && q !== null ? p - q : p !== null ? -1 : q !== null ? 1 : x.localeCompare(y);
        return down ? -compared : compared;
      });
      show();
    };
    title.addEventListener("click", sort);
    title.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
  if (rows.length <= PAGE) return;
  const search = make("input", { type: "search", placeholder: "search in this table" });
  search.setAttribute("aria-label", "search in this table");
  search.addEventListener("input", () => { asked = search.value.toLowerCase(); page = 0; show(); });
  previous.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  const frame = table.closest(".frame");
  frame.prepend(make("div", { className: "tablebar" }, count, search));
  frame.append(make("div", { className: "tablebar below" }, previous, next));
  window.addEventListener("beforeprint", () => body.replaceChildren(...order));
  window.addEventListener("afterprint", show);
  show();
}
function align(table) {
  const head = table.tHead?.rows[0], rows = [...(table.tBodies[0]?.rows || [])];
  if (!rows.length) return;
  for (let n = 0; n < rows[0].cells.length; n += 1) {
    const cells = rows.map((row) => row.cells[n]).filter((cell) => cell && cell.tagName === "TD" && !/^[\s–-]*$/.test(cell.textContent));
    if (!cells.length || !cells.every((cell) => numberOf(cell.textContent) !== null)) continue;
    rows.forEach((row) => row.cells[n]?.classList.add("num"));
    if (head && head.cells.length === rows[0].cells.length) head.cells[n].classList.add("num");
  }
}
all(".frame > table").forEach((table) => { align(table); liven(table); });
root.dataset.ready = "yes";
