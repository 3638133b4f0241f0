// Draws the plotly figures of a page when they come into view; plotly.js is loaded once, from this site.
(function () {
  "use strict";
  function start() {
    var holders = Array.prototype.slice.call(document.querySelectorAll(".plotly-figure"));
    if (!holders.length) return;
    var here = document.querySelector('script[src*="_static/figures.js"]').src;
    var library = document.createElement("script");
    library.src = here.replace(/figures\.js.*$/, "plotly.min.js");
    library.onload = function () {
      var watch = new IntersectionObserver(function (entries) {
        entries.forEach(function (entry) {
          if (!entry.isIntersecting) return;
          watch.unobserve(entry.target);
          var figure = JSON.parse(entry.target.querySelector("script").textContent);
          figure.layout.autosize = true;
          delete figure.layout.width;
          entry.target.textContent = "";
          window.Plotly.newPlot(entry.target, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: "hover" });
        });
      }, { rootMargin: "300px" });
      holders.forEach(function (holder) { watch.observe(holder); });
    };
    document.head.appendChild(library);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
