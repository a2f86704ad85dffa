// The answer: risk in words and on a scale, classes, band, rules, flags, prevalence.

import { el, place } from "./dom.js";
import { atPrevalence, condition, number, people, percent, words } from "./words.js";

const BANDS = {
  rule_out: ["Rule out", (what) => `Below the lower threshold: these findings make ${what} unlikely. Earlier fractures, medication or other risk factors may still call for a bone density measurement (DXA).`],
  dxa: ["DXA advised", (what) => `Between the thresholds: these findings do not settle whether ${what} is present. A bone density measurement (DXA) does.`],
  rule_in: ["Rule in", (what) => `At or above the upper threshold: these findings make ${what} likely. A bone density measurement (DXA) confirms or refutes it.`],
};
const RULES = {
  fixed_sensitivity: (target) => `Made to find ${target ? percent(target) : "most"} of cases`,
  fixed_specificity: (target) => `Made to clear ${target ? percent(target) : "most"} of the others`,
  youden: () => "Best balance (Youden)",
};

/** Every part of the answer that needs no further request. */
export function answer(prediction, schema, form) {
  return [
    headline(prediction, schema),
    flags(prediction),
    el("div", { class: "half" }, band(prediction, schema), classes(prediction), inputs(prediction, form)),
    el("div", { class: "half" }, rules(prediction, schema)),
    prevalence(prediction, schema),
  ];
}

/** What a screen reader hears when the answer is there. */
export function spoken({ risk, band: found, flags: raised }, { positive }) {
  const said = [`Risk of ${condition(positive)}: ${percent(risk)}, ${people(risk)} people.`];
  if (found) said.push(`Band: ${BANDS[found][0]}.`);
  if (raised.length) said.push(raised.length === 1 ? "1 warning." : `${raised.length} warnings.`);
  return said.join(" ");
}

function headline({ risk }, schema) {
  const what = condition(schema.positive);
  return el("div", { class: "headline" },
    el("p", { class: "figure" }, el("data", { id: "risk", value: risk }, percent(risk)),
      el("span", {}, `risk of ${what}`)),
    el("p", { id: "plain", class: "plain" },
      `${capital(people(risk))} people with such findings have ${what}.`),
    scale(risk, schema),
    el("p", { class: "help" },
      `Among people like those of the cohort behind this model, where ${percent(schema.cohort_prevalence)} had ${what}. `,
      el("a", { href: "#prevalence-title" }, "Your clinic’s share will differ."), " Not a diagnosis."));
}

function scale(risk, { triage, operating_points: points }) {
  const edges = triage ? [0, triage.rule_out, triage.rule_in, 1].map((edge) => Math.min(1, edge)) : [0, 1];
  const names = triage ? Object.keys(BANDS) : ["dxa"];
  const zones = names.map((name, i) =>
    place(el("span", { class: `zone ${triage ? name : "none"}` }), { left: edges[i], width: edges[i + 1] - edges[i] }));
  const marks = points.filter((point) => point.threshold <= 1).map((point) =>
    place(el("span", { class: "mark" }), { left: point.threshold }));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) =>
    place(el("span", {}, `${100 * share}`), { left: share }));
  const key = triage && names.map((name, i) => el("li", {}, el("span", { class: `swatch ${name}` }),
    `${BANDS[name][0]}: ${[`below ${percent(edges[1])}`, `${percent(edges[1])} to ${percent(edges[2])}`, `from ${percent(edges[2])}`][i]}`));
  return el("figure", { class: "scale" },
    el("div", { class: "track", role: "img", "aria-label": `Scale from 0 to 100 %, risk at ${percent(risk)}` },
      zones, marks, place(el("span", { class: "needle" }), { left: risk })),
    el("div", { class: "ticks", "aria-hidden": "true" }, ticks),
    el("figcaption", {}, key ? el("ul", { class: "key" }, key) : "No triage bands could be chosen for this model.",
      marks.length ? el("p", {}, "Thin lines: thresholds of the operating points below.") : null));
}

function flags({ flags: raised }) {
  if (!raised.length) return null;
  return el("section", { class: "flags", "aria-labelledby": "flags-title" },
    el("h3", { id: "flags-title" }, "Be careful with this answer"),
    el("ul", {}, raised.map((flag) => el("li", { "data-field": flag.field }, flag.message))));
}

function band({ band: found }, { positive, triage, decision_note: note }) {
  if (!found) return note ? el("p", { class: "help" }, note) : null;
  const [name, meaning] = BANDS[found];
  const reached = triage.reached?.[found];
  return el("section", { class: `band ${found}`, "aria-labelledby": "band-title" },
    el("h3", { id: "band-title" }, "Band: ", el("span", { id: "band" }, name)),
    el("p", {}, capital(meaning(condition(positive)))),
    reached && el("p", { class: "help" },
      `Of the test patients with ${condition(positive)}, ${share(reached.of_low)} fell into this band; of the others, ${share(reached.of_normal)}.`));
}

