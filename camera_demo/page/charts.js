// ---- charts

const WINDOW_MS = 20000;

// A canvas in device pixels; returns its pen and its size in CSS pixels.
function sheet(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const wanted = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = '11px system-ui, "DejaVu Sans", sans-serif';
  pen.textBaseline = "middle";
  return {pen, width, height};
}

function timeAxis(pen, left, width, y, spanMs, steps) {
  pen.fillStyle = ink("dim");
  for (let k = 0; k <= steps; k++) {
    const ago = Math.round(spanMs * (steps - k) / steps / 1000);
    pen.textAlign = k === 0 ? "left" : k === steps ? "right" : "center";
    pen.fillText(ago ? `${ago} s ago` : "now", left + (width - left) * k / steps, y);
  }
}

function rangeOf(chart, k, limits) {
  const all = samples.flatMap((sample) => sample.map((values) => values[k])).filter((value) => value !== null);
  let [low, high] = [Math.min(...all, ...limits), Math.max(...all, ...limits)];
  if (chart.signal === "entropy" && chart.high !== null) [low, high] = [0, 2 * chart.high];  // beyond: drawn at the edge
  if (!(high > low)) [low, high] = [low - 1, low + 1];
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  const room = chart.signal === "entropy" ? 0 : 0.08 * (high - low);
  return [low - room, high + room];
}

