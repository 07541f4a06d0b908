"use strict";
// Before anything is drawn: light or dark, as the reader chose or as the system has it. No flash of the other.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("r1jax-theme"); } catch { /* a page opened as a file may have no storage */ }
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
