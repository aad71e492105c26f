// The page of runs. It keeps what the server has told of the run that is shown, and draws it as of any moment.
//
// The server sends what came after the event that we know last (columns, see watched.py); time travel is done
// here. Charts are ECharts instances that NiceGUI has made; we only give them data.
"use strict";

const POLL_MS = 300;
const OTHERS_MS = 2000;
const MOST_POINTS = 6000; // that are kept; the server sends 2,048 at most
const CHARTS_MS = 250; // while it is replayed, charts are drawn so often
const COLOURS = { absent: [38, 43, 54], spare: [74, 124, 198], training: [52, 178, 112], failed: [232, 65, 66],
  "set aside": [240, 173, 78], quarantined: [155, 89, 182] };
const PARTS = { productive: "#34b270", training: "#34b270", startup: "#4a7cc6", snapshot: "#5bc0de", checkpoint: "#20a4a4",
  detection: "#e84142", restart: "#f0ad4e", recomputation: "#d9772b", waiting: "#9b59b6", idle: "#7b8494" };
const WAITING_FOR_WORK = { startup: [74, 124, 198], restart: [190, 150, 60], waiting: [130, 80, 160], detection: [150, 120, 70],
  recomputation: [150, 120, 70] };
const SPEEDS = [["real time", 1], ["1 min/s", 60], ["10 min/s", 600], ["1 h/s", 3600], ["6 h/s", 21600],
  ["1 day/s", 86400], ["3 days/s", 259200], ["10 days/s", 864000]];

const page = { run: 0, newest: 0, live: true, playing: false, t: 0, speed: 1, seen: 0, phase: "", ready: false,
  updates: [], drawn: 0 };
let map, data, charts = {};

const $ = (id) => document.getElementById(id);
const emptyData = () => ({ points: {}, changes: {}, marks: {}, spans: {}, lives: {}, saves: {}, now: null, power: null,
  others: [], expected: {}, states: [], parts: [] });

function append(table, more) {
  if (!more) return;
  const from = more.from;
  for (const [key, column] of Object.entries(more)) {
    if (key === "from") continue;
    if (!table[key]) table[key] = [];
    if (from !== undefined) table[key].length = Math.min(table[key].length, from);
    if (column.words) for (const at of column.of) table[key].push(column.words[at]);
    else if (key === "time") for (const seconds of column) table[key].push(data.now.began + seconds);
    else for (const value of column) table[key].push(value);
  }
}

function countUntil(times, t) { // how many of the sorted times are at or before t
  let low = 0, high = times ? times.length : 0;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t) low = middle + 1; else high = middle;
  }
  return low;
}

// --- numbers for people ----------------------------------------------------------------------------------

const number = (value, digits = 3) => value == null ? "–" : Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
  ? compact(value) : value.toLocaleString("en", { maximumFractionDigits: digits });
function compact(value) {
  for (const [size, letter] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return `${(value / size).toPrecision(3)} ${letter}`;
  }
  return Number(value.toPrecision(3)).toString();
}
const percent = (value) => value == null ? "–" : `${(100 * value).toFixed(1)}%`;
function span(seconds) {
  if (seconds == null) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}
const unit = () => {
  const whole = data.now ? data.now.heard - data.now.began : 0;
  return whole < 600 ? ["s", 1] : whole < 36000 ? ["min", 60] : whole < 259200 ? ["h", 3600] : ["days", 86400];
};
const elapsed = (t) => (t - data.now.began) / unit()[1];

// --- what the server says --------------------------------------------------------------------------------

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function poll() {
  const run = page.run;
  try {
    const more = await get(`api/runs/${run}/since/${page.newest}`);
    if (run !== page.run) return;
    $("link").className = "on";
    if (more.newest !== page.newest) await take(run, more);
  } catch (error) {
    $("link").className = "off";
    $("link").title = String(error);
  } finally {
    setTimeout(poll, POLL_MS);
  }
}

