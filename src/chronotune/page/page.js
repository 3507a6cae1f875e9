"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  /* a string `--name` is a colour of the style sheet */
  const painted = (value, style) => {
    if (typeof value === "string") return /^--[a-z-]+$/.test(value) ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return value.map((one) => painted(one, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, style)]));
    }
    return value;
  };

  const themed = (layout, style, width) => {
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = (own) => ({ automargin: true, ...own, gridcolor: colour("--grid"), zerolinecolor: colour("--grid"),
      linecolor: colour("--rule"), tickcolor: colour("--rule") });
    const base = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: width < 480 ? 11 : 13 },
      margin: { l: 12, r: 12, t: 12, b: 12 }, showlegend: false,
      hoverlabel: { bgcolor: colour("--paper"), font: { color: colour("--ink") } } };
    const axes = Object.keys({ xaxis: 1, yaxis: 1, ...layout }).filter((key) => /^[xy]axis/.test(key));
    return { ...base, ...layout, ...Object.fromEntries(axes.map((key) => [key, axis(layout[key] || {})])) };
  };

  const plots = [...document.querySelectorAll("script[data-for]")].map((script) => ({
    box: document.getElementById(script.dataset.for), plot: JSON.parse(script.textContent),
  }));

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    return Promise.all(plots.map(({ box, plot }) => Plotly.react(box, painted(plot.data, style),
      themed(painted(plot.layout, style), style, box.clientWidth), { responsive: true, displayModeBar: false })));
  };

  document.querySelectorAll(".legend button").forEach((button) => button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const { plot } = plots.find(({ box }) => box.id === button.dataset.plot);
    button.dataset.traces.split(" ").forEach((number) => { plot.data[number].visible = shown; });
    draw();
  }));

  draw().then(() => { document.documentElement.dataset.drawn = String(plots.length); });
  dark.addEventListener("change", draw);
})();
