// What the model says of one photo, as elements.

import { el, names, percent } from "./dom.js";

const SHOWN = 12; // classes of a set that are listed at once

/** Return the elements of an answer: its class, the bars, the set, the times. */
export function answerView({ predictions, set, coverage }, times) {
  const view = [verdict(predictions[0], set), bars(predictions)];
  if (set) view.push(setView(set, coverage));
  if (times) view.push(timesView(times));
  return view;
}

function verdict(top, set) {
  const [name, others] = names(top.label);
  const line = el("p", "verdict", el("strong", "", name), el("span", "share", percent(top.probability)));
  return el("div", "", line, others ? el("p", "others", others) : null, set ? sureness(set) : null);
}

/** A class is the answer only where it is alone in the set; otherwise the photo is unknown. */
function sureness(set) {
  const sure = set.length === 1;
  const badge = el("em", sure ? "badge sure" : "badge", sure ? "Sure" : "Unknown");
  const why = sure ? "the only class in the set" : "no single class is sure enough";
  return el("p", "sureness", badge, ` ${why}`);
}

function bars(predictions) {
  return el("ol", "bars", ...predictions.map(bar));
}

function bar({ label, probability }) {
  const [name, others] = names(label);
  const text = el("span", "name", name, others ? el("small", "", others) : null);
  const fill = el("i", "fill");
  fill.style.setProperty("--share", probability);
  return el("li", "", fill, text, el("span", "share", percent(probability)));
}

function setView(set, coverage) {
  const many = set.length === 1 ? "1 class" : `${set.length} classes`;
  const text = `This set of ${many} contains the true class with probability ${percent100(coverage)}.`;
  const none = "The prediction set is empty: no class is likely enough.";
  const view = el("section", "set", el("h3", "", "Prediction set"), el("p", "", set.length ? text : none));
  if (set.length) view.append(chips(set.slice(0, SHOWN)));
  if (set.length > SHOWN) {
    const rest = set.slice(SHOWN);
    view.append(el("details", "", el("summary", "", `${rest.length} more`), chips(rest)));
  }
  return view;
}

const percent100 = (part) => `${Number((100 * part).toFixed(1))} %`;

const chips = (set) => el("ul", "chips", ...set.map(({ label }) => el("li", "", names(label)[0])));

function timesView({ timing_ms: times, round_ms }) {
  const rows = [
    ["Decode", times.decode],
    ["Queue", times.queue],
    ["Infer", times.infer],
    ["Round trip", round_ms],
  ];
  const parts = rows.map(([name, ms]) => el("div", "", el("dt", "", name), el("dd", "", duration(ms))));
  return el("dl", "times", ...parts);
}

const duration = (ms) => `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;

/** Return what there is instead of an answer: why there is none and, with `retry`, a new try. */
export function errorView(text, retry) {
  const view = [el("p", "error", text)];
  if (retry) {
    const button = el("button", "", "Try again");
    button.type = "button";
    button.addEventListener("click", retry);
    view.push(el("p", "buttons", button));
  }
  return view;
}

export const waitingView = (text) => [
  el("p", "waiting", text),
  el("div", "ghost", el("i"), el("i"), el("i"), el("i"), el("i")),
];