async function take(run, more) {
  if (more.nodes !== undefined && more.nodes !== data.layoutNodes) {
    const layout = await get(`api/runs/${run}/layout`);
    if (run !== page.run) return;
    data.layoutNodes = layout.names.length;
    data.states = layout.states;
    data.parts = layout.parts;
    data.expected = layout.expected;
    map.show(layout);
    const count = layout.names.length;
    $("arranged").textContent = `${count.toLocaleString("en")} ${count === 1 ? "node" : "nodes"}, ${layout.arranged}`;
  }
  if (page.live && page.newest && (data.points.time || []).length > MOST_POINTS) return choose(run); // anew, thinned
  page.newest = more.newest;
  if (more.now) data.now = more.now;
  for (const table of ["points", "changes", "marks", "spans", "lives", "saves"]) append(data[table], more[table]);
  page.updates.push(Date.now());
  if (page.live) page.t = data.now.heard;
  travel();
  drawAll();
}

async function choose(run) {
  page.run = run;
  page.newest = 0;
  page.live = true;
  page.playing = false;
  page.seen = 0;
  data = emptyData();
  map.states.fill(0);
  map.chosen = -1;
  $("history").textContent = "";
  document.querySelectorAll("#runs button").forEach((button, at) => button.setAttribute("aria-pressed", at === run));
  await take(run, await get(`api/runs/${run}/since/0`));
  get(`api/runs/${run}/power`).then((power) => {
    if (run !== page.run) return;
    data.power = power;
    page.powerless = power ? -1 : run;
    drawCharts(["power"]);
  });
}

// --- time travel -----------------------------------------------------------------------------------------

function travel() { // the fleet as of page.t
  const changes = data.changes, until = countUntil(changes.time, page.live ? Infinity : page.t);
  if (until < page.seen) {
    map.states.fill(0);
    page.seen = 0;
  }
  for (let at = page.seen; at < until; at++) {
    map.states.fill(changes.state[at], changes.first[at], changes.first[at] + changes.count[at]);
  }
  page.seen = until;
  page.phase = phaseAt(page.t);
  map.colours = data.states.map((state) => state === "training" && WAITING_FOR_WORK[page.phase] || COLOURS[state]);
  map.draw();
}

function phaseAt(t) {
  const at = countUntil(data.spans.time, t) - 1;
  return at < 0 ? "" : data.spans.part[at];
}

let last = 0, charted = 0;
function frame(now) {
  const passed = Math.min((now - last) / 1000, 0.5);
  last = now;
  if (page.playing && data.now) {
    page.t = Math.min(page.t + passed * page.speed, data.now.heard);
    if (page.t >= data.now.heard) setPlaying(false);
    travel();
    drawClock();
    if (now - charted > CHARTS_MS) {
      charted = now;
      drawTiles();
      drawCharts([DRAWN[page.drawn++ % DRAWN.length], "goodput"]);
    }
  }
  requestAnimationFrame(frame);
}

function setPlaying(on) {
  page.playing = on;
  $("play").textContent = on ? "❚❚ pause" : "▶ play";
  if (!on) drawAll();
}

function go(t, live) {
  page.live = live;
  page.t = Math.min(t, data.now.heard);
  $("live").setAttribute("aria-pressed", live);
  travel();
  drawAll();
}

// --- drawing ---------------------------------------------------------------------------------------------

const DRAWN = ["loss", "speed", "mfu", "step", "over", "power"];

function drawAll() {
  drawClock();
  drawTiles();
  drawTimeline();
  drawCharts([...DRAWN, "goodput"]);
  drawLives();
}

function drawClock() {
  const { began, heard } = data.now;
  const slider = $("time");
  slider.max = heard - began;
  slider.value = page.t - began;
  const date = new Date(page.t * 1000).toISOString().slice(0, 19).replace("T", " ");
  $("clock").textContent = `${span(page.t - began)} of ${span(heard - began)} · ${date} UTC`;
  $("phase").textContent = page.phase;
  $("phase").style.background = PARTS[page.phase] || "#555";
  const at = $("cursor");
  at.style.left = `${100 * (page.t - began) / Math.max(heard - began, 1e-9)}%`;
}

function pointNow() { // the newest point at page.t
  if (page.live) return data.now.point;
  const at = countUntil(data.points.time, page.t) - 1;
  if (at < 0) return null;
  return Object.fromEntries(Object.entries(data.points).map(([key, column]) => [key, column[at]]));
}

function powerNow() { // [MW]
  const { time, mw } = data.power;
  return mw[Math.max(countUntil(time, page.t - data.now.began) - 1, 0)];
}

