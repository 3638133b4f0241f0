// The front of a table whose rows stay in Python: it sends what is asked for and draws the page that comes back.
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties || {});
  made.append(...children);
  return made;
}

function head(model) {
  const row = element("tr");
  const sort = model.get("sort"), descending = model.get("descending");
  for (const column of model.get("page").columns) {
    const arrow = sort && sort === column.name ? (descending ? " ▾" : " ▴") : "";
    const cell = element("th", { scope: "col", tabIndex: 0, className: column.numeric ? "num" : "", title: column.note },
      column.name + arrow, element("span", { className: "kind" }, column.kind));
    cell.setAttribute("aria-sort", !sort || sort !== column.name ? "none" : descending ? "descending" : "ascending");
    const ask = () => {
      if (sort !== column.name) { model.set("sort", column.name); model.set("descending", false); }
      else if (!descending) model.set("descending", true);
      else { model.set("sort", ""); model.set("descending", false); }
      model.set("number", 0);
      model.save_changes();
    };
    cell.addEventListener("click", ask);
    cell.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); ask(); } });
    row.append(cell);
  }
  return element("thead", {}, row);
}

function body(page) {
  const rows = page.rows.map((row) => element("tr", {}, ...row.map((value, n) => {
    const column = page.columns[n];
    const said = column.kind.startsWith("yes / no") ? { True: "yes", False: "no" }[value] ?? value : value;
    const shown = said === null ? "–" : said;
    const long = shown.length > 40;
    const kind = [column.numeric ? "num" : "", value === null ? "none" : "", column.index ? "index" : "", long ? "long" : ""].join(" ").trim();
    return element("td", { className: kind, title: long ? shown : "" }, shown);
  })));
  return element("tbody", {}, ...rows);
}

function render({ model, el }) {
  el.classList.add("mlb-table");
  const filter = element("input", { type: "search", placeholder: "search, or: age >= 40 and sex = Female", value: model.get("query") });
  filter.setAttribute("aria-label", "filter rows");
  const wrong = element("span", { className: "wrong" });
  const scroll = element("div", { className: "scroll" });
  const count = element("span", { className: "small" });
  const previous = element("button", { type: "button" }, "‹ previous"), next = element("button", { type: "button" }, "next ›");
  const go = (step) => { model.set("number", model.get("number") + step); model.save_changes(); };
  previous.addEventListener("click", () => go(-1));
  next.addEventListener("click", () => go(1));
  let timer = null;
  filter.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { model.set("query", filter.value); model.set("number", 0); model.save_changes(); }, 250);
  });
  const redraw = () => {
    const page = model.get("page");
    scroll.replaceChildren(element("table", {}, head(model), body(page)));
    wrong.textContent = page.wrong;
    count.textContent = page.caption;
    previous.disabled = page.number === 0;
    next.disabled = page.number + 1 >= page.pages;
  };
  const title = element("span", { className: "title" }, model.get("title"));
  el.append(element("div", { className: "bar" }, title, element("span", { className: "grow" }), wrong, filter), scroll,
    element("div", { className: "bar" }, count, element("span", { className: "grow" }), previous, next));
  model.on("change:page", redraw);
  redraw();
}
export default { render };
