// Draws each figure from the data beside it. A figure that cannot be drawn keeps its picture.
"use strict";
for (const figure of document.querySelectorAll("figure")) {
  const places = figure.querySelectorAll(".chart");
  const charts = JSON.parse(figure.querySelector("script").textContent);
  figure.classList.add("live"); // before it is drawn: what is hidden has no width
  Promise.all(
    charts.map((chart, number) =>
      Plotly.newPlot(places[number], chart.data, chart.layout, {
        responsive: true,
        displaylogo: false,
        displayModeBar: false,
        scrollZoom: false,
      }),
    ),
  ).catch(() => figure.classList.remove("live"));
}
