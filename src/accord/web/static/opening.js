// Opens a model, or several to compare, and goes to the page once they are there.

import { ask } from "./client.js";

const form = document.getElementById("opening");
const status = document.getElementById("status");
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function say(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "";
}

/** Wait for what is being opened; the page then is another one. */
async function wait() {
  form.querySelector("button").disabled = true;
  for (;;) {
    const found = await ask("seat").catch((error) => { if (error.code !== "network") throw error; });
    if (found && found.opening) say(`Opening ${found.opening.join(", ")} …`);
    else if (found && found.problem) throw new Error(found.problem);
    else if (found && found.open) return location.reload();
    else if (found) throw new Error("Nothing was opened. Try again.");
    await pause(500);
  }
}

async function begin(work) {
  try {
    await work();
    await wait();
  } catch (error) {
    say(error.message, true);
    form.querySelector("button").disabled = false;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(form);
  const models = given.getAll("model");
  const compares = form.dataset.kind === "compare";
  if (compares && (models.length < 2 || models.length > Number(form.dataset.most))) return say(`Choose two to ${form.dataset.most} models.`, true);
  if (!models.length) return say("Choose a model.", true);
  const kind = compares ? "compare" : given.has("learn") ? "learn" : "chat";
  begin(() => ask("seat", { kind, models, max_new_tokens: Number(given.get("max_new_tokens")), temperature: Number(given.get("temperature")) }));
});

const now = await ask("seat").catch(() => null);
if (now && now.opening) begin(async () => {});
else if (now && now.problem) say(now.problem, true);
