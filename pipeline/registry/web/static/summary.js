// Spoken summaries for screen readers, slow enough not to interrupt other speech.

import { byId, whole } from './dom.js';
import { ranked } from './windows.js';

const PACE_MS = 30_000;

export class Summary {
  #spoken = byId('spoken');
  #lastMs = -Infinity;
  #reactions = 0;
  #counts = new Map();
  enabled = true;

  /** Speak a text at once, whether summaries are enabled or not. */
  say(text) {
    this.#spoken.textContent = text;
  }

  /** Add a window; speak a summary of all windows since the last one, at most every 30 seconds. */
  add(window, nameOf, nowMs = performance.now()) {
    this.#reactions += window.total;
    for (const { emoji_type: emoji, count } of window.reactions) this.#counts.set(emoji, (this.#counts.get(emoji) ?? 0) + count);
    if (nowMs - this.#lastMs < PACE_MS) return;
    const top = ranked({ reactions: [...this.#counts].map(([emoji_type, count]) => ({ emoji_type, count })) }).slice(0, 3);
    const list = top.map(({ emoji_type: emoji, count }) => `${nameOf(emoji)} ${whole(count)}`).join(', ');
    if (this.enabled) this.say(`${whole(this.#reactions)} reactions: ${list}.`);
    this.#lastMs = nowMs;
    this.#reactions = 0;
    this.#counts.clear();
  }
}
