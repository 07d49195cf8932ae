// Draws each figure from the data beside it when it is first in sight; copies the best config; sorts tables.
"use strict";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const DARK = { "#222222": "#e4e6e8", "#e6e6e6": "#363b41", "#7a7a7a": "#a3a9b0", "rgba(255,255,255,0.75)": "rgba(21,24,27,0.75)", "rgba(34,34,34,0.14)": "rgba(228,230,232,0.18)" };

function draw(figure) {
  const places = figure.querySelectorAll(".chart");
  let text = figure.querySelector("script").textContent;
  if (dark.matches) for (const [light, own] of Object.entries(DARK)) text = text.replaceAll(light, own);
  figure.classList.add("live"); // before it is drawn: hidden elements have no width
  Promise.all(
    JSON.parse(text).map((chart, number) =>
      Plotly.react(places[number], chart.data, chart.layout, {
        responsive: true,
        displaylogo: false,
        displayModeBar: false,
        scrollZoom: false,
      }),
    ),
  ).catch(() => figure.classList.remove("live")); // keeps its picture
}

const isOpen = (element) => !element.closest("details:not([open])");
const figures = [...document.querySelectorAll("figure")];
for (const figure of figures.filter(isOpen)) draw(figure);
for (const details of document.querySelectorAll("details"))
  details.addEventListener("toggle", () => {
    for (const figure of details.querySelectorAll("figure:not(.live)")) if (isOpen(figure)) draw(figure);
  });
dark.addEventListener("change", () => document.querySelectorAll("figure.live").forEach(draw));

function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target && target.querySelector(":scope > details");
  if (details) details.open = true;
}
window.addEventListener("hashchange", openTarget);
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(openTarget));
openTarget();

let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});

for (const box of document.querySelectorAll(".copy")) {
  const button = box.querySelector("button");
  const code = box.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (document.execCommand("copy")) button.textContent = "Copied"; // also works in a page opened from a file
  });
}

function sortKey(cell) {
  const text = cell ? cell.textContent.trim().replaceAll("\u2212", "-").replaceAll(",", "") : "";
  const number = parseFloat(text.replace(/^[<>]\s*/, ""));
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

function compare(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other));
}

for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 3) continue;
  table.tHead.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const printed = document.createElement("span"); // Chromium prints a button in the first of repeated heads only
    printed.className = "printed";
    button.textContent = printed.textContent = head.textContent;
    head.replaceChildren(button, printed);
    button.addEventListener("click", () => {
      const downwards = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      const keyed = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
      keyed.sort(([one], [other]) =>
        one === null || other === null ? compare(one, other) : (downwards ? -1 : 1) * compare(one, other),
      );
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
