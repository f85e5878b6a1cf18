// A client of the chain: it registers, reads its stream, and reconnects after every loss without missing a window.
//
// It uses fetch, not EventSource. EventSource hides comments, so a dead connection without an error looks alive; it
// hides the status, so an unknown client looks like a busy server; it gives up permanently at the first answer that is
// not a stream; and a new EventSource cannot name the last event of the old one.

import { SseParser } from './sse.js';

const ANSWER_MS = 10_000;
// The server sends a comment every 15 s.
const SILENCE_MS = 40_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 10_000;
const GROWTH = 1.5;
// After a stream that lasted this long, the next reconnection begins with the shortest wait.
const GOOD_MS = 5_000;

/** Return the wait before attempt number `attempt`, counted from 0: growing, capped, and jittered. */
export function backOff(attempt, baseMs, random = Math.random) {
  return Math.min(RETRY_MAX_MS, baseMs * GROWTH ** attempt) * (0.5 + random() / 2);
}

/**
 * Return whether window `id` comes after `last`. Ids are `<epoch>:<window>`; a window of another epoch is always new, and
 * so is every window after `earliest`, which stands for the beginning of the feed.
 */
export function isNew(id, last) {
  if (!last.includes(':')) return true;
  const [at, lastAt] = [id.lastIndexOf(':'), last.lastIndexOf(':')];
  return id.slice(0, at) !== last.slice(0, lastAt) || Number(id.slice(at + 1)) > Number(last.slice(lastAt + 1));
}

/** A failed attempt: a text for the user, and the shortest wait. */
class Failure extends Error {
  constructor(text, waitMs = 0) {
    super(text);
    this.waitMs = waitMs;
  }
}

export class Stream {
  #client = null;
  #last;
  #retryMs = RETRY_MS;
  #liveMs = Infinity;
  #abort = new AbortController();
  #wake = () => {};
  #closed = false;

  /**
   * The stream begins after event id `after`, or with the next window if it is null. `on` has the callbacks window(data),
   * reset(data), and state(kind, text, waitMs) with kind "connecting", "live", "waiting" or "lost".
   */
  constructor(after, on) {
    this.#last = after ?? '';
    this.on = on;
  }

  async run() {
    for (let attempt = 0; !this.#closed; attempt += 1) {
      this.#liveMs = Infinity;
      let failure;
      try {
        this.on.state('connecting', attempt ? 'Reconnecting' : 'Connecting', 0);
        this.#client ??= await this.#register();
        await this.#readStream();
        failure = new Failure('The connection ended');
      } catch (error) {
        failure = error instanceof Failure ? error : new Failure('The connection was lost');
      }
      if (this.#closed) return;
      if (performance.now() - this.#liveMs > GOOD_MS) attempt = 0;
      const waitMs = Math.max(failure.waitMs, backOff(attempt, this.#retryMs));
      this.on.state(navigator.onLine === false || attempt > 5 ? 'lost' : 'waiting', failure.message, waitMs);
      await new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, waitMs);
      });
    }
  }

  /** End the current wait: the network is back, or the page is visible again. */
  retryNow() {
    this.#wake();
  }

  /** End the stream and delete the registration. */
  close() {
    this.#closed = true;
    this.#abort.abort();
    if (this.#client === null) return;
    const { client_id: id, token } = this.#client;
    // The page is closing: `keepalive` lets this request finish.
    fetch(`/clients/${id}`, { method: 'DELETE', keepalive: true, headers: { Authorization: `Bearer ${token}` } }).catch(() => {});
  }

  async #register() {
    const response = await this.#fetch('/clients', { method: 'POST' });
    if (!response.ok) throw await this.#refused(response);
    return response.json();
  }

  async #readStream() {
    // A path of this origin: after a redirect from another origin the subscriber would see the origin "null".
    const response = await this.#fetch(`/clients/${this.#client.client_id}/stream`, {
      credentials: 'include',
      cache: 'no-store',
      headers: this.#last ? { 'Last-Event-ID': this.#last } : {},
    });
    if (response.status !== 200) throw await this.#refused(response);
    this.#liveMs = performance.now();
    this.on.state('live', 'Live', 0);
    const parser = new SseParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let silenceTimer;
    try {
      for (;;) {
        silenceTimer = setTimeout(() => this.#abort.abort(), SILENCE_MS);
        const { done, value } = await reader.read();
        clearTimeout(silenceTimer);
        if (done) return;
        for (const event of parser.feed(value)) this.#take(event);
        this.#retryMs = parser.retryMs ?? this.#retryMs;
        // The server sends the start id before the first window, so that a loss before that window misses nothing.
        this.#last ||= parser.lastId;
      }
    } finally {
      clearTimeout(silenceTimer);
    }
  }

  #take({ id, type, data }) {
    if (type === 'reset') {
      this.#last = id;
      this.on.reset(JSON.parse(data));
    } else if (type === 'window' && isNew(id, this.#last)) {
      this.#last = id;
      this.on.window(JSON.parse(data));
    }
  }

  async #fetch(path, options) {
    this.#abort = new AbortController();
    const timer = setTimeout(() => this.#abort.abort(), ANSWER_MS);
    try {
      return await fetch(path, { ...options, signal: this.#abort.signal });
    } catch {
      throw new Failure('No answer');
    } finally {
      clearTimeout(timer);
    }
  }

  async #refused(response) {
    const retryAfter = Number(response.headers.get('Retry-After'));
    await response.body?.cancel();
    const waitMs = Number.isFinite(retryAfter) ? retryAfter * 1000 : 0;
    if ([401, 403, 404].includes(response.status)) {
      // The registration has ended; a new one continues after the same window.
      this.#client = null;
      return new Failure('The registration has ended');
    }
    if (response.status === 429) return new Failure('Too many registrations', waitMs);
    if (response.status === 503) return new Failure('The server is not available', waitMs);
    if (response.status >= 400 && response.status < 500) {
      this.#last = '';
      this.on.reset({ reason: `the server answered ${response.status}` });
      return new Failure('Missed windows are no longer available');
    }
    return new Failure(`The server answered ${response.status}`, waitMs);
  }
}
