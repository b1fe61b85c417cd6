// The ways in for photos: pick, drop (files and folders), paste, samples.

import { byId } from "./dom.js";

/** Call `onFiles(files)` whenever photos come in, `onNothing(text)` where there are none in it. */
export function takeIn(onFiles, onNothing) {
  pick(onFiles);
  drop(onFiles, onNothing);
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) onFiles(files);
  });
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", () => sample(button.dataset.sample).then(onFiles, onNothing));
  }
}

function pick(onFiles) {
  byId("choose").addEventListener("click", () => byId("files").click());
  for (const input of [byId("files"), byId("shoot")]) {
    input.addEventListener("change", () => {
      onFiles([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
  }
}

async function sample(name) {
  const failed = "The sample photo cannot be had. Is the server still running?";
  const response = await fetch(`page/samples/${name}`).catch(() => Promise.reject(failed));
  if (!response.ok) throw failed;
  const photo = await response.blob();
  return [new File([photo], name, { type: photo.type })];
}

function drop(onFiles, onNothing) {
  const veil = byId("veil");
  let depth = 0; // entering a child comes before leaving its parent
  const show = (by) => {
    depth = by === 0 ? 0 : Math.max(0, depth + by);
    veil.hidden = depth === 0;
  };
  addEventListener("dragenter", () => show(1));
  addEventListener("dragleave", () => show(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(0);
    const files = await dropped(event.dataTransfer);
    if (files.length) onFiles(files);
    else onNothing("There was no photo in that. Drop picture files, or a folder of them.");
  });
}

/** Return the files that were dropped, and the pictures in folders. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map((entry) => filesIn(entry, true)))).flat();
}

async function filesIn(entry, named) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return named || file.type.startsWith("image/") ? [file] : [];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break; // it gives at most 100 at a time
    found.push(...some);
  }
  found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(found.map((one) => filesIn(one, false)))).flat();
}
