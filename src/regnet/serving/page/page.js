// The page: photos come in, go to the server a few at a time, and their answers are shown.

import { answerView, errorView, waitingView } from "./answer.js";
import { Camera, cameraIsThere, whyNoCamera } from "./camera.js";
import { download, toCsv } from "./csv.js";
import { byId, names, percent } from "./dom.js";
import { Grid } from "./grid.js";
import { drawHeat } from "./heat_map.js";
import { takeIn } from "./intake.js";
import { classify, hasToken, listModels, setToken } from "./server.js";

const AT_ONCE = 4; // photos on their way to the server

// A photo is {name, file, url, state, model, answer, times, error, hopeless, explanation, noHeat}; its
// state goes from "waiting" over "working" to "done" or "failed".
const photos = [];
let models = [];
let model = null; // the chosen one of /v1/models
let selected = null;
let stopAll = new AbortController(); // ends what is on its way for another model

const grid = new Grid(byId("grid"), select);
const camera = new Camera(byId("video"), lookAt, stopCamera);

// --- photos ---------------------------------------------------------------------------------

function addPhotos(files) {
  if (!files.length) return;
  const added = files.map((file) => ({
    name: file.name || "photo",
    file,
    url: URL.createObjectURL(file),
    state: "waiting",
  }));
  photos.push(...added);
  added.forEach((photo) => grid.add(photo));
  select(added[0], false);
  work();
}

function clearPhotos() {
  cancelWork();
  photos.forEach((photo) => URL.revokeObjectURL(photo.url));
  photos.length = 0;
  grid.clear();
  selected = null;
  showCount();
  byId("answer").hidden = true;
  say("All photos are removed.");
  byId("choose").focus();
}

/** Send what waits, as many at once as may be. */
function work() {
  const busy = photos.filter((photo) => photo.state === "working").length;
  const next = model ? photos.filter((photo) => photo.state === "waiting") : [];
  next.slice(0, AT_ONCE - busy).forEach(classifyPhoto);
  showCount();
}

async function classifyPhoto(photo) {
  const { signal } = stopAll;
  const asked = model;
  photo.state = "working";
  try {
    const found = await classify(photo.file, { model: asked.name, sets: asked.calibrated, signal });
    setState(photo, "done", { answer: found.predictions[0], times: found, model: asked.name });
  } catch (error) {
    if (signal.aborted || !photos.includes(photo)) return;
    if (error.status === 401) {
      photo.state = "waiting";
      askToken();
      return;
    }
    const hopeless = error.status === 413 || error.status === 422; // it is the photo's fault
    setState(photo, "failed", { error: error.message, hopeless, model: asked.name });
    if (error.status === 404) loadModels(); // the model has gone
  }
  tell(photo);
  work();
}

function setState(photo, state, more = {}) {
  Object.assign(photo, { state, answer: null, error: null, explanation: null, noHeat: null }, more);
  grid.update(photo);
  if (photo === selected) show(photo);
}

function cancelWork() {
  stopAll.abort();
  stopAll = new AbortController();
}

function tell({ name, state, answer, error }) {
  const left = photos.filter((photo) => !isOver(photo)).length;
  const failed = photos.filter((photo) => photo.state === "failed").length;
  const also = failed ? `, ${failed} of them without an answer` : "";
  if (photos.length > 1) {
    if (!left) say(`${photos.length} photos are done${also}.`);
  } else say(state === "done" ? `${name}: ${spoken(answer)}` : `${name}: ${error}`);
}

const isOver = (photo) => photo.state === "done" || photo.state === "failed";

const spoken = ({ predictions: [top] }) => `${names(top.label)[0]}, ${percent(top.probability)}`;

const say = (text) => byId("status").replaceChildren(text);

// --- what is shown --------------------------------------------------------------------------

function select(photo, far) {
  selected = photo;
  grid.select(photo);
  const image = byId("photo");
  byId("no-preview").hidden = true;
  image.hidden = false;
  image.src = photo.url;
  byId("file").replaceChildren(photo.name);
  show(photo);
  byId("answer").hidden = false;
  if (far) byId("answer").scrollIntoView({ block: "nearest" });
}

function show(photo) {
  byId("photo").alt = photo.answer ? `${photo.name}: ${spoken(photo.answer)}` : photo.name;
  byId("said").replaceChildren(...saidOf(photo));
  showHeat(photo);
  if (photo.state === "done" && !photo.explanation && !photo.noHeat) explain(photo);
}

function saidOf(photo) {
  if (photo.state === "done") return answerView(photo.answer, photo.times);
  if (photo.state === "failed") return errorView(photo.error, photo.hopeless ? null : () => again([photo]));
  return waitingView(model ? "Classifying" : "Waiting for the server");
}

function again(chosen) {
  chosen.forEach((photo) => setState(photo, "waiting"));
  work();
}

function showCount() {
  const done = photos.filter(isOver).length;
  document.body.classList.toggle("has-photos", photos.length > 0);
  document.body.classList.toggle("has-several", photos.length > 1);
  byId("all").hidden = !photos.length;
  byId("count").replaceChildren(photos.length === 1 ? "1 photo" : `${photos.length} photos`);
  byId("csv").disabled = done === 0;
  Object.assign(byId("done"), { max: photos.length || 1, value: done });
  byId("done").hidden = photos.length < 2 || done === photos.length;
}

byId("photo").addEventListener("load", ({ target }) => {
  byId("stage").style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
});
byId("photo").addEventListener("error", ({ target }) => {
  target.hidden = true;
  byId("no-preview").hidden = false;
});

