// The class activation map over a photo: how much each part adds to the class's score.

const CELLS = 192; // the smooth map is drawn this wide and high, and stretched by the browser
const DIMMED = 0.5; // what the network does not see

/** Draw the map of an explanation over its box on a canvas of the photo's shape. */
export function drawHeat(canvas, explanation, opacity) {
  const [width, height] = explanation.size;
  const scale = Math.min(1, 1280 / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const box = explanation.box.map((value) => value * scale);
  const context = canvas.getContext("2d");
  context.fillStyle = `rgb(0 0 0 / ${DIMMED * opacity})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.clearRect(...box);
  context.globalAlpha = opacity;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture(explanation), ...box);
  context.strokeStyle = "rgb(255 255 255 / .6)"; // where the part that the network sees ends
  context.strokeRect(...box);
}

const pictures = new WeakMap(); // one an explanation: the slider only blends it anew

function picture(explanation) {
  if (!pictures.has(explanation)) pictures.set(explanation, paint(explanation.map));
  return pictures.get(explanation);
}

/** Return a canvas with the map in colours: 0 and below is the first, the largest value the last. */
function paint(map) {
  const canvas = Object.assign(document.createElement("canvas"), { width: CELLS, height: CELLS });
  const context = canvas.getContext("2d");
  const image = context.createImageData(CELLS, CELLS);
  const peak = Math.max(...map.flat());
  const smooth = resized(resized(map.map((row) => row.map((v) => (peak > 0 ? v / peak : 0)))));
  smooth.flat().forEach((value, pixel) => {
    const level = Math.round(255 * Math.min(1, Math.max(0, value)));
    image.data.set(COLOURS.subarray(4 * level, 4 * level + 4), 4 * pixel);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Return rows resized to CELLS values (cubic) and transposed, so that two calls do both axes. */
function resized(rows) {
  const taps = cubicTaps(rows[0].length);
  return taps.map((tap) => rows.map((row) => tap.reduce((sum, [at, w]) => sum + w * row[at], 0)));
}

function cubicTaps(count) {
  return Array.from({ length: CELLS }, (_, pixel) => {
    const place = ((pixel + 0.5) * count) / CELLS - 0.5;
    const first = Math.floor(place) - 1;
    const near = [0, 1, 2, 3].map((k) => first + k).filter((at) => at >= 0 && at < count);
    const weights = near.map((at) => cubic(Math.abs(place - at)));
    const sum = weights.reduce((a, b) => a + b);
    return near.map((at, k) => [at, weights[k] / sum]);
  });
}

// Keys' cubic with a = -0.5, as in the overlay that `regnet explain` writes.
function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// The colours of `regnet explain`: even steps in OKLab, violet through red to yellow. What adds
// little is more transparent, so that the photo stays to be seen there.
const COLOURS = (() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let level = 0; level < 256; level += 1) {
    const part = level / 255;
    context.fillStyle = `oklch(${0.25 + 0.7 * part} 0.135 ${285 + 180 * part})`;
    context.fillRect(level, 0, 1, 1);
  }
  const colours = context.getImageData(0, 0, 256, 1).data;
  for (let level = 0; level < 256; level += 1) colours[4 * level + 3] = 80 + (165 * level) / 255;
  return colours;
})();