function drawTiles() {
  const now = data.now, point = pointNow(), want = data.expected;
  const parts = page.live ? now.parts : point ? point.parts : now.parts.map(() => 0);
  const whole = parts.reduce((a, b) => a + b, 0);
  const good = whole ? parts[data.parts.indexOf("productive")] / whole : null;
  const lives = countUntil(data.lives.time, page.t), saves = countUntil(data.saves.time, page.t);
  const beside = (value, form) => value == null ? "" : `forecast ${form(value)}`;
  const saved = saves ? number(data.saves.step[saves - 1]) : "none";
  const kept = now.snapshot_every && point ? Math.floor(point.step / now.snapshot_every) * now.snapshot_every : null;
  const tiles = [
    ["step", point ? number(point.step) : "–", now.goal ? `of ${number(now.goal)}` : ""],
    ["loss", point ? number(point.loss, 4) : "–", ""],
    ["tokens/s", point ? number(point.tokens_per_second, 0) : "–", beside(want.tokens_per_second, compact)],
    ["MFU", percent(point && point.mfu), beside(want.mfu, percent)],
    ["a step", span(point && point.step_seconds), beside(want.step_seconds, span)],
    ["goodput", percent(good), beside(want.goodput, percent)],
    ["incarnation", lives ? String(data.lives.number[lives - 1]) : "–", lives ? `${number(data.lives.workers[lives - 1])} workers` : ""],
    ["checkpoint at step", saved, saves ? `${span(page.t - data.saves.time[saves - 1])} ago` : ""],
    ...(data.power ? [["power", `${number(powerNow(), 1)} MW`, `${number(data.power.energy_mwh, 0)} MWh in all`]] : []),
    ["snapshot at step", kept == null ? "none" : number(kept), now.snapshot_every ? `every ${now.snapshot_every} steps` : ""],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, value, beside]) => {
    const tile = document.createElement("div");
    tile.className = "tile";
    tile.dataset.name = name;
    for (const [kind, text] of [["name", name], ["value", value], ["beside", beside]]) {
      const line = document.createElement("div");
      line.className = kind;
      line.textContent = text;
      tile.append(line);
    }
    return tile;
  }));
  const counts = new Array(data.states.length).fill(0);
  for (const state of map.states) counts[state]++;
  $("legend").replaceChildren(...data.states.map((state, at) => {
    const entry = document.createElement("span");
    const dot = document.createElement("i");
    dot.style.background = `rgb(${(map.colours[at] || COLOURS[state]).join(",")})`;
    entry.dataset.state = state;
    entry.append(dot, `${state} ${counts[at].toLocaleString("en")}`);
    return entry;
  }));
}

function drawTimeline() { // a column of pixels shows how its time is shared out, and how many faults it had
  if (!data.now) return;
  const canvas = $("timeline"), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio);
  canvas.height = canvas.clientHeight * ratio;
  const context = canvas.getContext("2d"), { began, heard } = data.now;
  const wide = canvas.width, scale = wide / Math.max(heard - began, 1e-9), high = canvas.height;
  const { time = [], seconds = [], part = [] } = data.spans, columns = {};
  for (let at = 0; at < time.length; at++) {
    const shares = columns[part[at]] ||= new Float64Array(wide + 1);
    const end = Math.min((time[at] + seconds[at] - began) * scale, wide);
    for (let x = Math.max((time[at] - began) * scale, 0); x < end;) {
      const next = Math.min(Math.floor(x) + 1, end);
      shares[Math.floor(x)] += next - x;
      x = next;
    }
  }
  const names = Object.keys(PARTS).filter((name) => columns[name]), top = high * 0.3, whole = high * 0.52;
  for (let x = 0; x < wide; x++) {
    let y = top + whole;
    for (const name of names) {
      const share = columns[name][x] * whole;
      context.fillStyle = PARTS[name];
      if (share > 0) context.fillRect(x, (y -= share), 1, share);
    }
  }
  const bars = (times, colour, from, room) => {
    const counts = new Uint32Array(wide + 1), each = Math.max(1, Math.round(ratio));
    for (const t of times) counts[Math.floor((t - began) * scale / each) * each]++;
    const most = counts.reduce((a, b) => Math.max(a, b), 1);
    context.fillStyle = colour;
    counts.forEach((count, x) => count && context.fillRect(x, from + room * (1 - count / most), each, room * count / most));
  };
  const { kind = [], time: when = [] } = data.marks;
  bars(when.filter((_, at) => kind[at] === "fault"), "#e84142", 0, high * 0.26);
  bars(data.saves.time || [], "#20a4a4", high * 0.86, high * 0.14);
}