function strip(canvas, chart, k) {
  const {pen, width, height: whole} = sheet(canvas), height = whole - 14;
  const limits = [chart.low, chart.high].filter((each) => each !== null);
  const [low, high] = rangeOf(chart, k, limits);
  const marks = [low, high, ...limits].map((value) => [value, figure(value, limits.includes(value) ? 3 : 2)]);
  const left = Math.ceil(Math.max(...marks.map(([, written]) => pen.measureText(written).width))) + 6;
  const y = (value) => 5 + (height - 10) * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low));
  const x = (index) => left + (width - left - 2) * (1 - (state.now_ms - times[index]) / WINDOW_MS);
  pen.fillStyle = ink("bad");  // where a frame is rejected
  if (chart.high !== null) pen.fillRect(left, 0, width - left, y(chart.high));
  if (chart.low !== null) pen.fillRect(left, y(chart.low), width - left, height - y(chart.low));
  const beside = (value) => Math.min(Math.max(y(value), 8), height - 8);
  pen.textAlign = "right";
  for (const [value, written] of marks) {
    const isLimit = limits.includes(value);
    if (!isLimit && limits.some((limit) => Math.abs(beside(limit) - beside(value)) < 12)) continue;
    pen.fillStyle = ink(isLimit ? "text" : "dim");
    pen.fillText(written, left - 4, beside(value));
  }
  timeAxis(pen, left, width, whole - 6, WINDOW_MS, 2);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height);
  pen.clip();
  about.regions.forEach((name, r) => {
    pen.strokeStyle = ink("line-" + r % LINES);
    pen.lineWidth = 1.8;
    pen.setLineDash(DASHES[r % LINES]);
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
  pen.restore();
  pen.setLineDash([]);
  pen.strokeStyle = ink("text");
  pen.lineWidth = 1;
  for (const limit of limits) line(pen, left, y(limit), width, y(limit));
  limitWords(pen, chart, left, height, y);
  const last = samples.length ? samples[samples.length - 1] : [];
  const values = about.regions.map((name, r) => last[r] && last[r][k] !== null ? figure(last[r][k]) : "–");
  const use = [chart.low === null ? "" : `use from ${figure(chart.low, 3)}`, chart.high === null ? "" : `use up to ${figure(chart.high, 3)}`];
  canvas.setAttribute("aria-label", `${chart.title}, ${use.filter(Boolean).join(", ") || "no threshold"}: ${about.regions.map((name, r) => `${name} ${values[r]}`).join(", ")}`);
}
function limitWords(pen, chart, left, height, y) {
  pen.textAlign = "left";
  const word = (content, at, room) => {  // on a ground of its own: the curves go on behind it
    if (room < 14) return;
    pen.fillStyle = ink("ground");
    pen.fillRect(left + 1, at - 7, pen.measureText(content).width + 6, 14);
    pen.fillStyle = ink("text");
    pen.fillText(content, left + 4, at);
  };
  if (chart.high === null && chart.low === null) word("no threshold", 9, height);
  if (chart.high !== null) { word("do not use", 10, y(chart.high)); word("use", y(chart.high) + 9, height - y(chart.high)); }
  else if (chart.low !== null) { word("do not use", height - 8, height - y(chart.low)); word("use", y(chart.low) - 9, y(chart.low)); }
}
function legend() {
  about.regions.forEach((name, r) => {
    const item = make("span", $("legend"));
    item.innerHTML = `<svg width="26" height="6" aria-hidden="true"><line x1="0" y1="3" x2="26" y2="3" class="line-${r % LINES}" stroke-width="2.5" stroke-dasharray="${DASHES[r % LINES].join(" ")}"/></svg><span></span>`;
    text(item.lastChild, name);
  });
}

function histogram(canvas, latency) {
  const {pen, width, height} = sheet(canvas), edges = latency.edges_ms, base = height - 15;
  const most = Math.max(...latency.bars, 1), x = (ms) => width * Math.log2(Math.min(Math.max(ms, edges[0]), edges[edges.length - 1]) / edges[0]) / Math.log2(edges[edges.length - 1] / edges[0]);
  pen.fillStyle = ink("bad");
  pen.fillRect(x(about.deadline_ms), 0, width, base);
  pen.fillStyle = ink("bar");
  latency.bars.forEach((count, k) => {
    const high = count ? Math.max(2, (base - 26) * count / most) : 0;
    pen.fillRect(x(edges[k]) + 1, base - high, x(edges[k + 1]) - x(edges[k]) - 2, high);
  });
  pen.fillStyle = ink("dim");
  pen.textAlign = "center";
  for (const ms of [1, 10, 100]) pen.fillText(`${ms} ms`, x(ms), height - 6);
  pen.strokeStyle = pen.fillStyle = ink("text");
  pen.setLineDash([4, 3]);
  line(pen, x(about.deadline_ms), 0, x(about.deadline_ms), base);
  pen.setLineDash([]);
  // Beside its line, on the side where there is room.
  const beside = (word, at, y) => {
    const room = at + 5 + pen.measureText(word).width <= width;
    pen.textAlign = room ? "left" : "right";
    pen.fillText(word, at + (room ? 3 : -3), y);
  };
  for (const [name, value, y] of [["p50", latency.p50_ms, 7], ["p99", latency.p99_ms, 19]]) {
    if (value === undefined || value === null) continue;
    line(pen, x(value), y - 5, x(value), base);
    beside(name, x(value), y);
  }
  if (width - x(about.deadline_ms) > pen.measureText("too late").width + 6) beside("too late", x(about.deadline_ms), base - 8);
  canvas.setAttribute("aria-label", `Latency of the last ${latency.frames || 0} frames: p50 ${latency.p50_ms} ms, p99 ${latency.p99_ms} ms; too late from ${about.deadline_ms} ms`);
}

// Notes as columns over time: which share of the regions could be used.
function columns(canvas, notes, from, to, chosen) {
  const {pen, width, height: whole} = sheet(canvas), height = whole - 14;
  const x = (ms) => width * (ms - from) / Math.max(to - from, 1);
  pen.fillStyle = ink("ground");
  pen.fillRect(0, 0, width, height);
  const usual = notes.length > 1 ? (notes[notes.length - 1][1] - notes[0][1]) / (notes.length - 1) : 1000;
  notes.forEach(([, ms, usable, total, bits], k) => {
    const next = k + 1 < notes.length ? notes[k + 1][1] : ms + usual;
    const wide = Math.max(1, x(Math.min(next, ms + Math.max(1000, 3 * usual))) - x(ms)) + 0.5;
    const share = total ? usable / total : 0;
    pen.fillStyle = total || bits ? ink("no") : ink("line");
    pen.fillRect(x(ms), height * share, wide, height * (1 - share));
    pen.fillStyle = ink("yes");
    pen.fillRect(x(ms), 0, wide, height * share);
  });
  if (chosen) {
    const at = x(chosen[1]);
    pen.fillStyle = ink("ground");
    pen.fillRect(at - 3, 0, 7, height);
    pen.fillStyle = ink("focus");
    pen.fillRect(at - 1.5, 0, 4, height);
  }
  return {pen, width, whole};
}