// --- heat map -------------------------------------------------------------------------------

/** Fetch the map of the photo that is looked at: the answer itself did not have to wait for it. */
async function explain(photo) {
  const { signal } = stopAll;
  const asked = models.find(({ name }) => name === photo.model);
  if (!asked?.explainable) return;
  photo.noHeat = "looking";
  try {
    const found = await classify(photo.file, { model: asked.name, explain: true, signal });
    photo.explanation = found.predictions[0].explanation;
  } catch (error) {
    if (signal.aborted) return;
    photo.noHeat = error.message;
  }
  if (photo === selected) showHeat(photo);
}

function showHeat({ state, explanation, noHeat }) {
  const shown = Boolean(explanation) && !byId("photo").hidden;
  byId("heat").hidden = !shown;
  byId("heat-control").hidden = state === "failed" || !model?.explainable;
  byId("opacity").disabled = !shown;
  const failed = noHeat && noHeat !== "looking" ? `No heat map: ${noHeat}` : "Heat map";
  const text = shown ? `Where it sees ${names(explanation.label)[0]}` : failed;
  byId("heat-text").replaceChildren(text);
  if (shown) blend();
}

function blend() {
  const { value } = byId("opacity");
  byId("opacity-value").value = `${value} %`;
  if (selected?.explanation) drawHeat(byId("heat"), selected.explanation, value / 100);
}

byId("opacity").addEventListener("input", blend);

// --- models and the token -------------------------------------------------------------------

async function loadModels() {
  byId("notice").hidden = true;
  try {
    const found = await listModels();
    models = found.models;
    const named = (name) => models.find((one) => one.name === name);
    model = named(model?.name) ?? named(found.default) ?? models[0] ?? null;
    showModels();
    if (model) work();
    else notify("The server has no model at the moment.", true);
  } catch (error) {
    if (error.status === 401) askToken();
    else notify(error.message, true);
  }
}

function showModels() {
  byId("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  byId("model").disabled = !model;
  if (model) showModel();
}

function showModel() {
  byId("model").value = model.name;
  const { classes, crop, precision, calibrated, coverage } = model;
  const facts = [`${classes} classes`, `sees ${crop} × ${crop} pixels`, precision];
  if (calibrated) facts.push(`calibrated for ${Number((100 * coverage).toFixed(1))} %`);
  byId("model-facts").replaceChildren(facts.join(" · "));
  const assumed = model.assumed ?? [];
  byId("assumed").replaceChildren(`Assumed about this model: ${assumed.join("; ")}`);
  byId("assumed").hidden = !assumed.length;
}

byId("model").addEventListener("change", ({ target }) => {
  model = models.find(({ name }) => name === target.value);
  showModel();
  cancelWork();
  again(photos);
});

function notify(text, retry = false) {
  byId("notice-text").replaceChildren(text);
  byId("notice-retry").hidden = !retry;
  byId("notice").hidden = false;
}

byId("notice-retry").addEventListener("click", loadModels);

function askToken() {
  if (byId("ask-token").open) return;
  byId("token-wrong").hidden = !hasToken();
  setToken(null);
  byId("ask-token").showModal();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  byId("ask-token").close();
  loadModels();
});
byId("token-cancel").addEventListener("click", () => byId("ask-token").close());
byId("ask-token").addEventListener("close", () => {
  if (!hasToken()) notify("Without a token this server answers nothing.", true);
});

// --- camera ---------------------------------------------------------------------------------

async function startCamera() {
  if (!cameraIsThere()) {
    byId("shoot").click(); // the page has no https, so a phone's own camera takes the picture
    return;
  }
  byId("camera").disabled = true; // until the browser's own question is answered
  try {
    byId("live-answer").replaceChildren(...waitingView("Looking"));
    await camera.start();
    byId("live").hidden = false;
    document.body.classList.add("has-camera");
    byId("stop").focus();
    say("The camera is on.");
  } catch (error) {
    camera.stop();
    notify(whyNoCamera(error));
  } finally {
    byId("camera").disabled = false;
  }
}

function stopCamera() {
  camera.stop();
  byId("live").hidden = true;
  document.body.classList.remove("has-camera");
  byId("camera").focus();
  say("The camera is off.");
}

async function lookAt(picture) {
  if (!model) return;
  try {
    const found = await classify(picture, { model: model.name, sets: model.calibrated });
    if (!camera.runs) return;
    showLive(answerView(found.predictions[0], found));
    tellLive(spoken(found.predictions[0]), found.predictions[0].predictions[0].index);
  } catch (error) {
    if (error.status === 401) askToken();
    if (camera.runs) showLive(errorView(error.message, null));
  }
}

const showLive = (view) => byId("live-answer").replaceChildren(...view);

let told = { index: -1, at: 0 };

/** Say what the camera sees when it is something else, and not too often. */
function tellLive(text, index) {
  const now = performance.now();
  if (index === told.index || now - told.at < 3000) return;
  told = { index, at: now };
  say(text);
}

async function keepPicture() {
  const picture = await camera.picture();
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  if (picture) addPhotos([new File([picture], `camera ${time}.jpg`, { type: picture.type })]);
}

byId("camera").addEventListener("click", startCamera);
byId("stop").addEventListener("click", stopCamera);
byId("keep").addEventListener("click", keepPicture);

// --------------------------------------------------------------------------------------------

byId("csv").addEventListener("click", () => download(toCsv(photos), "regnet.csv"));
byId("clear").addEventListener("click", clearPhotos);
takeIn(addPhotos, notify);
loadModels();
