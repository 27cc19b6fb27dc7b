// Elements, without templates.

/** An element with properties, attributes (under `aria`, `data`) and children. */
export function make(name, { aria = {}, data = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  for (const [key, value] of Object.entries(aria)) element.setAttribute(key === "role" ? key : `aria-${key}`, value);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

/** A conversation; its HTML was made safe by the server. */
export function conversation(turns, named = true) {
  return turns.map((turn) => {
    const text = make("div", { className: "text" });
    text.innerHTML = turn.html;
    return make("div", { className: `turn ${turn.role}` }, ...(named ? [make("div", { className: "role", textContent: turn.role })] : []), text);
  });
}

export const LETTERS = "ABCDEFGHIJKLMNOPQRST";

/** The answers in the order shown, each under a letter. */
export function answers(assignment) {
  return assignment.answers.map((turns, place) =>
    make("section", { className: "answer", id: `answer-${place}`, tabIndex: -1, aria: { label: `Answer ${LETTERS[place]}` }, data: { place } },
      make("h2", { textContent: `Answer ${LETTERS[place]}` }),
      ...conversation(turns, turns.length > 1)));
}

/** A button with a key on it. */
export function button(text, key, act, properties = {}) {
  return make("button", { type: "button", onclick: act, ...properties }, text, ...(key ? [" ", make("kbd", { textContent: key })] : []));
}

/** What `j` and `k` do among elements: to the next one, to the one before; the first `j` goes to where one was. */
export function mover(elements) {
  let at = 0;
  elements.forEach((element, place) => element.addEventListener("focusin", () => { at = place; }));
  const move = (event) => {
    if (event.key !== "j" && event.key !== "k") return false;
    move.to(event.key === "j" ? at + (document.activeElement === elements[at] ? 1 : 0) : at - 1);
    return true;
  };
  move.to = (place) => {
    at = Math.max(0, Math.min(elements.length - 1, place));
    elements[at].focus();
    elements[at].scrollIntoView({ block: "nearest" });
  };
  Object.defineProperty(move, "at", { get: () => at });
  return move;
}

export const digit = (event) => (/^[1-9]$/.test(event.key) ? Number(event.key) : 0);

/** Tell what happens, in the line of the page that is for it. */
export function say(text, bad = false) {
  const line = document.getElementById("status");
  line.textContent = text;
  line.className = bad ? "bad" : "";
}
