// A client's place in the chain: registers, follows its stream, comes back after every loss and misses nothing.
//
// By fetch and not by EventSource. EventSource hides the comments, so a connection that died without a word would
// look alive; it hides the status, so "no such client" and "come back later" look alike; it gives up for good at
// the first answer that is no stream; and a new one cannot say where the last one stopped.

import { SseParser } from './sse.js';

const ANSWER_MS = 10_000;
// The server says something every 15 s.
const SILENCE_MS = 40_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 10_000;
const GROWTH = 1.5;
// A stream that lasted so long was a good one: the next loss begins from the shortest wait.
const GOOD_MS = 5_000;

/** How long to wait before attempt number `attempt`, which counts from 0: growing, capped, and jittered. */
export function backOff(attempt, baseMs, random = Math.random) {
  return Math.min(RETRY_MAX_MS, baseMs * GROWTH ** attempt) * (0.5 + random() / 2);
}

/** Whether window `id` comes after `last`; ids are `<epoch>:<window>`, and another epoch is always news. */
export function isNew(id, last) {
  const [at, lastAt] = [id.lastIndexOf(':'), last.lastIndexOf(':')];
  return id.slice(0, at) !== last.slice(0, lastAt) || Number(id.slice(at + 1)) > Number(last.slice(lastAt + 1));
}

/** Why an attempt failed: words for a person, and how long to wait at least. */
class Failure extends Error {
  constructor(words, waitMs = 0) {
    super(words);
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
   * `after` is the id to begin behind, or null for what comes next. `on` is told: window(data), reset(data), and
   * state(kind, words, waitMs) with kind "connecting", "live", "waiting" or "lost".
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
        this.on.state('connecting', attempt ? 'Connecting again' : 'Connecting', 0);
        this.#client ??= await this.#register();
        await this.#follow();
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

  /** Do not wait any longer: the network is back, or somebody looks. */
  hurry() {
    this.#wake();
  }

  /** End, and give the place back. */
  close() {
    this.#closed = true;
    this.#abort.abort();
    if (this.#client === null) return;
    const { client_id: id, token } = this.#client;
    // The page is going away: `keepalive` lets this request outlive it.
    fetch(`/clients/${id}`, { method: 'DELETE', keepalive: true, headers: { Authorization: `Bearer ${token}` } }).catch(() => {});
  }

  async #register() {
    const response = await this.#fetch('/clients', { method: 'POST' });
    if (!response.ok) throw await this.#refused(response);
    return response.json();
  }

  async #follow() {
    // By our own origin's path: after a redirect from another origin's the subscriber would see the origin "null".
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
    let silent;
    try {
      for (;;) {
        silent = setTimeout(() => this.#abort.abort(), SILENCE_MS);
        const { done, value } = await reader.read();
        clearTimeout(silent);
        if (done) return;
        for (const event of parser.feed(value)) this.#take(event);
        this.#retryMs = parser.retryMs ?? this.#retryMs;
        // Where it begins, said before the first window: cut off until then, it misses nothing either.
        this.#last ||= parser.lastId;
      }
    } finally {
      clearTimeout(silent);
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
    const late = setTimeout(() => this.#abort.abort(), ANSWER_MS);
    try {
      return await fetch(path, { ...options, signal: this.#abort.signal });
    } catch {
      throw new Failure('No answer');
    } finally {
      clearTimeout(late);
    }
  }

  async #refused(response) {
    const retryAfter = Number(response.headers.get('Retry-After'));
    await response.body?.cancel();
    const waitMs = Number.isFinite(retryAfter) ? retryAfter * 1000 : 0;
    if ([401, 403, 404].includes(response.status)) {
      // The place is gone; a new one begins behind the same window.
      this.#client = null;
      return new Failure('This place was given up');
    }
    if (response.status === 429) return new Failure('Too many come at once', waitMs);
    if (response.status === 503) return new Failure('No room right now', waitMs);
    if (response.status >= 400 && response.status < 500) {
      this.#last = '';
      this.on.reset({ reason: `the server answered ${response.status}` });
      return new Failure('What was missed is no longer kept');
    }
    return new Failure(`The server answered ${response.status}`, waitMs);
  }
}
