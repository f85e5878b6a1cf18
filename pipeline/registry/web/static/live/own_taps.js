// The own taps that already fly: when their window comes, it shows that many fewer.

// The window of a tap comes within this number of triggers, and this time; after that the tap was lost on the way.
const TRIGGERS = 3;
const LATE_MS = 10_000;

// ❤ and ❤️ are counted as one.
const spelling = (emoji) => emoji.replaceAll('\ufe0f', '');

export class OwnTaps {
  #taps = [];
  #keptMs;

  constructor(triggerS) {
    this.#keptMs = TRIGGERS * triggerS * 1000 + LATE_MS;
  }

  /** Note a tap that is shown from now on; `atMs` is the server's time. */
  add(emoji, atMs) {
    this.#taps.push({ emoji: spelling(emoji), shown: emoji, atMs });
  }

  /** Forget taps that were refused: the newest of each emoji. */
  cancel(emoji) {
    for (const each of emoji) {
      const index = this.#taps.findLastIndex((tap) => tap.emoji === spelling(each));
      if (index >= 0) this.#taps.splice(index, 1);
    }
  }

  /** Return the emoji whose window has not come, the newest first. */
  get waiting() {
    return this.#taps.map(({ shown }) => shown).reverse();
  }

  /**
   * Return a window's reactions with the representatives of the others only, and forget the own taps in it.
   *
   * A window does not say whose reactions it holds. A tap is in the first window that was triggered after it, or in the
   * next one. Emoji of one type look alike: if another person's stands in for it in the first, the sum is still right.
   */
  others(window) {
    const triggerMs = window.trigger_ns / 1e6;
    this.#taps = this.#taps.filter(({ atMs }) => triggerMs - atMs < this.#keptMs);
    return window.reactions.map((reaction) => {
      const own = this.#take(reaction, triggerMs);
      if (!own) return reaction;
      const share = (reaction.count - own) / reaction.count;
      return { ...reaction, representatives: Math.ceil(reaction.representatives * share) };
    });
  }

  /** Forget the taps that a count holds; return their number. */
  #take({ emoji_type: emoji, count }, triggerMs) {
    const before = this.#taps.length;
    let left = count;
    this.#taps = this.#taps.filter((tap) => !(tap.emoji === spelling(emoji) && tap.atMs <= triggerMs && left-- > 0));
    return before - this.#taps.length;
  }
}
