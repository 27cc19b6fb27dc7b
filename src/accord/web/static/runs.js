// The list of runs: renewed when it changes; what was chosen and where the focus was stays.

import { growOlder, listen } from "./live.js";

const listed = document.getElementById("listed");
const status = document.getElementById("status");
const renew = growOlder();
const boxes = () => [...listed.querySelectorAll('input[name="run"]')];

async function again() {
  const reply = await fetch("/runs/table").catch(() => null);
  if (!reply?.ok) return;
  const html = await reply.text();
  const chosen = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
  const focused = document.activeElement;
  const run = focused?.closest("tr")?.querySelector("input")?.value;
  const link = focused?.tagName === "A";
  const scrolled = listed.querySelector(".scroll")?.scrollLeft ?? 0;
  listed.innerHTML = html; // the server's own template, which escapes
  for (const box of boxes()) box.checked = chosen.has(box.value);
  const row = run === undefined ? null : boxes().find((box) => box.value === run)?.closest("tr");
  row?.querySelector(link ? "a" : "input").focus();
  const scroll = listed.querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
  renew();
}

const form = document.getElementById("compare");
form.addEventListener("submit", (event) => {
  const chosen = boxes().filter((box) => box.checked).length;
  if (chosen > 0 && chosen <= Number(form.dataset.most)) return;
  event.preventDefault();
  status.textContent = chosen ? `${chosen} are too many: at most ${form.dataset.most} runs fit on one page.` : "Choose the runs to compare first: the boxes on the left.";
});

listen("/api/runs/changes", { changed: again },
  (lost) => { status.textContent = lost ? "The connection is lost. Trying again …" : ""; if (!lost) again(); },
  () => { status.textContent = "The server does not answer any more. Reload the page."; });
