// Small help with the document.

/** Return a new element of a class, with text. */
export function element(tag, className = '', text = '') {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** Return the element with an id. */
export const byId = (id) => document.getElementById(id);

/** Return a number with its digits in groups. */
export const whole = (value) => Math.round(value).toLocaleString('en');

/** Read or keep a choice of this browser's; one that keeps nothing just forgets. */
export const kept = {
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
      // Forgotten then.
    }
  },
};
