// Talks to the service. The API key lives in this module's memory and nowhere else.

import { $ } from "./dom.js";

/** What went wrong, in the words of the server's problem JSON where it sent one. */
export class Problem extends Error {
  constructor(detail, { field = null, status = 0 } = {}) {
    super(detail);
    this.field = field;
    this.status = status;
  }
}

let key = null;
let asking = null;

/** fetch() that asks for a key when the server wants one, and fails with a Problem. */
export async function request(url, options = {}) {
  for (;;) {
    const sent = key;
    const response = await reach(url, sent, options);
    if (response.ok) return response;
    const problem = await read(response);
    if (response.status !== 401) throw problem;
    if (sent === key) {
      asking ??= askForKey(sent !== null).finally(() => (asking = null));
      if (!(await asking)) throw problem;
    }
    options.signal?.throwIfAborted();
  }
}

async function reach(url, sent, options) {
  try {
    return await fetch(url, {
      ...options, cache: "no-store", headers: sent === null ? {} : { "X-API-Key": sent },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      "The server does not answer. What you entered is still here: check that the service is " +
      "running and that you are connected to it, then try again.",
    );
  }
}

async function read(response) {
  const said = await response.json().catch(() => ({}));
  const detail = said.detail || said.title;
  return new Problem(
    typeof detail === "string" ? detail
      : `The server answered with status ${response.status}; try again, or tell whoever runs it.`,
    { field: said.field ?? null, status: response.status },
  );
}

function askForKey(refused) {
  const dialog = $("key-dialog");
  const input = $("key");
  input.value = "";
  input.toggleAttribute("aria-invalid", refused);
  $("key-error").textContent = refused ? "That key was not accepted." : "";
  dialog.returnValue = "cancel"; // what Escape leaves
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "send";
      if (given) key = input.value.trim();
      input.value = "";
      resolve(given);
    }, { once: true });
  });
}
