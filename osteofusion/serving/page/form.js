// The form of clinical values, made from the schema's features.

import { $, el, segments } from "./dom.js";
import { number, quantity, rough, unitWords, words } from "./words.js";

const NUMBER = /^[+-]?(\d+[.,]?\d*|[.,]\d+)$/;
const TITLES = { numeric: "Measurements", yes: "Yes or no", categorical: "In words" };
const titleOf = (feature) => TITLES[feature.kind] ?? TITLES.yes;

export class ClinicalForm {
  /** `changed` is called whenever a value is. */
  constructor(features, changed) {
    this.features = features;
    this.byName = new Map(features.map((feature) => [feature.name, feature]));
    this.changed = changed;
    $("fields").replaceChildren(...Object.values(TITLES).map((title) => this.#part(title)).filter(Boolean));
    this.#gate();
  }

  #part(title) {
    const mine = this.features.filter((feature) => titleOf(feature) === title);
    if (!mine.length) return null;
    const id = `part-${title.replaceAll(" ", "-")}`;
    return el("div", { class: "part", role: "group", "aria-labelledby": id },
      el("h3", { id }, title),
      el("div", { class: title === TITLES.yes ? "choices" : "entries" },
        mine.map((feature) => this.#field(feature))));
  }

  #field(feature) {
    const { name, kind } = feature;
    const parts = kind === "numeric" ? this.#numeric(feature)
      : kind === "categorical" ? this.#select(feature) : [this.#choice(feature)];
    return el("div", { class: "field", id: `field-${name}` }, parts,
      el("p", { class: "notice", id: `notice-${name}`, role: "status" }),
      el("p", { class: "error", id: `error-${name}`, hidden: true }));
  }

  #numeric(feature) {
    const { name, unit, range, train } = feature;
    const usual = train.low === null ? null : `usual ${rough(train.low)} to ${rough(train.high)}`;
    const plausible = range && `${number(range[0])} to ${number(range[1])}`;
    return [
      el("label", { for: `f-${name}` }, feature.label, " ",
        unitWords(unit) ? el("span", { class: "unit" }, unitWords(unit)) : null),
      el("input", {
        id: `f-${name}`, name, type: "text", inputmode: "decimal", autocomplete: "off",
        "aria-describedby": `help-${name} notice-${name} error-${name}`,
        input: () => this.#edited(name), change: () => this.check(name),
      }),
      el("p", { class: "help", id: `help-${name}` }, [plausible, usual].filter(Boolean).join("; ")),
    ];
  }

  #select(feature) {
    const { name } = feature;
    return [
      el("label", { for: `f-${name}` }, feature.label),
      el("select", {
        id: `f-${name}`, name, autocomplete: "off",
        "aria-describedby": `help-${name} notice-${name} error-${name}`,
        change: () => this.#edited(name),
      },
      el("option", { value: "" }, "Not known"),
      feature.vocabulary.map((word) => el("option", { value: word }, words(word)))),
      el("p", { class: "help", id: `help-${name}` }, "Words that the training rows had"),
    ];
  }

  #choice(feature) {
    const options = [["", "Unknown"], ["0", answer(feature, 0)], ["1", answer(feature, 1)]];
    const group = segments(feature.label, feature.name, options, "", () => this.#edited(feature.name));
    group.id = `f-${feature.name}`;
    group.setAttribute("aria-describedby", `notice-${feature.name} error-${feature.name}`);
    return group;
  }

  #edited(name) {
    this.fail(name, null);
    this.#notice(name);
    this.#gate();
    this.changed();
  }

  /** What stands in the form under a name: text, a word, "0", "1", or "" for nothing. */
  raw(name) {
    const control = $(`f-${name}`);
    if (control.disabled) return "";
    if (control.tagName !== "FIELDSET") return control.value.trim();
    return control.querySelector("input:checked")?.value ?? "";
  }

