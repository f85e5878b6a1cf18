// A client of the chain: it registers, reads its stream, and reconnects after every loss without missing a window.
//
// It uses fetch, not EventSource. EventSource hides comments, so a dead connection without an error looks alive; it
// hides the status, so an unknown client looks like a busy server; it gives up permanently at the first answer that is
// not a stream; and a new EventSource cannot name the last event of the old one.
//
// A browser opens six HTTP/1.1 connections to one server, over all tabs together: the stream of a seventh tab would wait
// until another tab closes. WebSockets have a limit of their own, of some two hundred. So a stream that waits gives way
// to a WebSocket.

import { SseParser } from './sse.js';

const ANSWER_MS = 10_000;
// A stream that is not answered by then waits for a connection: a subscriber needs at most two seconds.
const WAITING_MS = 4_000;
// The server sends a comment every 15 s. On a WebSocket it sends pings, which the browser hides from the page.
const SILENCE_MS = 40_000;
const RETRY_MS = 1_000;
const RETRY_MAX_MS = 10_000;
const GROWTH = 1.5;
// After a stream that lasted this long, the next reconnection begins with the shortest wait.
const GOOD_MS = 5_000;
// The codes with which a WebSocket is refused, and the wait when the subscriber has no room.
const [REFUSED, TRY_LATER, LATER_MS] = [1008, 1013, 5_000];

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

const CROWDED =
  'The server of the live reactions does not answer. A browser opens six connections to one server: ' +
  'if this page is open in more than six tabs or windows, close one of them. This page then connects by itself.';

/** A failed attempt: a text for the user, the shortest wait, and what the user can do about it, if anything. */
class Failure extends Error {
  constructor(text, waitMs = 0, advice = '') {
    super(text);
    this.waitMs = waitMs;
    this.advice = advice;
  }
}

export class Stream {
  /** The id of the last event, or the one to resume after; empty: begin with the next window. */
  last;
  #client = null;
  #base;
  #retryMs = RETRY_MS;
  #liveMs = Infinity;
  #abort = new AbortController();
  #wake = () => {};
  #stopped = false;
  // Whether the browser has no connection left for a stream.
  #crowded = false;

  /**
   * The stream begins after event id `after`, or with the next window if it is null. `on` has the callbacks
   * window(data, id), reset(data, id), and state(kind, text, waitMs, advice) with kind "connecting", "live", "waiting" or
   * "lost". `base` is the registry's address in a page of another origin.
   */
  constructor(after, on, base = '') {
    this.last = after ?? '';
    this.on = on;
    this.#base = base;
  }

