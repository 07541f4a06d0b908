"use strict";
// Draws the figures as they come into view, in the colours of the page, and again when light turns to dark.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();
  let css;
  const colour = (name) => css.getPropertyValue(name).trim();

  function faded(hex, alpha) {
    const value = parseInt(hex.slice(1), 16);
    return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${alpha})`;
  }

  // "role:3", "role:3-pale", "role:3-faint" -> colours; only where plotly reads a colour.
  function coloured(node, key) {
    if (Array.isArray(node)) return key === "x" || key === "y" ? node : node.map((inner) => coloured(inner));
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([inner, value]) => [inner, coloured(value, inner)]));
    }
    if ((key === "color" || key === "fillcolor") && typeof node === "string" && node.startsWith("role:")) {
      const [role, shade] = node.slice(5).split("-");
      const hex = colour(`--c${role}`);
      return shade === "pale" ? faded(hex, 0.15) : shade === "faint" ? faded(hex, 0.4) : hex;
    }
    return node;
  }

  function layout(own) {
    const axis = {
      gridcolor: colour("--rule"), zeroline: false, linecolor: colour("--rule"), automargin: true, fixedrange: touch,
      title: { standoff: 6, font: { size: 12, color: colour("--muted") } }, tickfont: { size: 11.5, color: colour("--muted") },
    };
    const merged = (ours) => ({ ...axis, ...ours, title: { ...axis.title, ...(ours || {}).title } });
    return {
      ...own, xaxis: merged({ showgrid: false, ...own.xaxis }), yaxis: merged(own.yaxis),
      margin: { l: 48, r: 10, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, color: colour("--ink"), size: 12 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11.5 }, bgcolor: "rgba(0,0,0,0)", ...own.legend },
      hovermode: "x unified", hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
      dragmode: touch ? false : "zoom",
    };
  }

  function draw(place) {
    css = getComputedStyle(document.documentElement);
    const figure = figures[place.dataset.figure];
    const options = { responsive: true, displayModeBar: false, displaylogo: false };
    Plotly.react(place, coloured(figure.data), layout(figure.layout), options);
    drawn.add(place);
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
    }
  }, { rootMargin: "800px" });
  document.querySelectorAll(".plot").forEach((place) => watcher.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));
})();
