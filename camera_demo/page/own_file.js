// ---- a picture or clip of the visitor's, judged by the demo's network beside the stream

async function judgeFile(file) {
  if (!about) return;
  const stop = new AbortController();
  const own = {kind: "file", title: "Your file", notes: [], pictures: new Map(), length: 0, fps: 25, clip: false, stop: () => stop.abort()};
  openLook(own, null);
  text($("look-title"), "Your file");
  const say = (words) => { if (look.reel === own) text($("look-said"), words); };
  if (!about.own_files) return say("Files are judged only where the demo was started with --own-files on.");
  if (file.size > about.own_files.most_bytes) return say(`This file is larger than ${about.own_files.most_bytes / 2 ** 20} MiB; take a shorter or smaller one.`);
  say("Sending it, and starting a network for it …");
  try {
    const address = new URL("own", location.href);
    address.search = token ? "?token=" + encodeURIComponent(token) : "";
    address.hash = "";
    const answer = await fetch(address, {method: "POST", body: file, signal: stop.signal});
    if (!answer.ok) return say(capital((await answer.text()).replace("framegate demo: ", "").trim()) + ".");
    await readMessages(answer.body.getReader(), (record, jpeg) => takeOwn(own, record, jpeg, say));
  } catch (error) {
    if (error.name !== "AbortError") say("It could not be sent, or its answer broke off; is the demo still running, and can the file be read?");
  }
}
const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

async function readMessages(reader, take) {
  let waiting = new Uint8Array(0);
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const joined = new Uint8Array(waiting.length + value.length);
    joined.set(waiting);
    joined.set(value, waiting.length);
    waiting = joined;
    while (waiting.length >= 4) {
      const length = new DataView(waiting.buffer, waiting.byteOffset).getUint32(0);
      if (waiting.length < 4 + length) break;
      const {record, jpeg} = unpack(waiting.slice(4, 4 + length).buffer);
      waiting = waiting.slice(4 + length);
      await take(record, jpeg);
    }
  }
}
async function takeOwn(own, record, jpeg, say) {
  if (record.refused) return say(capital(record.refused) + ".");
  if (record.labels) {
    Object.assign(own, {length: record.length || 0, fps: record.fps, clip: record.clip, labels: record.labels, title: record.clip ? "Your clip" : "Your picture"});
    if (look.reel === own) $("look").classList.toggle("single", !own.clip);
    return say(`Judging it. The network knows: ${record.labels.join(", ")}.`);
  }
  if (record.note) {
    own.pictures.set(record.frame, [record, await createImageBitmap(jpeg)]);
    own.notes.push(record.note);
    if (look.reel === own && (own.notes.length === 1 || look.frame === -1)) go(record.frame); else if (look.reel === own) showLook();
    return;
  }
  own.length = own.notes.length;
  const usable = own.notes.filter((note) => note[2]).length;
  const result = own.clip ? `${usable} of ${record.judged} frames may be used` : usable ? "It may be used" : "It may not be used";
  const whole = look.record && look.record.regions.some((region) => region.whole) ? " It was judged as one whole." : "";
  say(`${result}${record.cut ? `; ${record.cut}` : ""}.${whole} The network knows: ${own.labels.join(", ")}. Nothing of the file is kept.`);
  if (look.reel === own) showLook();
}

$("own").onclick = () => $("file").click();
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) judgeFile(file);
  $("file").value = "";
};
const hasFiles = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) judgeFile(file);
});
