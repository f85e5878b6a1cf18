// What a screen reader is told: a sentence at a pace that leaves room for everything else.

import { byId, whole } from './dom.js';
import { ranked } from './windows.js';

const PACE_MS = 30_000;

export class Summary {
  #spoken = byId('spoken');
  #lastMs = -Infinity;
  #reactions = 0;
  #counts = new Map();
  enabled = true;

  /** Say something at once: what a person is waiting to hear. */
  say(words) {
    this.#spoken.textContent = words;
  }

  /** Count a window in; say what came since the last time, if that was long enough ago. */
  take(window, nameOf, nowMs = performance.now()) {
    this.#reactions += window.total;
    for (const { emoji_type: emoji, count } of window.reactions) this.#counts.set(emoji, (this.#counts.get(emoji) ?? 0) + count);
    if (nowMs - this.#lastMs < PACE_MS) return;
    const top = ranked({ reactions: [...this.#counts].map(([emoji_type, count]) => ({ emoji_type, count })) }).slice(0, 3);
    const words = top.map(({ emoji_type: emoji, count }) => `${nameOf(emoji)} ${whole(count)}`).join(', ');
    if (this.enabled) this.say(`${whole(this.#reactions)} reactions: ${words}.`);
    this.#lastMs = nowMs;
    this.#reactions = 0;
    this.#counts.clear();
  }
}
