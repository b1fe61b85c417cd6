// Elements in one line; text is always text, never markup.

export const byId = (id) => document.getElementById(id);

/** Return an element with a class and children: elements or text; null ones are left out. */
export function el(name, className, ...children) {
  const [tag, id] = name.split("#");
  const element = document.createElement(tag);
  if (id) element.id = id;
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function percent(probability) {
  const value = 100 * probability;
  return value > 0 && value < 0.1 ? "< 0.1 %" : `${value.toFixed(1)} %`;
}

/** Return the first of a class's names, and the others. */
export function names(label) {
  const [first, ...others] = label.split(", ");
  return [first, others.join(", ")];
}
