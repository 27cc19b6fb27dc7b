// A better text for an answer: it becomes a demonstration, and is better than the answer that it started from.

import { answers, button, digit, LETTERS, make, mover } from "./dom.js";

export const keys = [
  ["e", "write: go to your text"],
  ["Escape", "leave your text, so that the other keys work"],
  ["Ctrl Enter", "send"],
  ["j, k", "next and previous answer"],
  ["1 to 9", "start from that answer; what you wrote from another one is kept"],
];

/** The page of an edit. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const order = assignment.shown_order;
  const original = assignment.answers.map((turns) => turns[turns.length - 1].text);
  const before = page.before.value || {};
  const texts = page.before.texts || original.slice();
  let from = Math.max(0, order.indexOf(before.of));
  if (before.text !== undefined) texts[from] = before.text;
  const several = original.length > 1;
  const label = make("label", { htmlFor: "rewrite" });
  const area = make("textarea", { id: "rewrite", rows: 10, value: texts[from], oninput: () => { texts[from] = area.value; paint(); page.changed(); } });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  const send = button("Send", "Ctrl Enter", () => submit());
  const back = button("Put the original back", null, () => { texts[from] = area.value = original[from]; paint(); page.changed(); });
  const shown = answers(assignment);
  const move = mover(shown);
  const starts = shown.map((answer, place) => button(`Start from ${LETTERS[place]}`, String(place + 1), () => start(place)));
  if (several) shown.forEach((answer, place) => answer.append(make("div", { className: "row" }, starts[place])));

  function paint() {
    label.textContent = several ? `Your text, from answer ${LETTERS[from]}` : "Your text";
    starts.forEach((one, place) => one.setAttribute("aria-pressed", String(place === from)));
    back.disabled = texts[from] === original[from];
    send.disabled = unchanged();
  }
  const unchanged = () => !texts[from].trim() || texts[from].trim() === original[from].trim();
  function start(place) {
    from = place;
    area.value = texts[from];
    paint();
    page.changed();
    area.focus();
  }
  function submit() {
    if (unchanged()) return page.say(texts[from].trim() ? "This is the answer as it was. Change it, or skip it." : "Your text is empty.", true);
    page.done({ value: { of: order[from], text: texts[from] }, strength: null });
  }
  paint();
  return {
    content: [make("div", { className: "answers" }, ...shown), make("div", { className: "writing" }, label, area)],
    panel: [make("div", { className: "row" }, send, back, ...page.common)],
    write: () => area.focus(),
    key(event) {
      if (move(event)) return true;
      const place = digit(event) - 1;
      if (several && place >= 0 && place < shown.length) return start(place), true;
      return false;
    },
    draft: () => ({ value: { of: order[from], text: texts[from] }, texts }),
  };
}
