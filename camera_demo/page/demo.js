// Shows what framegate demo sends. Decides one thing by itself: a verdict that is too old, or a connection that is
// gone, is DO NOT USE.
"use strict";

const SENTENCES = {
  BAD_INPUT: "not a usable image", WRONG_SIZE: "another picture size", BLACK: "no light, or no signal",
  SATURATED: "overexposed", LOW_CONTRAST: "fog, dirt or a covered lens", BLURRED: "out of focus",
  NOISY: "too much noise", COLOUR_LOST: "a colour channel is lost", TORN: "parts are from another time",
  FROZEN: "the picture stands still", STALE_FRAME: "time does not advance", WARMING_UP: "too few frames so far",
  NOT_FINITE: "the network gave no number", HIGH_SCORE: "the network is unsure",
  ACTIVATION_SHIFT: "unusual inside the network", DRIFT: "the stream has left what was calibrated",
  NO_REGIONS: "unknown where objects are", NO_AGREEMENT: "detector and classifier disagree",
  UNCONFIRMED: "too few equal labels so far", EXPIRED: "too old", NO_FRAME: "no frame came",
  NOT_CALIBRATED: "no threshold", NOT_CERTIFIED: "an attack could have made this label", LATE: "older than the deadline", BACKEND_FAULT: "the engine failed",
};
const LINES = [  // colours that the colour-blind can tell apart (Okabe and Ito), and a dash pattern each
  ["#56b4e9", []], ["#f0e442", [7, 4]], ["#e69f00", [2, 3]], ["#cc79a7", [10, 3, 2, 3]], ["#5fd3b0", [4, 2]],
];
const SILENT_LINK_MS = 1500, RETRY_MS = 1000;

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
let socket = null, about = null, state = null, stateAt = 0, head = null, pictureAt = 0, bitmap = null;
let samples = [], ended = "", lost = "connecting to the demo", spokenAt = 0, drawn = "", chartsAt = 0;

