// @ts-check
// The images that go with a turn, before it is sent.

import { fill, h } from "./dom.js";

export const IMAGE_TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const MAX_IMAGE_MB = 10;
const MAX_IMAGES = 8;

/**
 * @param {() => void} onChange
 * @returns {{element: HTMLElement, urls: () => string[], set: (urls: string[]) => void,
 *   add: (files: Iterable<File>) => Promise<string>}} add: gives what is wrong with a file, or ""
 */
export function createImageTray(onChange) {
  /** @type {string[]} */
  let urls = [];
  const element = h("div", { class: "thumbs", hidden: true });
  /** @param {string[]} others */
  const set = (others) => {
    urls = others;
    element.hidden = urls.length === 0;
    fill(element, urls.map((url, index) => thumb(url, index, () => set(urls.filter((_, at) => at !== index)))));
    onChange();
  };
  return {
    element,
    urls: () => urls,
    set,
    async add(files) {
      const { read, problem } = await readImages(files, MAX_IMAGES - urls.length);
      if (read.length > 0) set([...urls, ...read]);
      return problem;
    },
  };
}

/** @param {string} url @param {number} index @param {() => void} onRemove */
function thumb(url, index, onRemove) {
  const remove = h(
    "button",
    { type: "button", class: "button", "aria-label": `Remove image ${index + 1}`, on: { click: onRemove } },
    "×",
  );
  return h("div", { class: "thumb" }, h("img", { src: url, alt: `Image ${index + 1}` }), remove);
}

/** @param {Iterable<File>} files @param {number} room @returns {Promise<{read: string[], problem: string}>} */
async function readImages(files, room) {
  const read = [];
  let problem = "";
  for (const file of files) {
    if (!IMAGE_TYPES.includes(file.type)) problem = `${file.name}: PNG, JPEG, WebP and GIF are taken`;
    else if (file.size > MAX_IMAGE_MB * 1e6) problem = `${file.name}: at most ${MAX_IMAGE_MB} MB`;
    else if (read.length >= room) problem = `At most ${MAX_IMAGES} images`;
    else read.push(await dataUrl(file));
  }
  return { read, problem };
}

/** @param {File} file @returns {Promise<string>} */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(/** @type {string} */ (reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/**
 * Has files that are dropped on an element handed on.
 * @param {HTMLElement} element @param {() => boolean} isTaking @param {(files: File[]) => void} onFiles
 */
export function takeDrops(element, isTaking, onFiles) {
  const mark = (/** @type {boolean} */ on) => element.classList.toggle("dropping", on);
  element.addEventListener("dragover", (event) => {
    if (!isTaking() || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    mark(true);
  });
  element.addEventListener("dragleave", () => mark(false));
  element.addEventListener("drop", (event) => {
    mark(false);
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!isTaking() || files.length === 0) return;
    event.preventDefault();
    onFiles(files);
  });
}
