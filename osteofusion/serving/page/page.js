// Joins form, radiograph and result. Nothing of a patient outlives "New patient" or the page.

import { Problem, request } from "./api.js";
import { $, el } from "./dom.js";
import { Overlay, reasons } from "./explanation.js";
import { ClinicalForm } from "./form.js";
import { Radiograph } from "./radiograph.js";
import { answer, spoken } from "./result.js";
import { condition } from "./words.js";

const EMPTY = $("answer").firstElementChild;
let schema = null;
let form = null;
let radiograph = null;
let overlay = null;
let running = new AbortController();

async function start() {
  $("problem").replaceChildren();
  $("loading").textContent = "Loading the form…";
  try {
    schema = await (await request("v1/schema")).json();
  } catch (error) {
    $("loading").textContent = "The form could not be loaded.";
    complain(error.message, el("button", { type: "button", class: "quiet", click: start }, "Try again"));
    return;
  }
  radiograph = schema.arm === "tabular" ? null : new Radiograph(schema.max_upload_bytes, outdated);
  form = new ClinicalForm(schema.arm === "image" ? [] : schema.features, outdated);
  $("estimate").disabled = false;
  const facts = form.features.flatMap(({ dicom }) => ({ age: "age", female: "sex" })[dicom] ?? []);
  if (facts.length) $("image-help").append(` Where left empty, ${facts.join(" and ")} are taken from a DICOM header.`);
  introduce();
}

function introduce() {
  const { model, positive, regions, training, intended_use: use } = schema;
  const what = `Risk of ${condition(positive)}`;
  $("title").textContent = what;
  document.title = `${what} – osteofusion`;
  $("use").textContent = use;
  const facts = [
    ["Model", model.name], ["Version", model.version], ["SHA-256", model.sha256],
    ["Body region", regions.join(", ")], ["Trained on", training.citation],
  ];
  $("model").replaceChildren(...facts.filter(([, fact]) => fact).map(([name, fact]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, fact))));
  $("about").hidden = false;
  $("synthetic").hidden = !training.synthetic_what;
  $("synthetic").textContent = `${training.synthetic_what}. What this model answers means nothing for a real patient.`;
}

async function estimate(event) {
  event.preventDefault();
  if (!form || $("estimate").getAttribute("aria-disabled")) return;
  $("problem").replaceChildren();
  const faults = form.faults();
  if (faults.length) {
    complain(faults.length === 1 ? "One value cannot be used; see below its field." : `${faults.length} values cannot be used; see below their fields.`);
    form.focus(faults[0]);
    return;
  }
  forget();
  const { signal } = running;
  busy(true);
  try {
    const prediction = await (await request("v1/predict", { method: "POST", body: body(), signal })).json();
    await show(prediction, signal);
  } catch (error) {
    if (error.name !== "AbortError") refuse(error);
  } finally {
    if (running.signal === signal) busy(false);
  }
}

function body() {
  const data = new FormData();
  // Under a name of our own: the file's may hold the patient's.
  if (radiograph?.file) data.append("image", radiograph.file, "radiograph");
  if (form.features.length) data.append("values", JSON.stringify(form.values()));
  return data;
}

async function show(prediction, signal) {
  $("answer").replaceChildren(...answer(prediction, schema, form).filter(Boolean), download(prediction, signal));
  $("announce").textContent = spoken(prediction, schema);
  $("result-title").focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("result").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  const why = el("div", { id: "why" });
  $("answer").lastElementChild.before(why);
  if (prediction.image_present && prediction.links.overlay) {
    overlay = new Overlay(prediction.links.overlay, signal);
    why.append(overlay.node);
  } else if (prediction.image_present) {
    why.append(el("p", { class: "help" }, "This model cannot show which parts of the image raised the risk."));
  }
  try {
    const link = prediction.links.explanation ?? `v1/results/${prediction.id}/explanation`;
    const found = await (await request(link, { signal })).json();
    why.append(...reasons(found, prediction, form).filter(Boolean));
  } catch (error) {
    if (error.name !== "AbortError") why.append(el("p", { class: "error", role: "alert" }, error.message));
  }
}

function download({ links }, signal) {
  const note = el("p", { class: "error", role: "alert" });
  const button = el("button", { type: "button", id: "report", class: "primary" }, "Download the report (PDF)");
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled")) return;
    note.textContent = "";
    button.setAttribute("aria-disabled", "true");
    try {
      const url = URL.createObjectURL(await (await request(links.report, { signal })).blob());
      el("a", { href: url, download: "osteofusion-report.pdf" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser reads it after the click
    } catch (error) {
      if (error.name !== "AbortError") note.textContent = error.message;
    }
    button.removeAttribute("aria-disabled");
  });
  return el("div", { class: "download" }, button, note);
}

/** Show what the server refused, at the field it names. */
function refuse(error) {
  const detail = error instanceof Problem ? error.message : "The answer could not be shown; reload the page and try again.";
  complain(detail);
  if (error.field === "image" && radiograph) radiograph.fail(detail);
  else if (form.byName.has(error.field)) {
    form.fail(error.field, detail);
    form.focus(error.field);
  } else $("problem").focus();
  if (!(error instanceof Problem)) throw error;
}

function complain(sentence, ...more) {
  $("problem").replaceChildren(el("p", {}, sentence), ...more);
}

function busy(on) {
  const button = $("estimate");
  button.textContent = on ? "Estimating…" : "Estimate risk";
  if (on) button.setAttribute("aria-disabled", "true");
  else button.removeAttribute("aria-disabled");
  $("result").setAttribute("aria-busy", String(on));
}

/** An answer no longer fits once the form differs from what was sent. */
function outdated() {
  $("problem").replaceChildren();
  if ($("answer").firstElementChild === EMPTY || $("answer").classList.contains("old")) return;
  $("answer").classList.add("old");
  $("stale").textContent = "The form has changed since. This result is of what stood there before: estimate again.";
}

/** Drop the last answer, and whatever is still on its way. */
function forget() {
  running.abort();
  running = new AbortController();
  overlay?.release();
  overlay = null;
  $("answer").replaceChildren(EMPTY);
  $("answer").classList.remove("old");
  $("announce").textContent = $("stale").textContent = "";
}

function newPatient() {
  forget();
  busy(false);
  radiograph?.clear();
  form?.clear();
  $("problem").replaceChildren();
  scrollTo({ top: 0 });
  (radiograph ? $("image") : $("patient")).focus({ preventScroll: true });
}

$("form").addEventListener("submit", estimate);
$("clear").addEventListener("click", newPatient);
// A page out of the browser's back-forward cache would bring the last patient back.
addEventListener("pageshow", (event) => event.persisted && newPatient());
start();