function connect() {
  const address = new URL("stream", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = token ? "?token=" + encodeURIComponent(token) : "";
  const opened = socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let wasOpen = false;
  socket.onopen = () => { wasOpen = true; samples = []; lost = ""; ended = ""; stateAt = performance.now(); };
  const shown = () => send("shown", opened);  // what came over this connection is confirmed on no later one
  socket.onmessage = (event) => typeof event.data === "string" ? takeState(JSON.parse(event.data), shown) : takePicture(event.data, shown);
  socket.onclose = (event) => {
    lost = event.reason || "no connection to the demo; is it still running?";
    judge();
    if (!wasOpen) askWhy(address.search);
    setTimeout(connect, RETRY_MS);
  };
}
async function askWhy(query) {  // POST, with which a browser says which page asks
  try {
    const why = await (await fetch(new URL("why" + query, location.href), {method: "POST"})).text();
    if (why && lost) { lost = why; judge(); }
  } catch { /* nobody is there to answer */ }
}
function send(value, over = socket) {
  if (over && over.readyState === WebSocket.OPEN) over.send(JSON.stringify(value));
}

function takeState(record, shown) {
  if (record.ended) { ended = record.ended; judge(); return; }
  if (record.about) { about = record.about; samples = []; build(); }
  state = record;
  stateAt = performance.now();
  samples.push(...record.samples);
  samples.splice(0, samples.length - about.remembered);
  showState();
  judge();
  shown();
}

async function takePicture(buffer, shown) {
  const length = new DataView(buffer).getUint32(0);
  const record = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  try {
    const decoded = await createImageBitmap(new Blob([new Uint8Array(buffer, 4 + length)], {type: "image/jpeg"}));
    if (!head || !about || record.frame > head.frame || performance.now() - pictureAt > 1000) {
      if (bitmap) bitmap.close();
      [bitmap, head, pictureAt] = [decoded, record, performance.now()];
      judge();
    } else decoded.close();
  } finally { shown(); }
}

// ---- the verdict

function silence() {
  const now = performance.now();
  if (ended) return ended;
  if (lost) return lost;
  if (!about || !state) return "No verdict yet.";
  if (now - stateAt > SILENT_LINK_MS) return `Nothing heard from the demo for ${seconds(now - stateAt)}.`;
  const silent = state.silent_ms + now - stateAt;
  if (silent > about.stale_ms) {
    const source = state.source;
    const how = source.state === "open" ? "the source delivers nothing" :
      `the source is ${source.state}${source.error ? ": " + source.error : ""}`;
    return `No verdict for ${seconds(silent)}; ${how}.`;
  }
  if (!head || now - pictureAt > about.stale_ms) return "No picture has reached this page in time.";
  return "";
}
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const percent = (value) => value === null ? "" : `${Math.round(100 * value)}\u00a0%`;

function judge() {
  const silent = silence();
  const regions = silent || !head ? [] : head.regions;
  const usable = regions.filter((region) => region.accepted);
  let word = "DO NOT USE", why = silent;
  if (usable.length) {
    const rest = regions.filter((region) => !region.accepted);
    word = regions.length === 1 ? "USE" : `USE ${usable.length} of ${regions.length}`;
    why = usable.map((region) => (region.whole ? "" : region.name + ": ") + `${region.label} ${percent(region.confidence)}`).join(", ");
    if (rest.length) why += ` — do not use ${rest.map((region) => region.name).join(", ")}`;
  } else if (!silent && head.scene && (!regions.length || !head.scene.accepted)) {
    // Without an object there is nothing to use; and where nobody could look, none does not mean that the road is free.
    why = head.scene.accepted ? "no object on this frame" :
      head.scene.reasons.map((reason) => reason + (SENTENCES[reason] ? ` (${SENTENCES[reason]})` : "")).join(", ");
  } else if (!silent) {
    const shared = regions[0].reasons.filter((reason) => regions.every((region) => region.reasons.includes(reason)));
    const reasons = shared.length ? shared : [...new Set(regions.flatMap((region) => region.reasons))];
    why = reasons.map((reason) => reason + (SENTENCES[reason] ? ` (${SENTENCES[reason]})` : "")).join(", ");
  }
  document.body.className = usable.length ? "use" : "stop";
  text($("sign"), usable.length ? "✓" : "✕");
  text($("word"), word);
  text($("why"), why);
  $("why").title = why;
  if (performance.now() - spokenAt > 2000 && $("spoken").dataset.word !== word) {  // not 25 times a second
    spokenAt = performance.now();
    $("spoken").dataset.word = word;
    text($("spoken"), `${word}. ${why}`);
  }
  showRegions(regions, silent);
  const scene = `${head && head.frame} ${Boolean(silent)} ${$("picture").clientWidth}`;
  if (scene !== drawn) draw(silent);  // painting what has not changed would take the time to decode the next picture
  drawn = scene;
}

function text(element, value) { if (element.textContent !== value) element.textContent = value; }

function showRegions(regions, silent) {
  const list = $("regions");
  const shown = regions.length ? regions : (about ? about.regions : []).map((name) => ({name, accepted: false, reasons: [], label: ""}));
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach((region, k) => {
    const item = list.children[k] || list.appendChild(document.createElement("li"));
    if (!item.firstChild) item.innerHTML = '<b></b><span class="name"></span><span class="label"></span>';
    item.className = region.accepted ? "yes" : "no";
    text(item.children[0], region.accepted ? "✓ USE" : "✕ DO NOT USE");
    text(item.children[1], region.name);
    const found = region.detected ? `, detector: ${region.detected}` : "";
    const guess = region.label ? ` (${region.label}?\u00a0${percent(region.confidence)})` : "";
    const sure = region.usable === undefined ? percent(region.confidence) : `${percent(region.usable)} of the pixels usable`;
    text(item.children[2], region.accepted ? `${region.label} ${sure}` : silent ? "no verdict" : region.reasons.join(", ") + guess + found);
    item.children[2].title = item.children[2].textContent;
  });
}

function draw(silent) {
  const canvas = $("picture"), pen = canvas.getContext("2d");
  if (bitmap && (canvas.width !== bitmap.width || canvas.height !== bitmap.height)) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    $("frame").style.setProperty("--shape", bitmap.width / bitmap.height);
  }
  const {width, height} = canvas;
  const unit = width / Math.max(canvas.clientWidth, 1);  // canvas pixels to one of the screen
  pen.filter = silent ? "grayscale(1) brightness(.35)" : "none";
  if (bitmap) pen.drawImage(bitmap, 0, 0, width, height);
  pen.filter = "none";
  if (silent) {
    pen.strokeStyle = "#f04452";
    pen.lineWidth = 6 * unit;
    line(pen, 0, 0, width, height);
    line(pen, width, 0, 0, height);
    label(pen, ["✕ NO LIVE VERDICT", bitmap ? "last picture, do not use" : ""].filter(Boolean), width / 2, height / 2, 20 * unit, "#b3121d", true);
    return;
  }
  const taken = [];
  for (const region of head.regions) if (region.box) outline(pen, region, width, height, unit);
  for (const region of head.regions) {
    if (!region.box || region.whole) continue;
    const lines = [(region.accepted ? "✓ " : "✕ ") + (region.accepted ? `${region.label} ${percent(region.confidence)}` : region.reasons[0])];
    const x = region.box[0] * width, y = region.box[1] * height, size = (canvas.clientWidth < 500 ? 11 : 14) * unit;
    const low = y + region.box[3] * height;
    for (const at of [y - size * 0.95, low + size * 0.95, low + size * 2.6, y - size * 2.6]) {
      const place = measure(pen, lines, x, at, size, width);
      if (place.top < 0 || place.top + place.high > height || taken.some((other) => meets(place, other))) continue;
      taken.push(place);
      label(pen, lines, place.left + place.wide / 2, at, size, region.accepted ? "#0b7a34" : "#b3121d", false);
      break;
    }
  }
}
function line(pen, x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }
function outline(pen, region, width, height, unit) {
  if (region.whole) return;  // the frame around the picture says it
  const [x, y, w, h] = [region.box[0] * width, region.box[1] * height, region.box[2] * width, region.box[3] * height];
  for (const [colour, thick] of [["#fff", 5], [region.accepted ? "#0b9a40" : "#e0202d", 3]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick * unit;
    pen.setLineDash(region.accepted ? [] : [8 * unit, 5 * unit]);
    pen.strokeRect(x, y, w, h);
    pen.setLineDash([]);
    if (!region.accepted) { line(pen, x, y, x + w, y + h); line(pen, x + w, y, x, y + h); }
  }
}
function measure(pen, lines, x, y, size, width) {
  pen.font = `700 ${size}px system-ui, "DejaVu Sans", sans-serif`;
  const wide = Math.max(...lines.map((each) => pen.measureText(each).width)) + size * 0.7;
  return {left: Math.max(0, Math.min(x, width - wide)), top: y - size * 0.75, wide, high: size * 1.5 * lines.length};
}
const meets = (a, b) => a.left < b.left + b.wide && b.left < a.left + a.wide && a.top < b.top + b.high && b.top < a.top + a.high;
function label(pen, lines, x, y, size, ground, centred) {
  const place = measure(pen, lines, 0, y, size, Infinity);
  const top = centred ? y - place.high / 2 : place.top;
  pen.fillStyle = ground;
  pen.fillRect(x - place.wide / 2, top, place.wide, place.high);
  pen.fillStyle = "#fff";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  lines.forEach((each, k) => pen.fillText(each, x, top + size * (0.75 + 1.5 * k)));
}

// ---- everything beside it

function make(tag, parent, attributes = {}, content = "") {
  const element = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content) element.textContent = content;
  return element;
}

