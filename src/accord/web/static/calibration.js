// An administrator who does not judge the first tasks reads what others said of them, and is not asked about them.

import { ask } from "./client.js";
import { say } from "./dom.js";

const read = document.getElementById("read");

read?.addEventListener("click", async () => {
  try {
    await ask("read", { tasks: read.dataset.tasks.split(" ") });
    location.reload();
  } catch (error) {
    say(error.message, true);
  }
});
