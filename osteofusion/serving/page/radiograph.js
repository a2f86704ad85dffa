// The radiograph: chosen, dropped or pasted, shown, removed.

import { $ } from "./dom.js";
import { fileSize } from "./words.js";

const SHOWN = /^image\/(png|jpeg)$/;

export class Radiograph {
  /** `changed` is called whenever another file, or none, is held. */
  constructor(limit, changed) {
    this.file = null;
    this.limit = limit;
    this.changed = changed;
    this.preview = null;
    // No `accept`: DICOM files often have no extension, and would be greyed out.
    $("image").addEventListener("change", () => this.take($("image").files));
    $("remove").addEventListener("click", () => {
      this.clear();
      $("image").focus();
    });
    $("preview").addEventListener("error", () => ($("preview").hidden = true));
    this.#listen();
    $("radiograph").hidden = false;
  }

  #listen() {
    const mark = (on) => $("drop").classList.toggle("over", on);
    // On the whole page: a file that misses the field must not replace the page.
    addEventListener("dragover", (event) => {
      event.preventDefault();
      mark(true);
    });
    addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
    addEventListener("drop", (event) => {
      event.preventDefault();
      mark(false);
      this.take(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => {
      if (!event.clipboardData?.files.length) return;
      event.preventDefault();
      this.take(event.clipboardData.files);
    });
  }

  take(files) {
    const [file, ...others] = files; // before clear(), which empties the input's list
    if (!file) return;
    if (others.length) {
      this.fail(`These are ${files.length} files; give one radiograph at a time.`);
      return;
    }
    this.clear();
    if (this.limit && file.size > this.limit) {
      this.fail(`The file has ${fileSize(file.size)}; this service takes up to ${fileSize(this.limit)}.`);
      return;
    }
    this.file = file;
    $("file-name").textContent = file.name;
    $("file-size").textContent = fileSize(file.size);
    if (SHOWN.test(file.type)) {
      this.preview = URL.createObjectURL(file);
      $("preview").src = this.preview;
      $("preview").hidden = false;
    }
    this.#showChosen(true);
    this.changed();
  }

  #showChosen(on) {
    $("chosen").hidden = !on;
    $("drop").classList.toggle("filled", on);
    $("choose").textContent = on ? "Choose another" : "Choose a radiograph";
  }

  fail(sentence) {
    $("image-error").textContent = sentence;
    $("image-error").hidden = false;
    $("image").setAttribute("aria-invalid", "true");
    $("image").focus();
  }

  clear() {
    $("image").value = "";
    $("image").removeAttribute("aria-invalid");
    $("image-error").textContent = "";
    $("image-error").hidden = true;
    $("preview").hidden = true;
    $("preview").removeAttribute("src");
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.#showChosen(false);
    const held = this.file !== null;
    this.file = this.preview = null;
    if (held) this.changed();
  }
}
