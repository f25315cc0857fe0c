// ---- looking back: frames that are over, with their pictures. The verdict above the dialog stays the live one.

const ASK_MS = 120, ASK_AGAIN_MS = 3000, YOUNG_MS = 4000;
// A reel is what can be looked through: the last two minutes, or a file of the visitor's.
const reel = {kind: "live", get notes() { return past; }};
const look = {reel: null, frame: -1, record: null, bitmap: null, asked: -1, askedAt: 0, link: ""};

const noteOf = (notes, frame) => notes.find((note) => note[0] === frame);

function openLook(over, frame) {
  Object.assign(look, {reel: over, frame: -1, record: null, asked: -1});
  if (look.bitmap) look.bitmap.close();
  look.bitmap = null;
  for (const id of ["look-note", "look-said", "look-word"]) text($(id), "");
  $("look-regions").replaceChildren();
  blank();
  $("look-address").hidden = true;
  placeLook();
  $("look").classList.toggle("single", over.kind === "file" && !over.clip);
  if (!$("look").open) $("look").showModal();
  if (frame !== null) go(frame);
}
function placeLook() { $("look").style.setProperty("--top", `${Math.ceil($("verdict").getBoundingClientRect().bottom) + 4}px`); }
addEventListener("resize", placeLook);
function blank() {
  const canvas = $("look-picture"), pen = canvas.getContext("2d");
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
}
function go(frame) {
  const notes = look.reel.notes;
  if (!notes.length) return;
  const note = noteOf(notes, frame) || notes.find((each) => each[0] > frame) || notes[notes.length - 1];
  look.frame = note[0];
  if (look.reel.kind === "live") history.replaceState(null, "", `#moment=${about.run}-${look.frame}`);
  showLook();
  ask();
}
function step(by) {
  const notes = look.reel.notes, here = notes.findIndex((note) => note[0] === look.frame);
  if (here < 0) { if (notes.length) go(notes[0][0]); return; }
  let next = here + Math.sign(by);
  if (Math.abs(by) === 2) while (notes[next] && notes[next][4] === notes[here][4]) next += Math.sign(by);
  go(notes[Math.min(Math.max(next, 0), notes.length - 1)][0]);
}

// One picture is asked for at a time, and the newest wish wins: dragging does not flood the demo.
function ask() {
  const {frame} = look, now = performance.now();
  if (!$("look").open || frame < 0 || (look.record && look.record.frame === frame)) return;
  if (look.reel.kind !== "live") { showMoment(...look.reel.pictures.get(frame)); return; }
  const note = noteOf(past, frame);
  if (note && !note[4]) {
    showMoment({frame, regions: [], whole: true}, null);
    return;
  }
  const waits = look.asked >= 0 && now - look.askedAt < ASK_AGAIN_MS;
  if (waits || now - look.askedAt < ASK_MS) { setTimeout(ask, ASK_MS); return; }
  look.asked = frame;
  look.askedAt = now;
  send({moment: frame});
}
function takeMoment(record, image) {  // what the demo sent
  if (record.frame === look.asked) look.asked = -1;
  const note = noteOf(past, record.frame);
  if (record.gone && note && state.now_ms - note[1] < YOUNG_MS) {  // its picture is being made
    setTimeout(ask, 3 * ASK_MS);
    return;
  }
  if ($("look").open && look.reel === reel && record.frame === look.frame) showMoment(record, image); else { if (image) image.close(); ask(); }
}
function showMoment(record, image) {
  record.regions ||= [];  // of a picture that is gone nothing is said
  if (look.bitmap && look.bitmap !== image && look.reel.kind === "live") look.bitmap.close();
  look.record = record;
  look.bitmap = image;
  showLook();
}

function showLook() {
  const notes = look.reel.notes, live = look.reel.kind === "live", note = noteOf(notes, look.frame);
  const {record} = look, here = record && record.frame === look.frame;
  if (note) {
    const ago = live ? Math.max(0, state.now_ms - note[1]) : note[1];
    text($("look-title"), live ? `PAST: ${seconds(ago)} ago, frame ${look.frame}` : look.reel.clip ? `${look.reel.title}: ${seconds(ago)}, frame ${look.frame + 1} of ${look.reel.length || notes.length}` : look.reel.title);
    const could = note[3] ? `${note[2]} of ${note[3]} could be used` : "nothing to use";
    text($("look-word"), (note[2] ? "✓ " : "✕ ") + (note[3] === 1 ? (note[2] ? "USE" : "DO NOT USE") : could));
    $("look-word").className = note[2] ? "yes" : "no";
  } else if (here) text($("look-title"), `PAST: frame ${look.frame}, kept no longer`);
  else if (live && look.frame >= 0) gone();
  $("look-link").hidden = !live || look.frame < 0;
  const range = $("look-at"), [from, to] = spanOf(look.reel);
  if (notes.length) {
    [range.min, range.max] = [from, to];
    range.step = Math.max(1, Math.round((notes[notes.length - 1][1] - notes[0][1]) / Math.max(1, notes.length - 1)));
    if (note) range.value = note[1];
    range.setAttribute("aria-valuetext", $("look-title").textContent);
  }
  const {pen, width, whole} = columns($("look-strip"), notes, from, to, note);
  if (live) timeAxis(pen, 0, width, whole - 6, 1000 * about.kept_s, 4);
  else { pen.fillStyle = ink("dim"); pen.textAlign = "left"; pen.fillText("0 s", 0, whole - 6); pen.textAlign = "right"; pen.fillText(seconds(to), width, whole - 6); }
  $("look-strip").setAttribute("aria-label", `${notes.length} frames; ${notes.filter((each) => each[2]).length} of them with something that could be used`);
  if (!here) return;
  if (look.bitmap) paint($("look-picture"), look.bitmap, record.regions); else blank();
  const missing = record.whole ? "Nothing was rejected on this frame; pictures are kept of frames on which something was." :
    record.gone ? "No picture of this frame is kept: the machine had no time for it, or it is too old." : "";
  text($("look-note"), missing);
  cards($("look-regions"), record.regions.length || !note || record.scene ? scened(record) : words(note), false, true);
}
// What holds for the whole picture, where there is no region to say it.
function scened(record) {
  const {scene, regions} = record;
  if (!scene || scene.accepted) return regions;
  return [{name: "the whole picture", accepted: false, reasons: scene.reasons, label: "", detail: scene.detail}, ...regions];
}
function words(note) {
  return note[4] ? [{name: "", accepted: false, reasons: reasonsOf(note[4]), label: ""}] : [];
}
function gone() {
  text($("look-title"), "That moment is gone");
  text($("look-word"), "");
  text($("look-note"), `The demo remembers the last ${about.kept_s / 60} minutes.`);
}

