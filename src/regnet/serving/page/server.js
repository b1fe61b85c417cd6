// Requests to the server that this page is from, and what goes wrong with them in words.

const TOKEN = "regnet-token"; // in sessionStorage: it ends with the tab
const TRIES = 6;
const LARGE = 8e6; // bytes

export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** Return {models, default}: what is served. */
export const listModels = () => request("v1/models", {});

/** Return the answer for one photo (a Blob); its time with the network is in `answer.round_ms`. */
export async function classify(photo, { model, sets = false, explain = false, signal }) {
  const options = new URLSearchParams({ model, sets, explain });
  const headers = { "Content-Type": isImage(photo) ? photo.type : "application/octet-stream" };
  const start = performance.now();
  const init = { method: "POST", body: photo, headers, signal };
  const answer = await request(`v1/classify?${options}`, init);
  return { ...answer, round_ms: performance.now() - start };
}

const isImage = (photo) => /^image\/[\w.+-]+$/.test(photo.type);

/** Return the JSON of an answer; a server that is full is asked again when it says. */
async function request(path, init) {
  for (let tried = 1; ; tried += 1) {
    const response = await reach(path, init);
    const body = await response.json().catch(() => null);
    if (response.ok && body !== null) return body;
    if (response.status !== 429 || tried === TRIES) throw refused(response, body);
    await pause(Number(response.headers.get("Retry-After")) || 1, init.signal);
  }
}

async function reach(path, init) {
  const headers = { ...init.headers };
  if (hasToken()) headers.Authorization = `Bearer ${sessionStorage.getItem(TOKEN)}`;
  try {
    return await fetch(path, { ...init, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const size = init.body?.size ?? 0; // a server may hang up on what is over its limit
    const photo = size > LARGE ? `The photo of ${megabytes(size)} may be too large for it. ` : "";
    throw new ServerError(`${photo}The server cannot be reached. Is it still running?`);
  }
}

function refused(response, body) {
  const fallback = `The server answered ${response.status} ${response.statusText}`.trim();
  const text = body?.predictions?.[0]?.error ?? body?.error ?? fallback;
  return new ServerError(inWords(text), response.status);
}

/** Return an error for people: sizes in MB, without the name of the server's limit at its end. */
const inWords = (text) =>
  sentence(text.replace(/^the body/, "the photo"))
    .replace(/([\d,]{5,}) bytes/g, (_, digits) => megabytes(Number(digits.replaceAll(",", ""))))
    .replace(/ \(\w+\)$/, "");

const megabytes = (bytes) => `${Number((bytes / 1e6).toPrecision(bytes < 1e8 ? 2 : 3))} MB`;

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
