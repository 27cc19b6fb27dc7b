// One answer: 1 (worst) to 7 (best), and what is wrong with it.

import { answers, button, digit, make } from "./dom.js";

const WORDS = ["worst", "bad", "poor", "so-so", "fair", "good", "best"];
const FLAGS = ["wrong", "harmful", "off the topic", "cut off", "flatters"];

export const keys = [
  ["1 to 7", "worst to best; sends"],
  ["f", "go to what is wrong with it"],
  ["e", "write a better answer yourself"],
];

/** Seven buttons; `act(rating)` is called with the one that was pressed. */
export function ratings(act, label, before) {
  return make("div", { className: "scale seven", aria: { role: "group", label } },
    ...WORDS.map((word, index) => button(`${index + 1} ${word}`, null, () => act(index + 1), { ariaPressed: String(before === index + 1) })));
}

/** Boxes for what is wrong; `act()` is called at each tick, `ticked()` says which are, `tick(flags)` sets them. */
export function flagBoxes(act, label) {
  const boxes = FLAGS.map((flag) => make("input", { type: "checkbox", name: "flag", value: flag, onchange: act }));
  return {
    element: make("div", { className: "row flags", aria: { role: "group", label } }, ...boxes.map((box) => make("label", {}, box, ` ${box.value}`))),
    ticked: () => boxes.filter((box) => box.checked).map((box) => box.value).sort(),
    tick: (flags) => boxes.forEach((box) => { box.checked = flags.includes(box.value); }),
    focus: () => boxes[0].focus(),
  };
}

/** The page of a rating. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const before = page.before.value || {};
  const flags = flagBoxes(() => page.changed(), "What is wrong with it");
  flags.tick(before.flags || []);
  const give = (rating) => page.done({ value: { rating, ...(flags.ticked().length ? { flags: flags.ticked() } : {}) }, strength: null });
  return {
    content: [make("div", { className: "answers" }, ...answers(assignment))],
    panel: [flags.element, ratings(give, "How good is it", before.rating), make("div", { className: "row" }, page.edit, ...page.common)],
    write: page.write,
    key(event) {
      const rating = digit(event);
      if (rating >= 1 && rating <= 7) return give(rating), true;
      if (event.key === "f") return flags.focus(), true;
      return false;
    },
    draft: () => ({ value: { flags: flags.ticked() } }),
  };
}
