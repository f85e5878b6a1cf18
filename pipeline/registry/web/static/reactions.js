// Sending reactions to ingest: one request at a time, what is tapped meanwhile goes with the next.

import { kept } from './dom.js';

// Beyond these a person's taps are dropped, and said to be: they would be stale when their turn comes.
const WAITING_MAX = 50;
const ANSWER_MS = 10_000;

function userId() {
  let id = kept.get('user');
  if (!id) {
    id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    kept.set('user', id);
  }
  return id;
}

/** Say in words why ingest did not take what it was sent; `document` is its problem document, if it sent one. */
export function refusal(status, document, retryAfter) {
  const later = retryAfter > 1 ? `in ${retryAfter} seconds` : 'in a moment';
  if (status === 429) return 'Not so fast: you are over the limit. Wait a second.';
  if (status === 503) return `Reactions are not taken right now. Try again ${later}.`;
  if (status === 422) return `This one cannot be counted: ${document?.errors?.[0]?.detail ?? document?.detail ?? 'ingest knows no such emoji'}`;
  return `That did not work: ${document?.title ?? `the server answered ${status}`}.`;
}

export class Reactions {
  #url;
  #user = userId();
  #waiting = [];
  #busy = false;

  /** `on.sent(emoji)` names what was accepted, `on.refused(words)` says why it was not. */
  constructor(ingestUrl, on) {
    this.#url = `${ingestUrl}/reactions`;
    this.on = on;
  }

  react(emoji) {
    if (this.#waiting.length >= WAITING_MAX) {
      this.on.refused('Too many at once: wait until the last ones have gone.');
      return;
    }
    this.#waiting.push({ user_id: this.#user, emoji_type: emoji, timestamp: new Date().toISOString() });
    if (!this.#busy) this.#send();
  }

  async #send() {
    this.#busy = true;
    while (this.#waiting.length) {
      const reactions = this.#waiting.splice(0);
      const words = await this.#post(reactions);
      // Not sent again: an answer may have been lost, and a mood is stale in ten seconds.
      if (words) this.on.refused(words);
      else this.on.sent(reactions.map((reaction) => reaction.emoji_type));
    }
    this.#busy = false;
  }

  /** Return why it was not accepted, or null. */
  async #post(reactions) {
    let response;
    try {
      response = await fetch(this.#url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(reactions.length === 1 ? reactions[0] : reactions),
        credentials: 'omit',
        signal: AbortSignal.timeout(ANSWER_MS),
      });
    } catch {
      return 'Not sent: there is no answer from where reactions go.';
    }
    if (response.status === 202) return null;
    const document = await response.json().catch(() => null);
    return refusal(response.status, document, Number(response.headers.get('Retry-After')));
  }
}
