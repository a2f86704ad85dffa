// Elements without HTML strings: whatever the server says ends up as text.

export const $ = (id) => document.getElementById(id);

/** An element; attributes that are null or false are left out, functions listen. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Place by percentages. The content security policy forbids style attributes, not this. */
export function place(node, sides) {
  for (const [side, share] of Object.entries(sides)) {
    node.style[side] = `${100 * Math.min(1, Math.max(0, share))}%`;
  }
  return node;
}

/** A set of radio buttons in one row; `change` is given the chosen value. */
export function segments(legend, name, options, chosen, change) {
  const inputs = options.map(([value, label]) => {
    const input = el("input", {
      type: "radio", name, id: `${name}-${value}`, value, checked: value === chosen,
      change: () => change?.(value),
    });
    return [input, el("label", { for: input.id }, label)];
  });
  return el("fieldset", { class: "segments" }, el("legend", {}, legend),
    el("div", { class: "options" }, inputs));
}
