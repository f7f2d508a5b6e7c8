// The chart in a host's frame. It asks for its own dense series through query_metrics, the tool that every model has, so
// that what is drawn never passes through a model, and no tool is there for the chart alone.
"use strict";
const POINTS_MAX = 400, TOKENS_OF_SERIES = 2800, TOKENS_A_POINT = 4, HEIGHT_PX = 240;
const WINDOWS = ["15m", "1h", "6h", "24h", "7d"];
const COLOURS = {
  light: ["#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f"],
  dark: ["#7aa7ff", "#fbbf24", "#34d399", "#f87171", "#c4b5fd", "#67e8f9", "#f9a8d4", "#bef264"],
};
const at = (id) => document.getElementById(id);
const asked = { metrics: [], window: "1h", gpu: null, tz: null };
const before = [];
let metric = null, drawn = null, answer = null, lines = 1, newest = 0;

// The host: JSON-RPC over postMessage, with the window above and no other.
const waiting = new Map();
let ids = 0;
const post = (message) => window.parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
const notify = (method, params = {}) => post({ method, params });
const request = (method, params) => new Promise((resolve, reject) => {
  waiting.set(++ids, { resolve, reject });
  post({ id: ids, method, params });
});

const heard = {
  "ui/notifications/tool-input": ({ arguments: given = {} }) => begin(given),
  "ui/notifications/tool-result": (result) => {
    if (result.isError) return say(textOf(result));
    begin(metricsOf(result.structuredContent));
  },
  "ui/notifications/host-context-changed": follow,
};

window.addEventListener("message", ({ source, data }) => {
  if (source !== window.parent || data?.jsonrpc !== "2.0") return;
  if (data.method && data.id !== undefined) post({ id: data.id, result: {} }); // ping, ui/resource-teardown
  else if (data.method) heard[data.method]?.(data.params ?? {});
  else if (waiting.has(data.id)) {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    data.error ? reject(new Error(data.error.message)) : resolve(data.result);
  }
});

function follow(context) {
  const theme = context?.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (context?.theme === undefined && document.documentElement.dataset.theme) return;
  document.documentElement.dataset.theme = theme;
  if (answer) draw();
}

// What is asked.
const metricsOf = (content) => ({ metrics: [...new Set((content?.stats?.rows ?? []).map((row) => row[0]))] });

function begin(given) {
  const first = asked.metrics.length === 0;
  const names = given.metrics ?? [];
  if (names.length === 0 || (!first && given.window === undefined)) return;
  Object.assign(asked, { gpu: null, tz: null }, given);
  at("metric").replaceChildren(...names.map((name) => new Option(name, name)));
  metric = names[0];
  before.length = 0;
  ask();
}

async function ask(window = asked.window) {
  asked.window = window;
  const mine = ++newest;
  let points = Math.max(12, Math.min(POINTS_MAX, Math.floor(TOKENS_OF_SERIES / TOKENS_A_POINT / lines)));
  say("…");
  try {
    for (;;) {
      const given = { metrics: [metric], window, points, detail: "full" };
      if (asked.gpu) given.gpu = asked.gpu;
      if (asked.tz) given.tz = asked.tz;
      const result = await request("tools/call", { name: "query_metrics", arguments: given });
      if (mine !== newest) return;
      if (result.isError) return say(textOf(result));
      answer = result.structuredContent;
      lines = Math.max(1, answer.stats.rows.length);
      if (!answer.truncated || points <= 12) break;
      points = Math.max(12, Math.floor(points / 2)); // the answer had more lines than it has room for
    }
    draw();
  } catch (error) {
    say(`The host did not answer: ${error.message}`);
  }
}

// What is drawn.
const say = (text) => { at("said").textContent = text; tell(); };
const textOf = (result) => (result.content ?? []).map((item) => item.text ?? "").join(" ");
const tell = () => notify("ui/notifications/size-changed", { width: document.documentElement.scrollWidth, height: document.body.offsetHeight });

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
function short(value, unit) {
  if (value === null || value === undefined) return "–";
  const [size, letter] = (unit !== "%" && PREFIXES.find(([least]) => Math.abs(value) >= least)) || [1, ""];
  return `${Number((value / size).toPrecision(3))}${letter ? ` ${letter}` : " "}${unit ?? ""}`.trim();
}

