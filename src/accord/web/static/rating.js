// One answer: 1 (worst) to 7 (best), and what is wrong with it.

import { answers, button, digit, make } from "./dom.js";

const WORDS = ["worst", "bad", "poor", "so-so", "fair", "good", "best"];
const FLAGS = ["wrong", "harmful", "off the topic", "cut off", "flatters"];

export const keys = [
  ["1 to 7", "worst to best; sends"],
  ["f", "go to what is wrong with it"],
];

/** The page of a rating. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const before = (page.before && page.before.value) || {};
  const flags = new Set(before.flags || []);
  const value = (rating) => ({ value: { rating, ...(flags.size ? { flags: [...flags].sort() } : {}) }, strength: null });
  const scale = make("div", { className: "scale seven", aria: { role: "group", label: "How good is it" } });
  WORDS.forEach((word, index) => scale.append(button(`${index + 1} ${word}`, null, () => page.done(value(index + 1)), { ariaPressed: String(before.rating === index + 1) })));
  const boxes = FLAGS.map((flag) => make("label", {}, make("input", { type: "checkbox", name: "flag", value: flag, checked: flags.has(flag),
    onchange: (event) => { event.target.checked ? flags.add(flag) : flags.delete(flag); page.changed(); } }), ` ${flag}`));
  return {
    content: [make("div", { className: "answers" }, ...answers(assignment))],
    panel: [make("div", { className: "row flags", aria: { role: "group", label: "What is wrong with it" } }, ...boxes), scale, make("div", { className: "row" }, ...page.common)],
    key(event) {
      const rating = digit(event);
      if (rating >= 1 && rating <= 7) return page.done(value(rating)), true;
      if (event.key === "f") return boxes[0].firstChild.focus(), true;
      return false;
    },
    draft: () => ({ value: { flags: [...flags].sort() } }),
  };
}
