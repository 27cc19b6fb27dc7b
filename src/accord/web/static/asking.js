// A question, and its answers as they are written: what the chat and the comparison share.

import { ask } from "./client.js";
import { LETTERS, make } from "./dom.js";
import { listen } from "./live.js";

/** Places where answers grow; what is in them is text and nothing else. */
export function growing(place, count) {
  const texts = Array.from({ length: count }, () => make("div", { className: "written" }));
  const name = (index) => (count === 1 ? "Answer" : `Answer ${LETTERS[index]}`);
  place.replaceChildren(make("div", { className: "answers" }, ...texts.map((text, index) =>
    make("section", { className: "answer writing", aria: { label: `${name(index)}, being written` } }, make("h2", { textContent: name(index) }), text))));
  return texts;
}

/** What the user just said, before the server has it. */
export function saying(text) {
  return make("div", { className: "turn user" }, make("div", { className: "role", textContent: "user" }), make("div", { className: "written", textContent: text }));
}

/**
 * Ask, and fill the places as answers grow. Resolves with what there is at the end; throws where there is none.
 * @param said turns so far, as the server gave them.
 * @param told (lost) => void: whether the connection is lost.
 */
export async function asked(said, text, places, told) {
  const messages = [...said.map((turn) => ({ role: turn.role, content: turn.text })), { role: "user", content: text }];
  const { question } = await ask("chat/ask", { messages });
  const found = await new Promise((resolve, reject) => {
    const source = listen(`/api/chat/events/${question}`, {
      texts: ({ texts }) => places.forEach((place, index) => { place.textContent = texts[index] ?? ""; }),
      done: (data) => { source.close(); resolve(data); },
    }, told, () => ask(`chat/question/${question}`).then((data) => (data.assignment || data.said || data.problem ? resolve(data) : reject(new Error("The connection is lost. Ask again.")))).catch(reject));
  });
  if (found.problem) throw new Error(found.problem);
  return found;
}

/** An answer that ended at once is shown as one. */
export function markEmpty(turns) {
  for (const turn of turns) if (!turn.text.trim()) turn.html = '<p class="small">(nothing: it ended at once)</p>';
  return turns;
}

/** Close what is open, and go to where something else is opened. Saving may take longer than a request waits. */
export async function leave(say) {
  say("Closing …");
  await ask("seat/close", {}).catch((error) => error.code === "network" || say(error.message, true));
  const found = await ask("seat").catch(() => null);
  if (found && found.open) return say("It could not be closed. Try again.", true);
  location.reload();
}

/** Let the form send its question: by its button, or by Enter (with Shift a new line); Escape leaves it. */
export function sentBy(send) {
  document.getElementById("ask").addEventListener("submit", (event) => { event.preventDefault(); send(); });
  document.getElementById("question").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.blur();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
}