function inputs({ image_present: image, clinical_present: clinical, values }, form) {
  const given = values.filter((value) => value.source !== "missing");
  const read = given.filter((value) => value.value !== null);
  const source = { form: "form", dicom: "DICOM header" };
  return el("section", { "aria-labelledby": "inputs-title" },
    el("h3", { id: "inputs-title" }, "What it rests on"),
    el("ul", { class: "chips" },
      el("li", { class: image ? "on" : "off" }, image ? "Radiograph: used" : "Radiograph: none"),
      el("li", { class: clinical ? "on" : "off" }, clinical ? `Clinical values: ${read.length} of ${values.length}` : "Clinical values: none")),
    given.length ? el("details", {}, el("summary", {}, "Values as the model read them"),
      el("ul", { class: "values" }, given.map((value) => el("li", {}, el("span", {}, value.label),
        el("strong", {}, value.value === null ? "left out" : form.said(value.name, value.value)),
        el("span", { class: "help" }, source[value.source], value.mark ? `, ${MARKS[value.mark]}` : ""))))) : null);
}

const MARKS = {
  outside_range: "outside the plausible range, left out",
  outside_training: "unlike the training cases",
  unseen_word: "word not seen in training",
  suspected_unit: "unit in doubt",
};

function classes({ label, probabilities }) {
  return el("section", { "aria-labelledby": "classes-title" },
    el("h3", { id: "classes-title" }, "Most probable class: ", el("span", { id: "class" }, words(label))),
    el("ul", { class: "bars" }, Object.entries(probabilities).map(([name, value]) =>
      el("li", { class: name === label ? "most" : null }, el("span", {}, words(name)),
        el("span", { class: "bar" }, place(el("span", {}), { width: value })),
        el("data", { value }, percent(value))))));
}

function rules({ calls }, { positive, operating_points: points, decision_note: note }) {
  const known = new Map(points.map((point) => [point.name, point]));
  const items = calls.map((call) => {
    const point = known.get(call.name);
    return el("li", {}, el("p", { class: "verdict" }, el("strong", {}, RULES[call.name]?.(point?.target) ?? words(call.name)),
      el("span", { class: call.low_bmd ? "yes" : "no" }, call.low_bmd ? `calls ${positive}` : `does not call ${positive}`)),
    el("p", { class: "help" }, call.threshold > 1 ? "Calls nobody. " : `Calls ${positive} from a risk of ${percent(call.threshold)}. `,
      point && `Reached on test patients: sensitivity ${share(point.sensitivity)}, specificity ${share(point.specificity)}.`));
  });
  return el("section", { "aria-labelledby": "rules-title" }, el("h3", { id: "rules-title" }, "Operating points"),
    items.length ? el("ul", { class: "rules" }, items) : el("p", { class: "help" }, note ?? "None could be chosen for this model."),
    points.length ? el("p", { id: "chosen-on", class: "help" }, `Thresholds, those of the bands too, were chosen on ${points[0].chosen_on}.`) : null);
}

/** A share with its 95 % interval and the number of cases behind it. */
function share({ value, low, high, n }) {
  if (value === null) return "not known (no such case)";
  const interval = low === null ? "" : `95 % interval ${percent(low)} to ${percent(high)}; `;
  return `${percent(value)} (${interval}n\u00a0=\u00a0${n})`;
}

function prevalence({ risk }, { positive, cohort_prevalence: cohort }) {
  const what = condition(positive);
  const start = Math.min(99, Math.max(1, Math.round(100 * cohort)));
  const slider = el("input", {
    type: "range", id: "prevalence", min: 1, max: 99, step: 1, value: start, autocomplete: "off",
    "aria-describedby": "adjusted-plain", input: () => show(Number(slider.value)),
  });
  const chosen = el("output", { for: "prevalence" });
  const adjusted = el("data", { id: "adjusted" });
  const plain = el("p", { id: "adjusted-plain", class: "plain", "aria-live": "polite" });
  const fill = el("span", {});
  const reset = el("button", { type: "button", class: "quiet", click: () => show((slider.value = start)) },
    "Back to the cohort’s");

  function show(of100) {
    // The slider stands on whole numbers; untouched it means the cohort's own share.
    const there = of100 === start ? cohort : of100 / 100;
    const moved = atPrevalence(risk, cohort, there);
    chosen.textContent = `${of100} in 100`;
    slider.setAttribute("aria-valuetext", `${of100} in 100 have ${what}`);
    adjusted.value = moved;
    adjusted.textContent = percent(moved);
    place(fill, { width: moved });
    plain.textContent = `Where ${of100} in 100 have ${what}, such findings mean ${percent(moved)}: ${people(moved)}.`;
    reset.disabled = of100 === start;
  }

  show(start);
  return el("section", { class: "prevalence", "aria-labelledby": "prevalence-title" },
    el("h3", { id: "prevalence-title", tabindex: -1 }, "In your clinic"),
    el("p", { class: "help" },
      `In the cohort behind this model ${number(Math.round(1000 * cohort) / 10)} in 100 had ${what}. That is not your clinic’s share: set how many of those you would examine have it.`),
    el("label", { for: "prevalence" }, `People with ${what} in your clinic: `, chosen), slider,
    el("div", { class: "row" }, el("p", { class: "figure small" }, adjusted), el("span", { class: "bar" }, fill), reset), plain,
    el("p", { class: "help" }, "Bayes’ rule, with sensitivity and specificity as in the cohort. Bands and operating points stay as they are: their thresholds were chosen at the cohort’s share."));
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
