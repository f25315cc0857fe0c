// ---- a picture with its boxes

function line(pen, x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }

// Paints a frame with its verdicts, as sharp as the picture is.
function paint(canvas, image, regions) {
  if (canvas.width !== image.width || canvas.height !== image.height) [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext("2d"), {width, height} = canvas, unit = width / Math.max(canvas.clientWidth, 1);
  pen.drawImage(image, 0, 0, width, height);
  const boxed = regions.filter((region) => region.box && !region.whole);
  for (const region of boxed) outline(pen, region, width, height, unit);
  const size = (canvas.clientWidth < 500 ? 11 : 14) * unit, taken = [];
  const boxes = new Map(boxed.map((region) => [region, rectangle(region, width, height)]));
  // Those that may be used first: theirs are the labels that must be there.
  for (const region of [...boxed].sort((a, b) => b.accepted - a.accepted)) {
    const lines = [region.accepted ? `✓ ${region.label} ${percent(region.confidence)}` : `✕ ${short(region.reasons[0])}`];
    const own = boxes.get(region), low = own.top + own.high;
    const heights = [own.top - size * 0.95, low + size * 0.95, low + size * 2.6, own.top - size * 2.6];
    const places = heights.flatMap((at) => [own.left, own.left + own.wide - measure(pen, lines, 0, at, size, width).wide]
      .map((left) => measure(pen, lines, left, at, size, width)));
    const fits = places.filter((place) => place.top >= 0 && place.top + place.high <= height && !taken.some((other) => meets(place, other)));
    const others = boxed.filter((other) => other !== region);
    const free = (place, among) => !among.some((other) => meets(place, boxes.get(other)));
    // Over no other box; else over none that may be used; else the box alone says it, and the card below.
    const place = fits.find((each) => free(each, others)) || fits.find((each) => free(each, others.filter((other) => other.accepted)));
    if (!place) continue;
    taken.push(place);
    label(pen, lines, place.left + place.wide / 2, place.top + size * 0.75, size, region.accepted ? "#0b7a34" : "#b3121d", false);
  }
}
function rectangle(region, width, height) {
  const [x, y, w, h] = region.box;
  return {left: x * width, top: y * height, wide: w * width, high: h * height};
}
function outline(pen, region, width, height, unit) {
  const {left: x, top: y, wide: w, high: h} = rectangle(region, width, height);
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

// One region in words, into a list item: sign, name, what it is or why not.
function card(item, region, silent, long) {
  if (!item.firstChild) item.innerHTML = '<b></b><span class="name"></span><span class="label"></span>';
  item.className = region.accepted ? "yes" : "no";
  text(item.children[0], region.accepted ? "✓ USE" : "✕ DO NOT USE");
  // A card is narrow and a track's number grows: "A #592" is readable where "A · track-592" is cut off.
  text(item.children[1], region.whole ? "whole picture" : long ? region.name : region.name.replace(/(?: · )?track-/, " #").trim());
  const found = region.detected ? `, detector: ${region.detected}` : "";
  const guess = region.label ? ` (${region.label}?\u00a0${percent(region.confidence)})` : "";
  const sure = region.usable === undefined ? percent(region.confidence) : `${percent(region.usable)} of the pixels usable`;
  const why = long ? region.reasons.map((reason) => `${sentence(reason)} (${reason})`).join("; ") : shorts(region.reasons);
  text(item.children[2], region.accepted ? `${region.label} ${sure}` : silent ? "no verdict" : why + guess + found);
  const tip = `${region.whole ? "" : region.name + ": "}` + (region.accepted ? item.children[2].textContent : codes(region.reasons) + (region.detail ? `\n${region.detail}` : ""));
  if (item.title !== tip) item.title = tip;
}
function cards(list, regions, silent, long) {
  while (list.children.length > regions.length) list.lastChild.remove();
  regions.forEach((region, k) => card(list.children[k] || list.appendChild(document.createElement("li")), region, silent, long));
}