function build() {
  text($("engine"), `${about.model} on ${about.engine}`);
  text($("promise"), `Promise: ${about.promise}. Deadline ${about.deadline_ms} ms.`);
  $("regions").classList.toggle("one", about.regions.length === 1);
  $("regions").classList.toggle("moving", about.moving);  // objects come and go: two rows, whose height stays
  const others = $("others");
  for (const id of ["legend", "charts", "first", "more", "regions"]) $(id).replaceChildren();
  if (about.regions.length > 1) legend();
  about.charts.forEach((chart) => {
    const card = make("section", $("charts"), {class: "card"});
    make("h2", card, {title: chart.title}, chart.title);
    make("canvas", card, {class: "plot", role: "img"});
  });
  if (!about.has_monitor) {
    const card = make("section", $("charts"), {class: "card"});
    make("h2", card, {}, "Activation entropy ");
    make("p", card, {class: "small"}, "This bundle has no monitor, so nothing is known from inside the network (framegate monitor fits one).");
  }
  let key = 1;
  for (const button of about.buttons) {
    const element = make("button", $(button.first ? "first" : "more"), {type: "button", "aria-pressed": "false", "data-name": button.name});
    if (button.hint) element.title = button.hint;
    if (button.first && (key <= 9 || button.name === "none")) {
      element.dataset.key = button.name === "none" ? "0" : String(key++);
      make("kbd", element, {"aria-hidden": "true"}, element.dataset.key);
      element.setAttribute("aria-keyshortcuts", element.dataset.key);
    }
    element.append(button.label);
    element.onclick = () => press(button.name);
  }
  $("first").append(others);
}
$("others").onclick = () => {
  $("more").hidden = !$("more").hidden;
  $("others").setAttribute("aria-expanded", !$("more").hidden);
};
function press(name) { send({press: name, severity: Number($("severity").value)}); }
$("severity").oninput = () => text($("level"), $("severity").value);
$("severity").onchange = () => {  // the fault that is on takes the new severity
  const on = about && state && about.buttons.find((button) => button.severity && state.faults.pressed.includes(button.name));
  if (on) press(on.name);
};
document.onkeydown = (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[type=text]")) return;
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  if (button) button.click();
};

