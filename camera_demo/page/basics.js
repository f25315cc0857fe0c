// Shows what framegate demo sends. Decides one thing by itself: a verdict that is too old, or a connection that is
// gone, is DO NOT USE. The scripts of this folder are served as one, in the order that web_app.py names.
"use strict";

const LINES = 5;  // of the charts: a colour that the colour-blind can tell apart, and a dash pattern each
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [4, 2]];

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token");
let about = null, state = null, stateAt = 0, head = null, pictureAt = 0, bitmap = null;
let samples = [], times = [], past = [];  // times: of the samples, in ms; past: notes, see timeline.py

function text(element, value) { if (element.textContent !== value) element.textContent = value; }
function make(tag, parent, attributes = {}, content = "") {
  const element = parent.appendChild(document.createElement(tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content) element.textContent = content;
  return element;
}
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const percent = (value) => value === null || value === undefined ? "" : `${Math.round(100 * value)}\u00a0%`;
const figure = (value, digits = 2) =>  // never 1e+2
  new Intl.NumberFormat("en", {maximumSignificantDigits: digits, useGrouping: false}).format(value).replace("-", "\u2212");

// Plain words for a reason; its code is in the tooltips.
const short = (reason) => about && about.words[reason] ? about.words[reason][0] : reason;
const sentence = (reason) => about && about.words[reason] ? about.words[reason][1] : reason;
const shorts = (reasons) => reasons.map(short).join(", ");
const codes = (reasons) => reasons.map((reason) => `${reason}: ${sentence(reason)}`).join("\n");
const reasonsOf = (bits) => about.reasons.filter((reason, k) => Math.floor(bits / 2 ** k) % 2);

// ---- light and dark

const inks = {};
function ink(name) {  // a colour of the style sheet, for a canvas
  return inks[name] ||= getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}
const prefersLight = matchMedia("(prefers-color-scheme: light)");
let chosen = null;  // else as the system is
try { chosen = localStorage.getItem("theme"); } catch { /* a browser without storage */ }
function theme() {
  const light = chosen ? chosen === "light" : prefersLight.matches;
  document.documentElement.dataset.theme = light ? "light" : "dark";
  for (const name of Object.keys(inks)) delete inks[name];
  text($("theme"), light ? "Dark" : "Light");
  document.dispatchEvent(new Event("themed"));
}
prefersLight.onchange = theme;
$("theme").onclick = () => {
  chosen = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  try { localStorage.setItem("theme", chosen); } catch { /* it holds until the page is closed */ }
  theme();
};
