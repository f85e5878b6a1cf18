// Helpers for the document.

/** Return a new element with a class and a text. */
export function element(tag, className = '', text = '') {
  const created = document.createElement(tag);
  if (className) created.className = className;
  if (text) created.textContent = text;
  return created;
}

/** Return the element with an id. */
export const byId = (id) => document.getElementById(id);

/** Return a number with its digits in groups. */
export const whole = (value) => Math.round(value).toLocaleString('en');

/** Read and write choices in this browser's storage, if it allows storage. */
export const stored = {
  get(key) {
    try {
      return localStorage.getItem(`emostream.${key}`);
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`emostream.${key}`, value);
    } catch {
      // Without storage the choice is lost when the page closes.
    }
  },
};
