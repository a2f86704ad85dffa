// Why: the map over the radiograph, the effect of each clinical value, of each modality.

import { request } from "./api.js";
import { el, place, segments } from "./dom.js";
import { percent, words } from "./words.js";

const METHODS = [["gradcam", "Grad-CAM"], ["hirescam", "HiResCAM"], ["none", "Radiograph only"]];
const COLORMAPS = [["jet", "JET"], ["hot", "HOT"], ["viridis", "VIRIDIS"]];
const SMALLEST = 0.005; // in log-odds; below it a bar would be a hair

/** The radiograph with the map in switchable colours. */
export class Overlay {
  constructor(link, signal) {
    this.link = link;
    this.signal = signal;
    this.method = "gradcam";
    this.colormap = "jet";
    this.held = new Map(); // address -> promise of an object URL
    this.below = el("img", { class: "below", alt: "The radiograph, its contrast enhanced as the model sees it" });
    this.above = el("img", { id: "overlay", class: "above", alt: "" });
    this.note = el("p", { class: "error", role: "alert" });
    this.node = this.#build();
    this.#draw();
  }

  #build() {
    const opacity = el("input", { type: "range", id: "opacity", min: 0, max: 100, step: 5, value: 40, autocomplete: "off",
      input: () => this.#blend() });
    this.opacity = opacity;
    this.shown = el("output", { for: "opacity" });
    this.colours = segments("Colours", "colormap", COLORMAPS, this.colormap, (to) => this.#change({ colormap: to }));
    this.legend = el("p", { class: "legend" }, el("span", {}, "little"), el("span", { class: "ramp jet" }), el("span", {}, "much"));
    this.stage = el("div", { class: "stage", "aria-busy": "true" }, this.below, this.above);
    return el("section", { class: "overlay", "aria-labelledby": "overlay-title" },
      el("h3", { id: "overlay-title" }, "Which parts of the image raised the risk"),
      this.stage, this.note,
      el("div", { class: "controls" },
        segments("Map", "method", METHODS, this.method, (to) => this.#change({ method: to })),
        this.colours,
        el("div", { class: "slider" }, el("label", { for: "opacity" }, "Opacity: ", this.shown), opacity),
        this.legend),
      el("p", { class: "help" },
        "The map shows which parts of the image raised the risk, compared with its other parts: red also where the radiograph as a whole lowered it. It is not a lesion marker: it neither outlines fractures nor measures bone, and a plausible map does not make the answer right."));
  }

  #change(to) {
    Object.assign(this, to);
    this.#draw();
  }

  /** Object URL of one picture, asked for once. */
  #fetch(method, colormap, opacity) {
    const address = `${this.link}?${new URLSearchParams({ method, colormap, opacity })}`;
    if (!this.held.has(address)) {
      const url = request(address, { signal: this.signal }).then((response) => response.blob()).then(URL.createObjectURL);
      url.catch(() => this.held.delete(address));
      this.held.set(address, url);
    }
    return this.held.get(address);
  }

  /** Both layers come from the service, bare and fully coloured; the slider blends them here. */
  async #draw() {
    const { method, colormap } = this;
    const bare = method === "none";
    this.colours.disabled = this.opacity.disabled = bare;
    this.legend.hidden = bare;
    this.legend.children[1].className = `ramp ${colormap}`;
    this.stage.setAttribute("aria-busy", "true");
    try {
      const below = this.#fetch("gradcam", "jet", 0);
      const above = bare ? null : this.#fetch(method, colormap, 1);
      const [lower, upper] = await Promise.all([below, above]);
      if (method !== this.method || colormap !== this.colormap) return;
      if (this.below.getAttribute("src") !== lower) this.below.src = lower;
      if (upper) this.above.src = upper;
      this.above.hidden = bare;
      this.note.textContent = "";
      this.#blend();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.above.hidden = true;
      this.note.textContent = error.message;
    }
    this.stage.setAttribute("aria-busy", "false");
  }

  #blend() {
    const share = `${this.opacity.value} %`;
    this.shown.textContent = share;
    this.above.style.opacity = this.opacity.value / 100;
    const [named, coloured] = [METHODS, COLORMAPS].map((from, i) => new Map(from).get([this.method, this.colormap][i]));
    this.above.alt = `${named} map in ${coloured} colours over the radiograph at ${share} opacity: which parts moved the risk up, no marker of a lesion`;
  }

  async release() {
    for (const url of this.held.values()) await url.then(URL.revokeObjectURL, () => {});
  }
}

/** What raised and lowered the risk, and how far each modality moved it. */
export function reasons({ attributions, modalities }, prediction, form) {
  const byName = new Map(prediction.values.map((value) => [value.name, value]));
  const furthest = Math.max(...attributions.map((item) => Math.abs(item.log_odds)), 0.1);
  const rows = attributions.map((item) => {
    const { label, value } = byName.get(item.name);
    return row(`${label}: ${form.said(item.name, value)}`, item.log_odds, furthest,
      `${direction(item.log_odds)}, ${percent(item.risk_without)}\u00a0→\u00a0${percent(prediction.risk)}`,
      `instead of ${form.typical(item.name)}`);
  });
  return [
    rows.length ? el("section", { id: "attributions", "aria-labelledby": "attributions-title" },
      el("h3", { id: "attributions-title" }, "What the clinical values did"),
      el("p", { class: "help" },
        "Each value against the baseline: the same patient with that one value replaced by the median of the training rows (numbers) or their most frequent answer. Bars are log-odds; the figures are the risk with the replacement, then as given. The effects do not add up, and none is a cause."),
      el("div", { class: "sides", "aria-hidden": "true" }, el("span", {}, "lowered"), el("span", {}, "raised")),
      el("ul", { class: "effects" }, rows)) : null,
    shares(modalities),
  ];
}

function shares(modalities) {
  const entries = Object.entries(modalities);
  if (!entries.length) return null;
  const names = { image: "Radiograph", clinical: "Clinical values" };
  const furthest = Math.max(...entries.map(([, value]) => Math.abs(value)), 0.1);
  return el("section", { id: "modalities", "aria-labelledby": "modalities-title" },
    el("h3", { id: "modalities-title" }, "Radiograph and clinical values"),
    el("p", { class: "help" }, "How far the answer moves, in log-odds, against leaving that part out altogether."),
    el("ul", { class: "effects" }, entries.map(([name, value]) =>
      row(names[name] ?? words(name), value, furthest, Math.abs(value) < SMALLEST ? direction(value) : `${direction(value)} by ${Math.abs(value).toFixed(2)}`))));
}

function row(label, effect, furthest, said, beside = null) {
  const width = Math.abs(effect) / furthest / 2;
  const small = Math.abs(effect) < SMALLEST;
  const bar = place(el("span", { class: effect > 0 ? "raised" : "lowered" }),
    small ? { width: 0 } : { width, left: effect > 0 ? 0.5 : 0.5 - width });
  return el("li", {}, el("span", { class: "what" }, label, beside ? el("small", {}, ` ${beside}`) : null),
    el("span", { class: "effect", "aria-hidden": "true" }, bar), el("span", { class: "said" }, said));
}

function direction(effect) {
  if (Math.abs(effect) < SMALLEST) return "no change";
  return effect > 0 ? "▲ raised" : "▼ lowered";
}
