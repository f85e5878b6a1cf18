// One stream for all tabs of a browser that show this chain.
//
// The visible tabs ask for one Web Lock. The tab that holds it reads the stream and passes every event on over a
// BroadcastChannel. It lets go when it is hidden; the browser takes the lock from a tab that is closed or crashes. The
// next tab goes on after the last event that it has itself, so a change of tabs loses nothing. Hidden tabs have no
// connection, no channel and no timer, so it does not matter when the browser freezes them.
//
// A SharedWorker would need no lock, but Chromium on Android has none, and a page of another origin cannot start one from
// the registry's script. Web Locks need a secure context: HTTPS or this machine. Elsewhere each visible tab has a stream.

import { KEPT_MAX, pastEvents, slim } from './history.js';
import { Stream, isNew } from './stream.js';

export class SharedStream {
  #stream;
  #name;
  #base;
  #tab = crypto.getRandomValues(new Uint32Array(2)).join('-');
  #channel = null;
  #shown = null;
  #leading = false;
  #running = null;
  #state = ['connecting', 'Connecting', 0, ''];
  // The last events, and the id after which the first of them comes.
  #events = [];
  #start;
  // Whether this tab has all that the leading tab has, and whether it has asked the server for the rest.
  #caughtUp = false;
  #filled = false;

  /** The arguments are those of Stream. Nothing happens before `show`. */
  constructor(after, on, base = '') {
    this.on = on;
    this.#base = base;
    this.#name = `emostream ${base || location.origin}`;
    this.#start = after ?? '';
    this.#stream = new Stream(
      after,
      {
        window: (data, id) => this.#took({ id, type: 'window', data }),
        reset: (data, id) => this.#took({ id, type: 'reset', data }),
        state: (...state) => this.#tell(state),
      },
      base,
    );
  }

  /** Whether this tab reads the stream itself. */
  get leading() {
    return this.#leading;
  }

  /** The page is visible: catch up, and show every event from now on. */
  show() {
    if (this.#shown) return;
    this.#shown = new AbortController();
    this.#filled = false;
    if (navigator.locks) {
      this.#channel = new BroadcastChannel(this.#name);
      this.#channel.onmessage = ({ data }) => this.#hear(data);
      this.#want();
    }
    this.#leadWhenPossible(this.#shown.signal);
  }

  /** The page is hidden: end everything, and let another tab read. */
  hide() {
    this.#shown?.abort();
    this.#shown = null;
    this.#channel?.close();
    this.#channel = null;
    this.#stream.stop();
  }

  /** The page is closed. */
  close() {
    this.hide();
    this.#stream.close();
  }

  /** End the current wait for a new attempt: the network is back. */
  retryNow() {
    this.#stream.retryNow();
  }

  async #leadWhenPossible(signal) {
    if (navigator.locks) {
      // A tab that is hidden while it waits leaves the queue, with an AbortError.
      await navigator.locks.request(this.#name, { signal }, () => signal.aborted || this.#lead()).catch(() => {});
    } else {
      await this.#running;
      if (signal.aborted) return;
      this.#running = this.#lead();
    }
  }

  async #lead() {
    this.#leading = true;
    this.#post({ type: 'lead' });
    await this.#stream.run();
    this.#leading = false;
  }

  // the other tabs

  #post(message) {
    this.#channel?.postMessage(message);
  }

  #want() {
    this.#caughtUp = false;
    this.#post({ type: 'want', from: this.#tab, after: this.#stream.last });
  }

  #hear(message) {
    if (this.#leading) {
      if (message.type === 'want') this.#answer(message);
    } else if (message.type === 'lead') {
      this.#want();
    } else if (message.type === 'have' && message.to === this.#tab) {
      this.#catchUp(message);
    } else if (message.type === 'event' && this.#caughtUp) {
      this.#stream.take(message.id, message.event, message.data);
    } else if (message.type === 'state' && this.#caughtUp) {
      this.#tell(message.state);
    }
  }

  /** Answer with the events after an id; `all` says whether these are all. */
  #answer({ from, after }) {
    let index = 0;
    if (after && after !== this.#start) {
      const newest = this.#stream.last;
      index = newest && !isNew(newest, after) ? this.#events.length : this.#events.findIndex(({ id }) => id === after) + 1;
    }
    const all = index > 0 || !after || after === this.#start;
    this.#post({ type: 'have', to: from, events: this.#events.slice(index), all, state: this.#state });
  }

  async #catchUp({ events, all, state }) {
    if (!all && !this.#filled) {
      this.#filled = true;
      const shown = this.#shown;
      const past = await pastEvents({ after: this.#stream.last, base: this.#base }).catch(() => []);
      if (shown !== this.#shown || this.#leading) return;
      for (const { id, event, data } of past) this.#stream.take(id, event, data);
      this.#want();
      return;
    }
    if (!all && events.length) this.on.reset({ reason: 'they are not kept any more' });
    for (const { id, type, data } of events) this.#stream.take(id, type, data);
    this.#caughtUp = true;
    this.#tell(state);
  }

  // events of the stream: of its own connection, or taken from the leading tab

  #took({ id, type, data }) {
    if (type === 'reset') {
      this.#events = [];
      this.#start = id;
    } else {
      this.#events.push({ id, type, data: slim(data) });
      if (this.#events.length > KEPT_MAX) this.#start = this.#events.shift().id;
    }
    if (this.#leading) this.#post({ type: 'event', id, event: type, data });
    this.on[type](data);
  }

  #tell(state) {
    this.#state = state;
    if (this.#leading) this.#post({ type: 'state', state });
    this.on.state(...state);
  }
}