// 2026-11-24 00:45:00 in the answer's zone, on whatever machine the host runs
const clock = (stamp) => new Date(stamp * 1e3).toLocaleString("sv-SE", { timeZone: answer.window.tz });
function hours(_, ticks, axis, space, step) {
  return ticks.map((tick, index) => {
    const [date, time] = clock(tick).split(" ");
    if (step >= 86400) return date.slice(5);
    return time.slice(0, step < 60 ? 8 : 5) + (index === 0 || time === "00:00:00" ? `\n${date}` : "");
  });
}

function draw() {
  const series = Object.entries(answer.series ?? {});
  const unit = answer.stats.rows[0]?.[1] ?? "";
  drawn?.destroy();
  drawn = null;
  marks();
  if (series.length === 0) return say([answer.summary, ...(answer.notes ?? [])].join(" "));
  const start = Date.parse(answer.series_start) / 1000;
  const times = series[0][1].map((_, index) => start + index * answer.step_s);
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--soft"), line = style.getPropertyValue("--line");
  const colours = COLOURS[document.documentElement.dataset.theme] ?? COLOURS.light;
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  drawn = new uPlot({
    width: document.body.clientWidth - 24, height: HEIGHT_PX,
    tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1e3), answer.window.tz),
    scales: { x: { time: true, range: (_, low, high) => [low, high] }, ...(unit === "%" ? { y: { range: [0, 100] } } : {}) },
    cursor: { drag: { x: true, y: false, setScale: false } },
    axes: [{ ...axis, values: hours }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => short(tick, unit)) }],
    series: [{ value: (_, stamp) => stamp === null ? "–" : clock(stamp) }].concat(
      series.map(([name], index) => ({
        label: labelOf(name), stroke: colours[index % colours.length], width: 1.5,
        spanGaps: false, value: (_, value) => short(value, unit),
      }))),
    hooks: { setSelect: [chosen] },
  }, [times, ...series.map(([, values]) => values)], at("chart"));
  const { coverage } = answer.window;
  const seen = coverage === null || coverage === undefined ? "" : ` ${Number((coverage * 100).toPrecision(3))} % of the samples are there.`;
  say(`${answer.summary}${seen} Drag over the chart to look closer.`);
}

function labelOf(name) {
  const label = name.slice(name.indexOf("/") + 1) || name;
  return name.startsWith("gpu.") && /^\d+$/.test(label) ? `GPU ${label}` : label;
}

function marks() {
  for (const button of at("windows").children) button.setAttribute("aria-pressed", String(button.textContent === asked.window));
  at("back").disabled = before.length === 0;
  at("metric").value = metric;
}

function chosen(plot) {
  if (plot.select.width < 4) return;
  const [from, to] = [plot.select.left, plot.select.left + plot.select.width].map((x) => Math.round(plot.posToVal(x, "x")));
  if (to - from < 4) return;
  before.push(asked.window);
  ask([from, to].map((stamp) => new Date(stamp * 1000).toISOString().replace(".000Z", "Z")).join(".."));
}

at("windows").append(...WINDOWS.map((name) => {
  const button = Object.assign(document.createElement("button"), { textContent: name });
  button.addEventListener("click", () => { before.push(asked.window); ask(name); });
  return button;
}));
at("metric").addEventListener("change", (event) => { metric = event.target.value; lines = 1; ask(); });
at("back").addEventListener("click", () => ask(before.pop()));
at("again").addEventListener("click", () => ask());
window.addEventListener("resize", () => drawn?.setSize({ width: document.body.clientWidth - 24, height: HEIGHT_PX }));

request("ui/initialize", {
  protocolVersion: "2026-01-26", appInfo: { name: "gpuledger chart", version: "1" }, appCapabilities: {},
}).then(({ hostContext }) => { follow(hostContext ?? {}); notify("ui/notifications/initialized"); });