function showState() {
  const {source, counters, latency} = state;
  const rate = about.fps ? `, ${about.fps.toFixed(0)} fps` : "";
  text($("source"), `${about.source}: ${source.state}${rate}, reconnects ${source.reconnects}`);
  document.querySelectorAll("button[data-name]").forEach((button) =>
    button.setAttribute("aria-pressed", state.faults.pressed.includes(button.dataset.name)));
  text($("notice"), state.faults.notice);
  if (performance.now() - chartsAt < 450) return;
  chartsAt = performance.now();
  document.querySelectorAll("#charts canvas").forEach((canvas, k) => strip(canvas, about.charts[k], k));
  histogram($("histogram"), latency);
  const ms = (value) => value === undefined ? "–" : `${value.toPrecision(3)} ms`;
  text($("latency-recent"), `last ${latency.frames || 0} frames: p50 ${ms(latency.p50_ms)}, p99 ${ms(latency.p99_ms)}`);
  text($("latency-all"), `since the start, every region: p50 ${ms(latency.all_p50_ms)}, p99 ${ms(latency.all_p99_ms)}`);
  text($("counts"), `${counters.verdicts} given, ${counters.captured} frames captured, ${counters.dropped} dropped`);
  text($("drift"), state.drift);
  const total = Math.max(counters.verdicts, 1);
  bars([["accepted", counters.accepted, "ok"], ...state.reasons.slice(0, 6).map(([name, count]) => [name, count, ""])], total);
  thumbnails(state.thumbnails);
}
function bars(rows, total) {
  const list = $("reasons");
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([name, count, kind], k) => {
    const item = list.children[k] || list.appendChild(document.createElement("li"));
    if (!item.firstChild) item.innerHTML = "<span></span><div><i></i></div><span></span>";
    item.className = kind;
    item.title = SENTENCES[name] || "";
    text(item.children[0], name);
    item.querySelector("i").style.width = `${100 * count / total}%`;
    text(item.children[2], String(count));
  });
}
function thumbnails(records) {
  const list = $("rejected"), key = records.map((record) => record.frame + record.region).join();
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren();
  for (const record of [...records].reverse()) {
    const item = make("li", list);
    make("img", item, {src: "data:image/jpeg;base64," + record.jpeg, alt: `rejected picture of ${record.region}`});
    make("span", item, {title: record.reasons.join(", ")}, `${record.region}: ${record.reasons.join(", ").replaceAll("_", "_\u200b")}`);
  }
}

// A canvas in device pixels; returns its pen and its size in CSS pixels.
function sheet(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
  pen.textBaseline = "middle";
  return {pen, width, height};
}