  /** The number that stands there; null if none does. */
  #number(name) {
    const text = this.byName.has(name) ? this.raw(name) : "";
    const value = NUMBER.test(text) ? Number(text.replace(",", ".")) : NaN;
    return Number.isFinite(value) ? value : null;
  }

  /** Fields that make no sense beside another answer are switched off, and say why. */
  #gate() {
    for (const feature of this.features) {
      const against = Object.entries(feature.only_if ?? {}).find(([other, wanted]) => {
        const given = this.#number(other);
        return given !== null && given !== wanted;
      });
      const control = $(`f-${feature.name}`);
      if (Boolean(against) === control.disabled) continue;
      control.disabled = Boolean(against);
      if (against) this.fail(feature.name, null);
      const [other, wanted] = against ?? [];
      const cause = this.byName.get(other);
      $(`notice-${feature.name}`).textContent = against
        ? `Not used: asked only where “${cause.label}” is “${answer(cause, wanted)}”.` : "";
    }
  }

  /** What is worth knowing about a value that may stand. */
  #notice(name) {
    const { kind, train, unit } = this.byName.get(name);
    let said = "";
    if (kind === "numeric") {
      const value = this.#number(name);
      if (value !== null && train.low !== null && (value < train.low || value > train.high)) {
        said = `Unusual: of the patients it learnt from, 98 in 100 had ${rough(train.low)} to ` +
          `${rough(train.high)} ${unitWords(unit)}`.trim() + ".";
      }
    } else if (kind !== "categorical" && this.raw(name) !== "") {
      const answered = this.raw(name) === "1" ? "yes" : "no";
      if (!train.counts[answered]) said = "No patient it learnt from had this answer.";
    }
    $(`notice-${name}`).textContent = said;
  }

  /** Why a value cannot stand; null if it can. */
  #fault(name) {
    const { label, kind, range, unit, at_most: most } = this.byName.get(name);
    const text = this.raw(name);
    if (kind !== "numeric" || text === "") return null;
    const value = this.#number(name);
    if (value === null) return `${label} is not a number; write it like 62.5 or 62,5.`;
    if (range && (value < range[0] || value > range[1])) {
      const metres = unit === "m" && value / 100 >= range[0] && value / 100 <= range[1];
      return metres ? `${label} is asked in metres: ${number(value)} cm are ${number(value / 100)} m.`
        : `${label} must lie between ${number(range[0])} and ${quantity(range[1], unit)}.`;
    }
    const ceiling = most ? this.#number(most) : null;
    return ceiling !== null && value > ceiling
      ? `${label} cannot exceed ${this.byName.get(most).label}.` : null;
  }

  /** Hold one field to its rules and say beside it what is wrong. */
  check(name) {
    const fault = this.#fault(name);
    if (fault) $(`notice-${name}`).textContent = "";
    this.fail(name, fault);
    return fault;
  }

  /** Names of the fields that cannot stand. */
  faults() {
    return this.features.map((feature) => feature.name).filter((name) => this.check(name));
  }

  fail(name, sentence) {
    $(`error-${name}`).textContent = sentence ?? "";
    $(`error-${name}`).hidden = !sentence;
    const control = $(`f-${name}`);
    for (const input of control.tagName === "FIELDSET" ? control.querySelectorAll("input") : [control]) {
      if (sentence) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
  }

  focus(name) {
    const control = $(`f-${name}`);
    (control.tagName === "FIELDSET" ? control.querySelector("input:checked") : control).focus();
  }

  /** What is known, by canonical name, as the service reads it. */
  values() {
    const known = this.features.filter(({ name }) => this.raw(name) !== "");
    return Object.fromEntries(known.map(({ name, kind }) => [name, this.#sent(name, kind)]));
  }

  #sent(name, kind) {
    if (kind === "categorical") return this.raw(name);
    if (kind === "presence") return this.raw(name) === "1" ? "yes" : "no";
    return this.#number(name);
  }

  /** How a value that the model read is said. */
  said(name, value) {
    const feature = this.byName.get(name);
    if (value === null) return "not known";
    if (typeof value === "string") return words(value);
    return feature.kind === "numeric" ? quantity(value, feature.unit) : answer(feature, value);
  }

  /** What attributions compare with: the training median, or the most frequent answer. */
  typical(name) {
    const { train } = this.byName.get(name);
    if (train.median !== null) return this.said(name, train.median);
    const [[most] = [null]] = Object.entries(train.counts).sort((a, b) => b[1] - a[1]);
    return this.said(name, most === "yes" ? 1 : most === "no" ? 0 : most);
  }

  clear() {
    $("form").reset();
    for (const { name } of this.features) {
      this.fail(name, null);
      $(`notice-${name}`).textContent = "";
    }
    this.#gate();
  }
}

/** Yes and no, or the manifest's own words for them (female, male). */
function answer(feature, value) {
  const own = Object.entries(feature.spellings ?? {}).find(([, meant]) => meant === value);
  const said = feature.kind === "binary" && own ? own[0] : value ? "yes" : "no";
  return said[0].toUpperCase() + said.slice(1);
}