  /** Read windows until `stop`. */
  async run() {
    this.#stopped = false;
    for (let attempt = 0; !this.#stopped; attempt += 1) {
      this.#liveMs = Infinity;
      let failure;
      try {
        this.on.state('connecting', attempt ? 'Reconnecting' : 'Connecting', 0);
        const waited = !this.#crowded && (await this.#readStream());
        this.#crowded ||= waited;
        if (this.#crowded) await this.#readSockets(waited);
        failure = new Failure('The connection ended');
      } catch (error) {
        failure = error instanceof Failure ? error : new Failure('The connection was lost');
      }
      if (this.#stopped) return;
      if (performance.now() - this.#liveMs > GOOD_MS) attempt = 0;
      const waitMs = Math.max(failure.waitMs, backOff(attempt, this.#retryMs));
      const kind = navigator.onLine === false || attempt > 5 ? 'lost' : 'waiting';
      this.on.state(kind, failure.message, waitMs, failure.advice);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** End the current wait: the network is back, or the page is visible again. */
  retryNow() {
    this.#wake();
  }

  /** End the connection; `run` returns, and may be called again to continue after the last event. */
  stop() {
    this.#stopped = true;
    this.#abort.abort();
    this.#wake();
  }

  /** End the stream and delete the registration. */
  close() {
    this.stop();
    this.#leave();
  }

  #leave() {
    if (this.#client === null) return;
    // The page may be closing: `keepalive` lets this request finish.
    fetch(`${this.#base}${this.#path()}`, { method: 'DELETE', keepalive: true, headers: this.#token() }).catch(() => {});
    this.#client = null;
  }

  /** Be registered with `transport`. */
  async #register(transport) {
    if (this.#client?.transport === transport) return;
    this.#leave();
    const response = await this.#fetch('/clients', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ transport }),
    });
    if (!response.ok) throw await this.#refused(response);
    this.#client = await response.json();
  }

  /**
   * Return a path of this client. In the chain's own page it is of that page's origin: a redirect from another one would
   * send Origin "null".
   */
  #path(route = '') {
    return `/clients/${this.#client.client_id}${route}`;
  }

  #token() {
    return { Authorization: `Bearer ${this.#client.token}` };
  }

  /** Read server-sent events until the stream ends. Return true instead if the browser has no connection for it. */
  async #readStream() {
    await this.#register('sse');
    const headers = this.last ? { 'Last-Event-ID': this.last } : {};
    // The chain's own page has the token in a cookie; a page of another origin must send it.
    if (this.#base) Object.assign(headers, this.#token());
    const response = await this.#fetch(this.#path('/stream'), { cache: 'no-store', headers }, WAITING_MS);
    if (response === null) return true;
    if (response.status !== 200) throw await this.#refused(response);
    this.#nowLive();
    const parser = new SseParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let silenceTimer;
    try {
      for (;;) {
        silenceTimer = setTimeout(() => this.#abort.abort(), SILENCE_MS);
        const { done, value } = await reader.read();
        clearTimeout(silenceTimer);
        if (done) return false;
        for (const { id, type, data } of parser.feed(value)) this.take(id, type, JSON.parse(data));
        this.#retryMs = parser.retryMs ?? this.#retryMs;
        // The server sends the start id before the first window, so that a loss before that window misses nothing.
        this.last ||= parser.lastId;
      }
    } finally {
      clearTimeout(silenceTimer);
    }
  }

  /**
   * Read WebSockets, one after another, until one ends for another reason than silence. `waited` is whether a stream has
   * just waited in vain: otherwise a WebSocket without an answer says nothing about other tabs.
   */
  async #readSockets(waited) {
    await this.#register('websocket');
    try {
      while (await this.#readSocket());
    } catch (failure) {
      this.#crowded = this.#liveMs < Infinity;
      if (!waited) failure.advice = '';
      throw failure;
    }
  }

  /** Read one WebSocket to its end; return whether that was silence: the connection may be dead, or nobody reacts. */
  async #readSocket() {
    const after = this.last ? `?after=${encodeURIComponent(this.last)}` : '';
    const response = await this.#fetch(this.#path(`/tickets${after}`), { method: 'POST', headers: this.#token() });
    if (response.status !== 201) throw await this.#refused(response);
    const { url } = await response.json();
    if (this.#stopped) throw new Failure('Stopped');
    const socket = new WebSocket(url);
    this.#abort.signal.addEventListener('abort', () => socket.close());
    return new Promise((resolve, reject) => {
      let timer;
      const endAfter = (waitMs, end) => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          end();
          socket.close();
        }, waitMs);
      };
      endAfter(ANSWER_MS, () => reject(new Failure('No answer', 0, CROWDED)));
      socket.onopen = () => {
        endAfter(SILENCE_MS, () => resolve(true));
        this.#nowLive();
      };
      socket.onmessage = (message) => {
        endAfter(SILENCE_MS, () => resolve(true));
        const { id, event, data } = JSON.parse(message.data);
        this.take(id, event, data);
      };
      socket.onclose = ({ code, reason }) => {
        clearTimeout(timer);
        // A refusal names the field first, here that of the id to resume from.
        if (code === REFUSED && reason.startsWith('after ')) this.#startOver(reason);
        const waitMs = code === TRY_LATER ? LATER_MS : 0;
        reject(this.#liveMs < Infinity ? new Failure('The connection ended', waitMs) : new Failure('No answer', 0, CROWDED));
      };
    });
  }

  #nowLive() {
    if (this.#liveMs < Infinity) return;
    this.#liveMs = performance.now();
    this.on.state('live', 'Live', 0);
  }

  /** Take one event: of the own connection, or of another tab's. */
  take(id, type, data) {
    if (type === 'begin') {
      this.last ||= id;
    } else if (type === 'reset') {
      this.last = id;
      this.on.reset(data, id);
    } else if (type === 'window' && isNew(id, this.last)) {
      this.last = id;
      this.on.window(data, id);
    }
  }

  #startOver(reason) {
    this.last = '';
    this.on.reset({ reason }, '');
  }

  /** Return the answer to a request. Without one, return null after `waitingMs`, if given; otherwise raise Failure. */
  async #fetch(path, options, waitingMs = 0) {
    if (this.#stopped) throw new Failure('Stopped');
    this.#abort = new AbortController();
    let waited = false;
    const timer = setTimeout(() => {
      waited = true;
      this.#abort.abort();
    }, waitingMs || ANSWER_MS);
    try {
      return await fetch(`${this.#base}${path}`, { ...options, signal: this.#abort.signal });
    } catch {
      if (waited && waitingMs) return null;
      throw new Failure('No answer');
    } finally {
      clearTimeout(timer);
    }
  }

  async #refused(response) {
    const retryAfter = Number(response.headers.get('Retry-After'));
    const problem = await response.json().catch(() => null);
    const waitMs = Number.isFinite(retryAfter) ? retryAfter * 1000 : 0;
    if (response.status === 403 && this.#client === null) {
      return new Failure('Not allowed here', waitMs, problem?.detail);
    }
    if ([401, 403, 404].includes(response.status)) {
      // The registration has ended; a new one continues after the same window.
      this.#client = null;
      return new Failure('The registration has ended');
    }
    if (response.status === 429) return new Failure('Too many registrations', waitMs);
    if (response.status === 503) return new Failure('The server is not available', waitMs);
    if (response.status >= 400 && response.status < 500) {
      this.#startOver(`the server answered ${response.status}`);
      return new Failure('Missed windows are no longer available');
    }
    return new Failure(`The server answered ${response.status}`, waitMs);
  }
}