function strip(canvas, chart, k) {
  const {pen, width, height} = sheet(canvas);
  const limits = [chart.low, chart.high].filter((each) => each !== null);
  const all = samples.flatMap((sample) => sample.map((values) => values[k])).filter((value) => value !== null);
  let [low, high] = [Math.min(...all, ...limits), Math.max(...all, ...limits)];
  if (chart.signal === "entropy" && chart.high !== null) [low, high] = [0, 2 * chart.high];  // beyond: drawn at the edge
  if (!(high > low)) [low, high] = [low - 1, low + 1];
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = chart.signal === "entropy" ? 0 : 0.08 * (high - low);
  [low, high] = [low - room, high + room];
  const left = 40, y = (value) => 5 + (height - 10) * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low));
  const x = (index) => left + (width - left - 2) * (index + about.remembered - samples.length) / (about.remembered - 1);
  pen.fillStyle = "#46161b";  // where a frame is rejected
  if (chart.high !== null) pen.fillRect(left, 0, width - left, y(chart.high));
  if (chart.low !== null) pen.fillRect(left, y(chart.low), width - left, height - y(chart.low));
  const beside = (value) => Math.min(Math.max(y(value), 8), height - 8);
  pen.textAlign = "right";
  for (const value of [low, high, ...limits]) {
    const isLimit = limits.includes(value);
    if (!isLimit && limits.some((limit) => Math.abs(beside(limit) - beside(value)) < 12)) continue;
    pen.fillStyle = isLimit ? "#fff" : "#b3bdc9";
    pen.fillText(value.toPrecision(isLimit ? 3 : 2), left - 4, beside(value));
  }
  pen.textAlign = "left";
  about.regions.forEach((name, r) => {
    const [colour, dash] = LINES[r % LINES.length];
    pen.strokeStyle = colour;
    pen.lineWidth = 1.8;
    pen.setLineDash(dash);
    pen.beginPath();
    let down = false;
    samples.forEach((sample, index) => {
      const value = sample[r][k];
      if (value === null) { down = false; return; }
      pen[down ? "lineTo" : "moveTo"](x(index), y(value));
      down = true;
    });
    pen.stroke();
  });
  pen.setLineDash([]);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 1;
  for (const limit of limits) line(pen, left, y(limit), width, y(limit));
  const word = (content, at, room) => {  // on a ground of its own: the curves go on behind it
    if (room < 14) return;
    pen.fillStyle = "#0e1116";
    pen.fillRect(left + 1, at - 7, pen.measureText(content).width + 6, 14);
    pen.fillStyle = "#fff";
    pen.fillText(content, left + 4, at);
  };
  if (!limits.length) word("no threshold", 9, height);
  if (chart.high !== null) { word("REJECT", 10, y(chart.high)); word("accept", y(chart.high) + 9, height - y(chart.high)); }
  else if (chart.low !== null) { word("REJECT", height - 8, height - y(chart.low)); word("accept", y(chart.low) - 9, y(chart.low)); }
  const last = samples.length ? samples[samples.length - 1] : [];
  const values = about.regions.map((name, r) => last[r] && last[r][k] !== null ? last[r][k].toPrecision(2) : "–");
  const use = [chart.low === null ? "" : `use from ${chart.low.toPrecision(3)}`, chart.high === null ? "" : `use up to ${chart.high.toPrecision(3)}`];
  canvas.setAttribute("aria-label", `${chart.title}, ${use.filter(Boolean).join(", ") || "no threshold"}: ${about.regions.map((name, r) => `${name} ${values[r]}`).join(", ")}`);
}
function legend() {
  about.regions.forEach((name, r) => {
    const [colour, dash] = LINES[r % LINES.length];
    const item = make("span", $("legend"));
    item.innerHTML = `<svg width="26" height="6" aria-hidden="true"><line x1="0" y1="3" x2="26" y2="3" stroke="${colour}" stroke-width="2.5" stroke-dasharray="${dash.join(" ")}"/></svg><span></span>`;
    text(item.lastChild, name);
  });
}

function histogram(canvas, latency) {
  const {pen, width, height} = sheet(canvas), edges = latency.edges_ms, base = height - 15;
  const most = Math.max(...latency.bars, 1), x = (ms) => width * Math.log2(Math.min(Math.max(ms, edges[0]), edges[edges.length - 1]) / edges[0]) / Math.log2(edges[edges.length - 1] / edges[0]);
  pen.fillStyle = "#46161b";
  pen.fillRect(x(about.deadline_ms), 0, width, base);
  pen.fillStyle = "#56b4e9";
  latency.bars.forEach((count, k) => {
    const high = count ? Math.max(2, (base - 14) * count / most) : 0;
    pen.fillRect(x(edges[k]) + 1, base - high, x(edges[k + 1]) - x(edges[k]) - 2, high);
  });
  pen.fillStyle = "#b3bdc9";
  pen.textAlign = "center";
  for (const ms of [1, 10, 100]) pen.fillText(`${ms} ms`, x(ms), height - 6);
  pen.strokeStyle = pen.fillStyle = "#fff";
  pen.setLineDash([4, 3]);
  line(pen, x(about.deadline_ms), 0, x(about.deadline_ms), base);
  pen.setLineDash([]);
  pen.textAlign = "left";
  pen.fillText("LATE", x(about.deadline_ms) + 4, base - 8);
  for (const [name, value] of [["p50", latency.p50_ms], ["p99", latency.p99_ms]]) {
    if (value === undefined) continue;
    line(pen, x(value), name === "p50" ? 2 : 14, x(value), base);
    pen.fillText(name, x(value) + 3, name === "p50" ? 8 : 19);
  }
  canvas.setAttribute("aria-label", `Latency of the last ${latency.frames || 0} frames: p50 ${latency.p50_ms} ms, p99 ${latency.p99_ms} ms`);
}

setInterval(judge, 100);
judge();
connect();
