// Answers as CSV: the columns and rows that `regnet classify --format csv` writes.

const COLUMNS = ["source", "rank", "index", "wnid", "label", "probability", "error", "model"];

/** Return the text for photos [{name, answer, error, model}]; those without either are left out. */
export function toCsv(photos) {
  const sets = photos.some((photo) => photo.answer?.set);
  const columns = sets ? [...COLUMNS, "set", "coverage"] : COLUMNS;
  const rows = photos.flatMap(rowsOf);
  return [columns, ...rows.map((row) => columns.map((column) => row[column] ?? ""))]
    .map((fields) => `${fields.map(quoted).join(",")}\n`)
    .join("");
}

function rowsOf({ name, answer, error, model }) {
  const common = { source: name, model };
  if (error) return [{ ...common, error }];
  if (!answer) return [];
  const { predictions, set, coverage } = answer;
  const scores = set && set.length > predictions.length ? set : predictions;
  return scores.map((score, at) => {
    const row = { ...common, rank: at + 1, ...score };
    return set ? { ...row, set: at < set.length, coverage } : row;
  });
}

function quoted(value) {
  const text = String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Let the browser save a text as a file. */
export function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
