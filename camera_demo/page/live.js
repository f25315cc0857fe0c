// ---- the connection, the verdict, and what stands beside it

const SILENT_LINK_MS = 1500, RETRY_MS = 1000;

let socket = null, ended = "", lost = "connecting to the demo", spokenAt = 0, drawn = "", chartsAt = 0;

function connect() {
  const address = new URL("stream", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = token ? "?token=" + encodeURIComponent(token) : "";
  const opened = socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let wasOpen = false;
  socket.onopen = () => { wasOpen = true; samples = []; times = []; past = []; lost = ""; ended = ""; stateAt = performance.now(); };
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
  if (record.about) { about = record.about; samples = []; times = []; past = []; build(); }
  state = record;
  stateAt = performance.now();
  past.push(...record.notes);
  const kept = past.findIndex((note) => note[1] >= record.now_ms - 1000 * about.kept_s);
  if (kept) past.splice(0, kept < 0 ? past.length : kept);
  const fresh = Math.min(record.samples.length, record.notes.length);  // of a slow stream more samples are kept than notes
  samples.push(...record.samples.slice(record.samples.length - fresh));
  times.push(...record.notes.slice(record.notes.length - fresh).map((note) => note[1]));
  samples.splice(0, samples.length - about.remembered);
  times.splice(0, times.length - samples.length);
  try {
    judge();
    showState();
    if (linked) followLink();
  } finally { shown(); }
}

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const record = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return {record, jpeg: new Blob([new Uint8Array(buffer, 4 + length)], {type: "image/jpeg"})};
}
async function takePicture(buffer, shown) {
  const {record, jpeg} = unpack(buffer);
  try {
    const decoded = record.gone ? null : await createImageBitmap(jpeg);
    if (record.moment) takeMoment(record, decoded);
    else if (!head || !about || record.frame > head.frame || performance.now() - pictureAt > 1000) {
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

function judge() {
  const silent = silence();
  const regions = silent || !head ? [] : head.regions;
  const usable = regions.filter((region) => region.accepted);
  let word = "DO NOT USE", why = silent, reasons = [];
  if (usable.length) {
    const rest = regions.filter((region) => !region.accepted);
    word = regions.length === 1 ? "USE" : `USE ${usable.length} of ${regions.length}`;
    why = usable.map((region) => (region.whole ? "" : region.name + ": ") + `${region.label} ${percent(region.confidence)}`).join(", ");
    if (rest.length) why += ` — do not use ${rest.map((region) => region.name).join(", ")}`;
  } else if (!silent && head.scene && (!regions.length || !head.scene.accepted)) {
    // Without an object there is nothing to use; and where nobody could look, none does not mean that the road is free.
    reasons = head.scene.reasons;
    if (head.scene.accepted) why = "No object on this frame.";
  } else if (!silent) {
    const shared = regions[0].reasons.filter((reason) => regions.every((region) => region.reasons.includes(reason)));
    reasons = shared.length ? shared : [...new Set(regions.flatMap((region) => region.reasons))];
  }
  if (reasons.length) why = `${capital(reasons.length > 2 ? shorts(reasons) : reasons.map(sentence).join("; "))}.`;
  // First, because a long list of objects is cut off: what has no verdict at all; what a debounce lets wait.
  const scene = silent ? null : head.scene;
  if (scene && scene.accepted && scene.detail) why = `${capital(scene.detail)}. ${why}`;
  else if (scene && !scene.accepted && usable.length) why = `The picture: ${shorts(scene.reasons)}. ${why}`;
  document.body.classList.toggle("use", usable.length > 0);
  document.body.classList.toggle("stop", !usable.length);
  text($("sign"), usable.length ? "✓" : "✕");
  text($("word"), word);
  text($("why"), why);
  $("why").title = reasons.length ? codes(reasons) : why;
  $("why").dataset.reasons = reasons.join(" ");
  if (performance.now() - spokenAt > 2000 && $("spoken").dataset.word !== word) {  // not 25 times a second
    spokenAt = performance.now();
    $("spoken").dataset.word = word;
    text($("spoken"), `${word}. ${why}`);
  }
  showRegions(regions, silent);
  const painted = `${head && head.frame} ${Boolean(silent)} ${$("picture").clientWidth}`;
  if (painted !== drawn) draw(silent);  // painting what has not changed would take the time to decode the next picture
  drawn = painted;
}

function showRegions(regions, silent) {
  const names = about ? about.regions : [];
  cards($("regions"), regions.length ? regions : names.map((name) => ({name, accepted: false, reasons: [], label: ""})), silent, false);
}

function draw(silent) {
  const canvas = $("picture"), pen = canvas.getContext("2d");
  if (bitmap && (canvas.width !== bitmap.width || canvas.height !== bitmap.height)) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    $("frame").style.setProperty("--shape", bitmap.width / bitmap.height);
  }
  if (!silent) { paint(canvas, bitmap, head.regions); return; }
  const {width, height} = canvas, unit = width / Math.max(canvas.clientWidth, 1);  // canvas pixels to one of the screen
  pen.filter = "grayscale(1) brightness(.35)";
  if (bitmap) pen.drawImage(bitmap, 0, 0, width, height);
  pen.filter = "none";
  pen.strokeStyle = "#f04452";
  pen.lineWidth = 6 * unit;
  line(pen, 0, 0, width, height);
  line(pen, width, 0, 0, height);
  label(pen, ["✕ NO LIVE VERDICT", bitmap ? "last picture, do not use" : ""].filter(Boolean), width / 2, height / 2, 20 * unit, "#b3121d", true);
}

// ---- everything beside it

function build() {
  text($("engine"), `${about.model} on ${about.engine}`);
  const never = about.never.length ? ` ${capital(about.never.join(" and "))} are counter-examples: the network was not trained to name them, so they must never be used.` : "";
  text($("promise"), `Promise: ${about.promise}. Deadline ${about.deadline_ms} ms.${never}`);
  $("own").hidden = !about.own_files;
  $("regions").classList.toggle("one", about.regions.length === 1);
  $("regions").classList.toggle("moving", about.moving);  // objects come and go: two rows, whose height stays
  const others = $("others");
  for (const id of ["legend", "charts", "first", "more", "regions"]) $(id).replaceChildren();
  if (about.regions.length > 1) legend();
  about.charts.forEach((chart) => {
    const card = make("section", $("charts"), {class: "card"});
    make("h2", card, {title: chart.title}, chart.title);
    make("canvas", card, {class: "plot", role: "img"});
    make("p", card, {class: "caption"}, chart.caption);
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
  document.body.classList.toggle("unfolded", !$("more").hidden);
};
function press(name) { send({press: name, severity: Number($("severity").value)}); }
$("severity").oninput = () => text($("level"), $("severity").value);
$("severity").onchange = () => {  // the fault that is on takes the new severity
  const on = about && state && about.buttons.find((button) => button.severity && state.faults.pressed.includes(button.name));
  if (on) press(on.name);
};
document.onkeydown = (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input[type=text]") || $("look").open) return;
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
  const ms = (value) => value === undefined || value === null ? "–" : `${figure(value, 3)} ms`;
  text($("latency-recent"), `50 % in ${ms(latency.p50_ms)}, 99 % in ${ms(latency.p99_ms)}`);
  $("latency-recent").title = `p50 and p99 of the last ${latency.frames || 0} frames`;
  text($("latency-all"), `Since the start: p50 ${ms(latency.all_p50_ms)}, p99 ${ms(latency.all_p99_ms)}.`);
  text($("total"), counters.verdicts);
  text($("counts"), `${counters.captured - counters.dropped} frames, ${counters.dropped} left out`);
  $("counts").title = `${counters.verdicts} verdicts; ${counters.captured} frames captured, ${counters.dropped} of them never judged because a newer one was there${state.objects.map((each) => "\n" + each).join("")}`;
  text($("drift"), driftWords(counters));
  const total = Math.max(counters.verdicts, 1);
  bars([["accepted", counters.accepted, "ok"], ...state.reasons.slice(0, 5).map(([name, count]) => [name, count, ""])], total);
  thumbnails(state.thumbnails);
  showPast();
}
function driftWords(counters) {
  const share = counters.verdicts ? `${percent(counters.accepted / counters.verdicts)} may be used` : "no verdict yet";
  const usual = about.coverage === null ? "" : `; of the calibration's frames it was ${percent(about.coverage)}`;
  const drift = state.drifting.length ? `Drift: ${state.drifting.join(", ")} ${state.drifting.length > 1 ? "are" : "is"} no longer like the calibration.` : "No drift.";
  return `${capital(share)}${usual}. ${drift}`;
}
function bars(rows, total) {
  const list = $("reasons");
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(([name, count, kind], k) => {
    const item = list.children[k] || list.appendChild(document.createElement("li"));
    if (!item.firstChild) item.innerHTML = "<span></span><div><i></i></div><span></span>";
    item.className = kind;
    item.title = kind ? "no reason speaks against them" : codes([name]);
    text(item.children[0], short(name));
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
    const button = make("button", make("li", list), {type: "button", title: `${record.region}, frame ${record.frame}\n${codes(record.reasons)}`});
    make("img", button, {src: "data:image/jpeg;base64," + record.jpeg, alt: ""});
    make("span", button, {}, `${record.region}: ${shorts(record.reasons)}`);
    button.onclick = () => openLook(reel, record.frame);
  }
}

document.addEventListener("themed", () => { chartsAt = 0; if (state) showState(); });
theme();
setInterval(judge, 100);
judge();
connect();