function series(column, until) {
  const { time = [] } = data.points, values = data.points[column] || [], found = [];
  for (let at = 0; at < until; at++) if (values[at] != null) found.push([elapsed(time[at]), values[at]]);
  const tail = data.now.point;
  if (page.live && tail && tail[column] != null) found.push([elapsed(tail.time), tail[column]]);
  return found;
}

function drawCharts(names) {
  if (!data.now) return;
  const until = countUntil(data.points.time, page.live ? Infinity : page.t);
  const end = elapsed(data.now.heard), label = unit()[0], want = data.expected;
  const flat = (value) => value == null ? [] : [[0, value], [end, value]];
  const give = (name, lines) => charts[name] && charts[name].setOption(
    { xAxis: { name: label, max: end }, series: lines.map((points) => ({ data: points })) }, { lazyUpdate: true });
  for (const name of names) {
    if (name === "loss") {
      const points = series("loss", until);
      give(name, [points]);
      instead("loss", points.length || !(data.points.time || []).length ? "" : "steps without a loss: it is simulated");
    }
    if (name === "speed") give(name, [series("tokens_per_second", until), flat(want.tokens_per_second)]);
    if (name === "mfu") give(name, [series("mfu", until), flat(want.mfu)]);
    if (name === "step") give(name, [series("step_seconds", until), flat(want.step_seconds)]);
    if (name === "over") give(name, [goodputOver(until), flat(want.goodput)]);
    if (name === "power") instead("power", data.power === null && page.powerless === page.run ? "nobody has measured it" : "");
    if (name === "power" && data.power) {
      const cut = page.live ? data.power.time.length : countUntil(data.power.time, page.t - data.now.began);
      give(name, [data.power.time.slice(0, cut).map((t, at) => [t / unit()[1], data.power.mw[at]])]);
    }
    if (name === "goodput") waterfall();
  }
}

function instead(name, text) { // of a chart that has nothing to show
  const textStyle = { color: "#8a93a5", fontSize: 12 };
  charts[name]?.setOption({ title: { text, left: "center", top: "40%", textStyle } });
}

function goodputOver(until) {
  const { time = [], parts = [] } = data.points, at = data.parts.indexOf("productive"), found = [];
  for (let row = 0; row < until; row++) {
    const whole = parts[row].reduce((a, b) => a + b, 0);
    if (whole) found.push([elapsed(time[row]), parts[row][at] / whole]);
  }
  return found;
}

function waterfall() { // from all that was paid for, loss by loss, down to what was productive
  const point = pointNow(), parts = page.live ? data.now.parts : point ? point.parts : null;
  if (!parts || !charts.goodput) return;
  const whole = parts.reduce((a, b) => a + b, 0) || 1;
  const losses = data.parts.map((name, at) => [name, parts[at] / whole]).filter(([name]) => name !== "productive");
  const names = ["all", ...losses.map(([name]) => name), "productive"];
  let left = 1;
  const bars = [[0, 1]];
  for (const [, share] of losses) bars.push([left - share, share]), left -= share;
  bars.push([0, parts[data.parts.indexOf("productive")] / whole]);
  const planned = names.map((name) => (data.expected.parts || {})[name]);
  charts.goodput.setOption({ xAxis: { data: names }, series: [
    { data: bars.map(([base]) => Math.max(base, 0)) },
    { data: bars.map(([, share], at) => ({ value: share, itemStyle: { color: PARTS[names[at]] || "#8a93a5" } })) },
    { data: planned.map((share, at) => share === undefined ? null : [at, Math.max(bars[at][0], 0) + share]) } ] });
}

