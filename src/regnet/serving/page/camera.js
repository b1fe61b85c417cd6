// The camera: pictures go to the server one after the other, as fast as it answers.

const PAUSE = 120; // ms between an answer and the next picture, so that others get their turn
const SIDE = 640; // pixels: more would only take longer

export const cameraIsThere = () => Boolean(navigator.mediaDevices?.getUserMedia);

export class Camera {
  /** `onPicture(blob)` is awaited for each picture; `onEnd()` is told that the camera is gone. */
  constructor(video, onPicture, onEnd) {
    Object.assign(this, { video, onPicture, onEnd });
    this.stream = null;
  }

  get runs() {
    return this.stream !== null;
  }

  /** Start; throws what the browser says where there is no camera or it is not allowed. */
  async start() {
    const video = { facingMode: "environment", width: { ideal: 1280 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video });
    stream.getTracks().forEach((track) => track.addEventListener("ended", this.onEnd));
    this.stream = stream;
    this.video.srcObject = stream;
    await this.video.play();
    this.look(stream);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  async look(stream) {
    while (this.stream === stream) {
      const picture = await this.picture(SIDE);
      if (picture && !document.hidden) await this.onPicture(picture);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }

  /** Return what the camera sees as a JPEG, null before the first picture. */
  picture(longest = Infinity) {
    const { videoWidth, videoHeight } = this.video;
    if (!videoWidth) return Promise.resolve(null);
    const scale = Math.min(1, longest / Math.max(videoWidth, videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(videoWidth * scale);
    canvas.height = Math.round(videoHeight * scale);
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  }
}

/** Return why a camera did not start, in words. */
export function whyNoCamera(error) {
  const reasons = {
    NotAllowedError: "The browser does not let this page use the camera; its settings can.",
    NotFoundError: "No camera was found.",
    NotReadableError: "The camera is in use by another program.",
  };
  return reasons[error.name] ?? `The camera cannot be used: ${error.message}`;
}
