// Conversations turn by turn: a rating or a better text for each answer of one, or which of two answered better.

import { button, conversation, digit, LETTERS, make, mover } from "./dom.js";
import { write } from "./editor.js";
import { judged, numberOf, scale } from "./pair.js";
import { flagBoxes, ratings } from "./rating.js";

export const keys = [
  ["j, k", "next and previous answer"],
  ["1 to 7", "one conversation: how good the answer you are at is, worst to best"],
  ["e", "one conversation: write what the answer you are at should have been"],
  ["1 to 8, t, x", "two conversations: as for a pair, for the answers you are at"],
  ["c", "clear what you said of the answer you are at"],
  ["Enter", "send; answers that you said nothing of are not judged"],
];

/** A conversation in pieces that end with an answer each: what was said before it, and the answer. */
function pieces(turns) {
  const found = [];
  let said = [];
  for (const turn of turns) {
    said.push(turn);
    if (turn.role === "assistant") {
      found.push({ before: said.slice(0, -1), answer: turn });
      said = [];
    }
  }
  return { found, rest: said };
}

const alike = (one, other) => JSON.stringify(one.map((turn) => [turn.role, turn.text])) === JSON.stringify(other.map((turn) => [turn.role, turn.text]));

/** The page of a conversation, or of two. `page.done(judgement)` sends; `page.changed()` keeps a draft. */
export function view(assignment, page) {
  const two = assignment.answers.length === 2;
  const sides = assignment.answers.map(pieces);
  const count = Math.min(...sides.map((side) => side.found.length));
  const said = new Map(((page.before.value || {}).turns || []).map(({ turn, ...entry }) => [turn, entry]));
  let writing = page.before.writing || null;
  const told = make("span", { className: "small" });
  const send = button("Send", "Enter", () => submit());
  const parts = Array.from({ length: count }, (_, turn) => (two ? comparison(turn) : single(turn)));
  const move = mover(parts.map((part) => part.card));
  const judgeable = parts.filter((part) => part.judge).length;

  /** One answer with its rating, its flags, and the text that the annotator wrote for it. */
  function single(turn) {
    const { before, answer } = sides[0].found[turn];
    const own = make("p", { className: "own" });
    const row = ratings((rating) => rate(turn, rating), `Answer ${turn + 1}`);
    const flags = flagBoxes(() => set(turn, { flags: flags.ticked().length ? flags.ticked() : undefined }), `What is wrong with answer ${turn + 1}`);
    const card = make("section", { className: "answer", tabIndex: -1, aria: { label: `Answer ${turn + 1}` } },
      make("h2", { textContent: `Answer ${turn + 1}` }), ...conversation([answer], false), own, row, flags.element,
      make("div", { className: "row" }, button("Write what it should have been", null, () => rewrite(turn)), button("Clear", null, () => clear(turn))));
    return {
      elements: [...conversation(before), card], card, judge: true,
      paint() {
        const entry = said.get(turn) || {};
        [...row.children].forEach((one, index) => one.setAttribute("aria-pressed", String(entry.rating === index + 1)));
        flags.tick(entry.flags || []);
        own.textContent = entry.text === undefined ? "" : `Your text: ${entry.text}`;
        card.classList.toggle("chosen", said.has(turn));
      },
    };
  }

  /** Two answers side by side with the scale between them. */
  function comparison(turn) {
    const found = sides.map((side) => side.found[turn]);
    const whole = sides.map((side) => side.found.slice(0, turn + 1).flatMap((piece) => [...piece.before, piece.answer]));
    const judge = !alike(...whole);
    const shared = alike(found[0].before, found[1].before);
    const row = scale((number) => choose(turn, judged(assignment, number)), 0, `Answers ${turn + 1}: which is better`);
    const ties = [["tie", "Tie"], ["both_bad", "Both bad"]].map(([choice, text]) => button(text, null, () => choose(turn, { value: { choice }, strength: null })));
    const cards = found.map((piece, place) => make("section", { className: "answer", aria: { label: `Answer ${turn + 1} of ${LETTERS[place]}` } },
      make("h2", { textContent: `${LETTERS[place]}, answer ${turn + 1}` }), ...(shared ? [] : conversation(piece.before)), ...conversation([piece.answer], !shared)));
    const card = make("div", { className: "turn-pair", tabIndex: -1, aria: { role: "group", label: `Answers ${turn + 1}` } }, make("div", { className: "answers" }, ...cards),
      ...(judge ? [row, make("div", { className: "row" }, ...ties, button("Clear", null, () => clear(turn)))] : [make("p", { className: "small", textContent: "Both say the same." })]));
    return {
      elements: [...(shared ? conversation(found[0].before) : []), card], card, judge,
      paint() {
        const entry = said.get(turn) || {};
        const chosen = numberOf(assignment, { value: { choice: entry.choice }, strength: entry.strength });
        [...row.children].forEach((one, index) => one.setAttribute("aria-pressed", String(chosen === index + 1)));
        ties.forEach((one, index) => one.setAttribute("aria-pressed", String(entry.choice === ["tie", "both_bad"][index])));
        card.classList.toggle("chosen", said.has(turn));
      },
    };
  }

  function set(turn, change) {
    const entry = Object.fromEntries(Object.entries({ ...said.get(turn), ...change }).filter(([, value]) => value !== undefined && value !== null));
    if (Object.keys(entry).length) said.set(turn, entry);
    else said.delete(turn);
    paint();
    page.changed();
  }
  const rate = (turn, rating) => set(turn, { rating });
  const choose = (turn, { value, strength }) => set(turn, { choice: value.choice, strength });
  function clear(turn) {
    said.delete(turn);
    paint();
    page.changed();
  }
  function rewrite(turn) {
    const original = sides[0].found[turn].answer.text;
    write({
      title: `Write what answer ${turn + 1} should have been`, note: "It is kept as a demonstration of this turn, and as better than the answer that was given.",
      text: writing && writing.turn === turn ? writing.text : (said.get(turn) || {}).text || original,
      input: (text) => { writing = { turn, text }; page.changed(); },
      save(text) {
        writing = null;
        if (!text.trim() || text.trim() === original.trim()) return page.say("This is the answer as it was: nothing is kept.", true);
        set(turn, { text });
      },
    });
  }
  function paint() {
    for (const part of parts) part.paint();
    told.textContent = `${value().turns.length} of ${judgeable} answers judged`;
    send.disabled = !value().turns.length;
  }
  /** Flags alone say nothing: a turn counts once it has a rating, a text or a choice. */
  function value() {
    const turns = [...said].filter(([turn, entry]) => parts[turn].judge && (entry.rating || entry.text !== undefined || entry.choice !== undefined)).sort(([one], [other]) => one - other);
    return { turns: turns.map(([turn, { flags, ...entry }]) => ({ turn, ...entry, ...(flags && entry.rating ? { flags } : {}) })) };
  }
  function submit() {
    if (send.disabled) return page.say("You have said nothing of any answer yet.", true);
    page.done({ value: value(), strength: null });
  }
  function judgeByKey(event) {
    const [number, at] = [digit(event), move.at];
    if (!parts[at].judge) return false;
    if (two && number >= 1 && number <= 8) return choose(at, judged(assignment, number)), true;
    if (two && (event.key === "t" || event.key === "x")) return choose(at, { value: { choice: event.key === "t" ? "tie" : "both_bad" }, strength: null }), true;
    if (!two && number >= 1 && number <= 7) return rate(at, number), true;
    return false;
  }
  paint();
  return {
    content: [...parts.flatMap((part) => part.elements), ...sides.flatMap((side) => conversation([...side.found.slice(count).flatMap((piece) => [...piece.before, piece.answer]), ...side.rest]))],
    panel: [make("div", { className: "row" }, send, told, ...(two ? [] : [button("Write a better one", "e", () => rewrite(move.at))]), ...page.common)],
    write: two ? undefined : () => rewrite(move.at),
    key(event) {
      if (move(event)) return true;
      if (event.key === "Enter" && event.target.tagName !== "BUTTON") return submit(), true;
      if (event.key === "c") return clear(move.at), true;
      if (!judgeByKey(event)) return false;
      if (move.at < count - 1) move.to(move.at + 1);
      return true;
    },
    draft: () => ({ value: { turns: [...said].map(([turn, entry]) => ({ turn, ...entry })) }, writing }),
  };
}
