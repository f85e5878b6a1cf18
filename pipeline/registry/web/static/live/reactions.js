// Sending reactions to ingest: one request at a time; reactions tapped during a request go with the next one.

import { stored } from '../dom.js';

// More waiting reactions than this are refused: they would be too old when they are sent.
const WAITING_MAX = 50;
const ANSWER_MS = 10_000;

function userId() {
  let id = stored.get('user');
  if (!id) {
    id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    stored.set('user', id);
  }
  return id;
}

/** Return an id for one tap (UUID version 7, RFC 9562): of several reactions with one id, one counts. */
export function reactionId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let place = 5, left = Date.now(); place >= 0; place -= 1, left = Math.floor(left / 256)) bytes[place] = left % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** Return a sentence about why ingest refused reactions; `document` is its problem document, if any. */
export function refusal(status, document, retryAfter) {
  const later = retryAfter > 1 ? `in ${retryAfter} seconds` : 'in a moment';
  if (status === 429) return 'You send reactions too fast. Wait one second.';
  if (status === 503) return `Reactions cannot be sent right now. Try again ${later}.`;
  if (status === 422) return `This reaction cannot be counted: ${document?.errors?.[0]?.detail ?? document?.detail ?? 'the emoji is unknown'}`;
  return `Not sent: ${document?.title ?? `the server answered ${status}`}.`;
}

export class Reactions {
  #url;
  #user = userId();
  #waiting = [];
  #busy = false;

  /** `on.sent(emoji)` is called with a list of accepted emoji, `on.refused(text, emoji)` with a refusal's reason. */
  constructor(ingestUrl, on) {
    this.#url = `${ingestUrl}/reactions`;
    this.on = on;
  }

  /** Send a reaction; return whether it was taken. */
  react(emoji) {
    if (this.#waiting.length >= WAITING_MAX) {
      this.on.refused('Too many reactions at once: wait until the earlier ones are sent.', []);
      return false;
    }
    const timestamp = new Date().toISOString();
    this.#waiting.push({ user_id: this.#user, emoji_type: emoji, timestamp, reaction_id: reactionId() });
    if (!this.#busy) this.#send();
    return true;
  }

  async #send() {
    this.#busy = true;
    while (this.#waiting.length) {
      const reactions = this.#waiting.splice(0);
      const refusedText = await this.#post(reactions);
      const emoji = reactions.map((reaction) => reaction.emoji_type);
      if (refusedText) this.on.refused(refusedText, emoji);
      else this.on.sent(emoji);
    }
    this.#busy = false;
  }

  /** Return the reason of a refusal as a sentence, or null. */
  async #post(reactions) {
    const request = {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(reactions.length === 1 ? reactions[0] : reactions),
      credentials: 'omit',
      // After that a reaction is too old.
      signal: AbortSignal.timeout(ANSWER_MS),
    };
    let response;
    try {
      // Only the answer may be lost: sent again, the reactions still count once.
      response = await fetch(this.#url, request).catch(() => fetch(this.#url, request));
    } catch {
      return 'Not sent: there is no answer from the server.';
    }
    if (response.status === 202) return null;
    const document = await response.json().catch(() => null);
    return refusal(response.status, document, Number(response.headers.get('Retry-After')));
  }
}
