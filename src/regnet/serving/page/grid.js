// The photos as a list to choose from: one stop for Tab, arrows go from photo to photo.

import { el, names, percent } from "./dom.js";

export class Grid {
  /** `onSelect(photo, far)` hears which photo was chosen; `far` by a click, with its view away. */
  constructor(list, onSelect) {
    Object.assign(this, { list, onSelect, cards: new Map() });
    list.addEventListener("keydown", (event) => this.onKey(event));
  }

  add(photo) {
    const image = el("img");
    Object.assign(image, { src: photo.url, alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(el("span", "gone", "No preview")));
    const card = el("li", "card", image, el("div", "said"));
    card.setAttribute("role", "option");
    card.addEventListener("click", () => this.onSelect(photo, true));
    this.cards.set(photo, card);
    this.list.append(card);
    this.update(photo);
  }

  /** Write on a photo's card what is known of it. */
  update(photo) {
    const card = this.cards.get(photo);
    card.dataset.state = photo.state;
    card.lastElementChild.replaceChildren(...said(photo));
  }

  select(photo) {
    for (const [other, card] of this.cards) {
      card.setAttribute("aria-selected", other === photo);
      card.tabIndex = other === photo ? 0 : -1;
    }
  }

  clear() {
    this.cards.clear();
    this.list.replaceChildren();
  }

  onKey(event) {
    const photos = [...this.cards.keys()];
    const at = photos.findIndex((photo) => this.cards.get(photo) === document.activeElement);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    const ends = { Home: 0, End: photos.length - 1 };
    const to = ends[event.key] ?? at + steps[event.key];
    if (event.key === "Enter" || event.key === " ") this.onSelect(photos[at], true);
    else if (photos[to]) this.move(photos[to]);
    else if (!(event.key in steps)) return;
    event.preventDefault();
  }

  move(photo) {
    this.onSelect(photo, false);
    this.cards.get(photo).focus();
  }

  get columns() {
    return getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
  }
}

function said({ state, name, answer, error }) {
  const file = el("small", "", name);
  if (state === "failed") return [el("span", "error", error), file];
  if (state !== "done") return [el("span", "waiting", "Waiting"), file];
  const [top] = answer.predictions;
  const fill = el("i", "fill");
  fill.style.setProperty("--share", top.probability);
  const unknown = answer.set && answer.set.length !== 1;
  return [
    el("span", "name", unknown ? el("em", "badge", "Unknown") : null, names(top.label)[0]),
    el("span", "line", fill),
    el("span", "share", percent(top.probability)),
    file,
  ];
}
