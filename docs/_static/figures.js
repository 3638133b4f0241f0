// Draws the plotly figures of a page when they come into view, in the colours of the page; plotly.js is loaded once, from this site.
(function () {
  "use strict";
  var root = document.documentElement;
  function dark() { return root.dataset.theme === "dark"; }

  // A title that is wider than its figure is broken into lines at spaces. plotly sets the first of several lines higher than a single one, hence the padding.
  function wrapTitle(layout, width) {
    var title = layout.title || {}, text = title.text || "";
    var room = Math.max(24, Math.floor((width - 90) / 8.4));
    if (text.length <= room || text.indexOf("<") >= 0) return;
    var lines = [""];
    text.split(" ").forEach(function (word) {
      var last = lines.length - 1;
      if (lines[last] && (lines[last] + " " + word).length > room) lines.push(word);
      else lines[last] = (lines[last] + " " + word).trim();
    });
    var extra = 19 * (lines.length - 1), size = (title.font && title.font.size) || 17;
    var pad = Object.assign({}, title.pad, { t: ((title.pad && title.pad.t) || 0) + Math.round(0.7 * size) });
    layout.title = Object.assign({}, title, { text: lines.join("<br>"), pad: pad });
    layout.margin = Object.assign({}, layout.margin, { t: ((layout.margin && layout.margin.t) || 64) + extra });
    layout.height = (layout.height || 380) + extra;
  }

  function themed(given, width) {
    var layout = JSON.parse(JSON.stringify(given || {}));
    delete layout.width;
    layout.autosize = true;
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = Object.assign({}, layout.font, { color: dark() ? "#ced6dd" : "#1f2933" });
    layout.modebar = { bgcolor: dark() ? "rgba(20,24,30,.9)" : "rgba(255,255,255,.9)", color: "#8b97a6", activecolor: dark() ? "#79aee8" : "#3266a8" };
    wrapTitle(layout, width);
    if (dark()) {
      Object.keys(layout).forEach(function (key) {
        if (/^[xy]axis\d*$/.test(key)) Object.assign(layout[key], { gridcolor: "#39424e", zerolinecolor: "#39424e", linecolor: "#39424e" });
      });
      (layout.annotations || []).forEach(function (note) { if (note.font) delete note.font.color; });
    }
    return layout;
  }

  function draw(holder) {
    if (holder.dataset.drawn === root.dataset.theme) return;
    holder.dataset.drawn = root.dataset.theme;
    if (!holder.figure) {
      holder.figure = JSON.parse(holder.querySelector("script").textContent);
      holder.textContent = "";
    }
    var figure = JSON.parse(JSON.stringify(holder.figure)), layout = themed(figure.layout, holder.clientWidth);
    if (layout.height) holder.style.height = layout.height + "px";
    window.Plotly.react(holder, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover" });
  }

  function start() {
    var holders = Array.prototype.slice.call(document.querySelectorAll(".plotly-figure"));
    if (!holders.length) return;
    var here = document.querySelector('script[src*="_static/figures.js"]').src;
    var library = document.createElement("script");
    library.src = here.replace(/figures\.js.*$/, "plotly.min.js");
    library.onload = function () {
      var watch = new IntersectionObserver(function (entries) {
        entries.forEach(function (entry) { if (entry.isIntersecting) draw(entry.target); });
      }, { rootMargin: "300px" });
      holders.forEach(function (holder) { watch.observe(holder); });
      new MutationObserver(function () {
        holders.forEach(function (holder) { if (holder.dataset.drawn) draw(holder); });
      }).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
    };
    document.head.appendChild(library);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
