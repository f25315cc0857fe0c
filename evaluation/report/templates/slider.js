(() => {
  const data = JSON.parse(document.getElementById("slider-data").textContent);
  const at = (id) => document.getElementById("slider-" + id);
  const put = (id, words) => { at(id).textContent = words; };
  const share = (part, whole) => whole ? (100 * part / whole).toFixed(2) + "\u00a0%" : "\u2013";
  const whole = (value) => value.toLocaleString("en");
  const W = 420, H = 190, LEFT = 44, BOTTOM = 34, TOP = 8, RIGHT = 8;
  const x = (coverage) => LEFT + coverage * (W - LEFT - RIGHT);
  const draw = (score, stop) => {
    const top = Math.max(0.01, ...score.stops.map((each) => each.wrong / each.accepted)) * 1.15;
    const y = (risk) => H - BOTTOM - Math.min(1, risk / top) * (H - BOTTOM - TOP);
    const line = (key) => score.stops.map((each) => [x(each.accepted / data.frames), y(key(each))].map(
      (value) => value.toFixed(1)).join(","));
    const low = line((each) => each.low), high = line((each) => each.high);
    at("band").setAttribute("points", [...low, ...high.reverse()].join(" "));
    at("curve").setAttribute("points", line((each) => each.wrong / each.accepted).join(" "));
    const here = x(stop.accepted / data.frames).toFixed(1);
    at("mark").setAttribute("cx", here);
    at("mark").setAttribute("cy", y(stop.wrong / stop.accepted).toFixed(1));
    at("line").setAttribute("x1", here);
    at("line").setAttribute("x2", here);
    put("top", (100 * top).toFixed(top < 0.1 ? 1 : 0) + "\u00a0%");
  };
  const show = () => {
    const score = data.scores[at("score").selectedIndex], range = at("stop");
    range.max = score.stops.length - 1;
    const stop = score.stops[Math.min(range.value, score.stops.length - 1)];
    const rejected = data.frames - stop.accepted, caught = Math.max(0, data.wrong - stop.wrong);
    put("coverage", share(stop.accepted, data.frames));
    put("accepted", whole(stop.accepted) + " of " + whole(data.frames) + " frames accepted");
    put("risk", share(stop.wrong, stop.accepted));
    put("interval", "of the accepted are wrong [" + (100 * stop.low).toFixed(2) + ", " + (100 * stop.high).toFixed(2) + "]");
    put("wrong", whole(stop.wrong));
    put("caught", "wrong frames accepted, " + whole(caught) + " of " + whole(data.wrong) + " stopped");
    put("lost", whole(Math.max(0, rejected - caught)));
    put("rejected", "right frames lost, of " + whole(rejected) + " rejected");
    put("threshold", stop.threshold === null ? "" : "Threshold: " + stop.threshold.toPrecision(4) + score.unit
      + ". It is that of these test frames; framegate calibrate proves one on calibration frames.");
    range.setAttribute("aria-valuetext", at("coverage").textContent + " accepted, risk " + at("risk").textContent);
    draw(score, stop);
  };
  for (const score of data.scores) at("score").add(new Option(score.name));
  at("stop").max = data.scores[0].stops.length - 1;
  at("stop").value = data.start;
  at("score").addEventListener("change", show);
  at("stop").addEventListener("input", show);
  at("said").hidden = true;
  at("body").hidden = false;
  show();
})();