function drawLives() { // the newest incarnations at page.t
  const until = countUntil(data.lives.time, page.t), rows = [];
  for (let at = until - 1; at >= Math.max(0, until - 12); at--) {
    const row = document.createElement("tr");
    const { number: no, time, workers, reason, source, first_step, step } = data.lives;
    const steps = first_step[at] == null ? "no step" : `${number(first_step[at])} to ${number(step[at])}`;
    for (const text of [no[at], span(time[at] - data.now.began), number(workers[at]), source[at] || "", steps, reason[at] || ""]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    rows.push(row);
  }
  $("lives").replaceChildren(...rows);
}

// --- a node ----------------------------------------------------------------------------------------------

function hover(index, x, y) {
  const tip = $("tip");
  tip.hidden = index < 0;
  if (index < 0) return;
  tip.textContent = `${map.layout.names[index]} · ${data.states[map.states[index]]}`;
  tip.style.left = `${x + 14}px`;
  tip.style.top = `${y + 14}px`;
}

async function history(index) {
  const box = $("history");
  if (index < 0) { box.textContent = ""; return; }
  const name = map.layout.names[index];
  const told = await get(`api/runs/${page.run}/nodes/${encodeURIComponent(name)}`);
  const head = document.createElement("h3");
  head.textContent = name;
  const now = document.createElement("p");
  now.textContent = `${data.states[map.states[index]]}${told.rack ? `, in ${told.rack}` : ""}`;
  const list = document.createElement("ol");
  for (const mark of told.events.filter((mark) => mark.time <= page.t)) {
    const item = document.createElement("li");
    item.textContent = `${span(mark.time - data.now.began)}: ${mark.kind.replaceAll("_", " ")} ${mark.why}`;
    list.append(item);
  }
  if (!list.childNodes.length) list.append("Nothing has happened to it until now.");
  box.replaceChildren(head, now, list);
}

// --- the beginning ---------------------------------------------------------------------------------------

const said = (run, runs) => runs === 1 ? run.name : `${run.name} · step ${number(run.step)} · goodput ${percent(run.goodput)}`;

async function begin(ids) {
  const wanted = ["fleet", "time", "timeline", "tiles", "lives"];
  while (!wanted.every($)) await new Promise(requestAnimationFrame);
  data = emptyData();
  map = new FleetMap($("fleet"), $("over"), { hover, click: history });
  const runs = await get("api/runs");
  $("runs").replaceChildren(...runs.map((run, at) => {
    const button = document.createElement("button");
    button.textContent = said(run, runs.length);
    button.addEventListener("click", () => choose(at));
    return button;
  }));
  if (runs.length > 1) setInterval(async () => { // how the others are getting on
    const now = await get("api/runs").catch(() => []);
    now.forEach((run, at) => { $("runs").children[at].textContent = said(run, now.length); });
  }, OTHERS_MS);
  $("speed").replaceChildren(...SPEEDS.map(([name, speed]) => new Option(name, speed)));
  $("speed").addEventListener("change", () => { page.speed = Number($("speed").value); });
  $("play").addEventListener("click", () => {
    if (!page.playing && page.t >= data.now.heard) go(data.now.began, false);
    page.live = false;
    $("live").setAttribute("aria-pressed", false);
    setPlaying(!page.playing);
  });
  $("live").addEventListener("click", () => { setPlaying(false); go(data.now.heard, true); });
  $("time").addEventListener("input", () => go(data.now.began + Number($("time").value), false));
  $("whole").addEventListener("click", () => { map.zoom = 1; map.left = map.top = 0; map.draw(); });
  window.addEventListener("resize", drawTimeline);
  const shown = choose(0).then(() => {
    const whole = data.now.heard - data.now.began;
    $("speed").value = page.speed = SPEEDS.map(([, speed]) => speed).filter((speed) => whole / speed >= 30).pop() || 1;
    page.shown = performance.now(); // [ms] after the page was asked for
  });
  await shown;
  requestAnimationFrame(frame);
  poll();
  for (const [name, id] of Object.entries(ids)) {
    while (!chartOf(id)) await new Promise(requestAnimationFrame);
    charts[name] = chartOf(id);
  }
  drawAll();
  page.charted = performance.now();
  page.ready = true;
}

function chartOf(id) { // none before NiceGUI has made it
  try {
    return getElement(id).chart;
  } catch {
    return undefined;
  }
}
