"use strict";
// The figures: drawn as they come into view, in the colours of the page; their legends, tables, and light and dark.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const touch = matchMedia("(pointer: coarse)").matches;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set();
  const hidden = new Map(); // figure -> legend groups that are switched off
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
      return shade === "pale" ? faded(hex, 0.16) : shade === "faint" ? faded(hex, 0.42) : hex;
    }
    return node;
  }

  function layout(own) {
    const axis = {
      gridcolor: colour("--rule"), zeroline: false, linecolor: colour("--rule"), automargin: true, fixedrange: touch,
      title: { standoff: 4, font: { size: 12, color: colour("--muted") } }, tickfont: { size: 11.5, color: colour("--muted") },
    };
    const merged = (ours) => ({ ...axis, ...ours, title: { ...axis.title, ...(ours || {}).title } });
    return {
      ...own, xaxis: merged({ showgrid: false, nticks: 8, ...own.xaxis }), yaxis: merged({ nticks: 6, ...own.yaxis }),
      margin: { l: 44, r: 8, t: 10, b: 38 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, color: colour("--ink"), size: 12 },
      hovermode: "x unified", hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: colour("--ink") } },
      dragmode: touch ? false : "zoom",
    };
  }

  function draw(place) {
    css = getComputedStyle(root);
    const figure = figures[place.dataset.figure];
    const off = hidden.get(place) || new Set();
    const data = coloured(figure.data).map((trace) => (off.has(trace.legendgroup || trace.name) ? { ...trace, visible: false } : trace));
    const canvas = place.querySelector(".canvas") || place.appendChild(Object.assign(document.createElement("div"), { className: "canvas" }));
    canvas.style.height = "100%";
    Plotly.react(canvas, data, layout(figure.layout), { responsive: true, displayModeBar: false, displaylogo: false });
    drawn.add(place);
  }

  // ---- legends switch their curves; a figure turns into its table, in the same place
  const plain = (name) => new DOMParser().parseFromString(name, "text/html").documentElement.textContent;
  function numbers(place) {
    const traces = figures[place.dataset.figure].data.filter((trace) => trace.showlegend !== false);
    const rows = new Map();
    traces.forEach((trace, column) => trace.x.forEach((x, i) => {
      if (!rows.has(x)) rows.set(x, new Array(traces.length).fill(""));
      rows.get(x)[column] = trace.y[i] ?? "";
    }));
    const table = document.createElement("table");
    const put = (parent, tag, text) => { const cell = parent.appendChild(document.createElement(tag)); cell.textContent = text; return cell; };
    const head = table.createTHead().insertRow();
    for (const name of [figures[place.dataset.figure].layout.xaxis.title.text, ...traces.map((trace) => plain(trace.name))]) put(head, "th", name);
    const body = table.createTBody();
    for (const [x, values] of [...rows].sort((a, b) => a[0] - b[0])) {
      const row = body.insertRow();
      for (const value of [x, ...values]) put(row, "td", value);
    }
    const frame = Object.assign(document.createElement("div"), { className: "numbers", tabIndex: 0 });
    frame.append(table);
    return frame;
  }
  document.querySelectorAll("figure").forEach((figure) => {
    const place = figure.querySelector(".plot");
    figure.addEventListener("click", (event) => {
      const chip = event.target.closest(".chip");
      if (chip) {
        const off = hidden.get(place) || new Set();
        const on = chip.getAttribute("aria-pressed") !== "true";
        if (on) off.delete(chip.dataset.group); else off.add(chip.dataset.group);
        chip.setAttribute("aria-pressed", on);
        hidden.set(place, off);
        draw(place);
      }
      const flip = event.target.closest(".flip");
      if (flip) {
        const shown = place.querySelector(".numbers");
        if (shown) shown.remove(); else place.append(numbers(place));
        flip.setAttribute("aria-pressed", !shown);
        flip.textContent = shown ? "table" : "figure";
        flip.title = shown ? "Show the numbers" : "Show the figure";
      }
    });
  });

  // ---- light and dark: as the system has it, or as the reader chooses
  const button = document.getElementById("theme");
  const modes = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
  const remembered = { get() { try { return localStorage.getItem("r1jax-theme"); } catch { return null; } }, set(value) { try { localStorage.setItem("r1jax-theme", value); } catch { /* a page opened as a file may have no storage */ } } };
  let mode = modes[remembered.get()] ? remembered.get() : "auto";
  function dress() {
    const [sign, words] = modes[mode];
    root.dataset.theme = mode === "auto" ? (systemDark.matches ? "dark" : "light") : mode;
    button.textContent = sign;
    button.title = `Colours: ${words}`;
    button.setAttribute("aria-label", button.title);
    drawn.forEach(draw);
  }
  button.addEventListener("click", () => {
    const names = Object.keys(modes);
    mode = names[(names.indexOf(mode) + 1) % names.length];
    remembered.set(mode);
    dress();
  });
  systemDark.addEventListener("change", dress);
  dress();

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
    }
  }, { rootMargin: "800px" });
  document.querySelectorAll(".plot").forEach((place) => watcher.observe(place));
  addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach(draw));
})();