// ---- links to a moment

let linked = location.hash;  // until the notes are there
function followLink() {
  const found = /^#moment=([0-9a-f]+)-(\d+)$/.exec(linked);
  linked = "";
  if (!found) return;
  const frame = Number(found[2]), note = noteOf(past, frame);
  const newest = past.length ? past[past.length - 1][0] : -1;
  if (found[1] === about.run && note) { openLook(reel, frame); return; }
  openLook(reel, null);
  showLook();
  gone();
  if (found[1] !== about.run) text($("look-note"), "This link is to an earlier run of the demo, of which nothing is kept.");
  else if (frame > newest) text($("look-note"), "This frame has not come yet.");
  else text($("look-note"), `It is over for longer than ${about.kept_s / 60} minutes, and the demo remembers no more.`);
}
addEventListener("hashchange", () => { linked = location.hash; if (about) followLink(); });
$("look-link").onclick = async () => {
  const address = new URL(location.href);
  address.hash = `moment=${about.run}-${look.frame}`;
  const warning = token ? " It holds the token: whoever has it can open this page." : "";
  try {
    await navigator.clipboard.writeText(address.href);
    text($("look-said"), `Copied. It opens this moment for ${about.kept_s / 60} minutes.${warning}`);
  } catch {  // a page that did not come over TLS or from this machine has no clipboard
    $("look-address").hidden = false;
    $("look-address").value = address.href;
    $("look-address").select();
    text($("look-said"), `Copy the address above. It opens this moment for ${about.kept_s / 60} minutes.${warning}`);
  }
};

// ---- its buttons, and the strip beside the live picture

$("look-close").onclick = () => $("look").close();
$("look").onclose = () => {
  if (look.reel && look.reel.stop) look.reel.stop();
  history.replaceState(null, "", location.pathname + location.search);
};
$("look-at").oninput = () => {
  const {notes} = look.reel, note = noteOf(notes, look.frame), wanted = Number($("look-at").value);
  const found = at(notes, wanted);
  if (note && found === note) step(wanted > note[1] ? 1 : -1); else if (found) go(found[0]);
};
document.querySelectorAll("#look-steps button").forEach((button) => { button.onclick = () => step(Number(button.dataset.step)); });
function spanOf({kind, notes, length, fps}) {  // in ms: what the strip shows
  if (kind === "live") return [state.now_ms - 1000 * about.kept_s, state.now_ms];
  return [0, Math.max(...notes.map((note) => note[1]), 1000 * (length || 1) / (fps || 25))];
}
const at = (notes, ms) => notes.reduce((best, note) => Math.abs(note[1] - ms) < Math.abs(best[1] - ms) ? note : best, notes[0]);
function pick(canvas, event) {  // the note below the pointer
  const notes = look.reel ? look.reel.notes : past, place = canvas.getBoundingClientRect();
  const share = (event.clientX - place.left) / place.width;
  const [from, to] = spanOf(look.reel || reel);
  return at(notes, from + share * (to - from));
}
$("look-strip").onpointerdown = $("look-strip").onpointermove = (event) => {
  if (!event.buttons || !look.reel.notes.length) return;
  $("look-strip").setPointerCapture(event.pointerId);
  go(pick($("look-strip"), event)[0]);
};
$("past").onclick = (event) => {
  if (!about || !past.length) return;
  look.reel = null;
  // From the keyboard: the newest frame on which something was rejected.
  const note = event.detail ? pick($("strip"), event) : past.findLast((each) => each[4]) || past[past.length - 1];
  openLook(reel, note[0]);
};
function showPast() {
  const {pen, width, whole} = columns($("strip"), past, state.now_ms - 1000 * about.kept_s, state.now_ms, null);
  timeAxis(pen, 0, width, whole - 6, 1000 * about.kept_s, 4);
  if ($("look").open && look.reel === reel && look.frame >= 0) showLook();
}
