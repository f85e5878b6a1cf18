// The last hour as a strip of windows to scrub through; its right end is the newest window.

import { byId, whole } from './dom.js';
import { KEPT_MAX, pastEvents, slim } from './live/history.js';
import { isNew } from './live/stream.js';
import { ranked } from './windows.js';

const HOUR_MS = 3_600_000;
// While it plays, one window is shown per this time.
const STEP_S = 1;
// The width of the slider's thumb, CSS pixels, as in page.css: its middle never reaches the ends of the strip.
const THUMB = 12;

const idOf = (window) => `${window.epoch}:${window.window}`;
const count = (value) => `${whole(value)} ${value === 1 ? 'reaction' : 'reactions'}`;

/** Return the time of day of a window. */
export function timeOf(window) {
  return new Date(window.trigger_ns / 1e6).toLocaleTimeString('en-GB');
}

export class Replay {
  #section = byId('replay');
  #slider = byId('replay-at');
  #canvas = byId('replay-bars');
  #windows = [];
  #loading = null;
  #timer = 0;
  #frame = 0;

  /** `on.window(window, seconds)` shows a past window, in motion for a time or still; `on.live()` the newest again. */
  constructor(on) {
    this.on = on;
    byId('replay-open').addEventListener('click', () => (this.#isOpen ? this.close() : this.open()));
    byId('replay-close').addEventListener('click', () => this.close());
    byId('replay-play').addEventListener('click', () => (this.#timer ? this.pause() : this.#play()));
    this.#slider.addEventListener('input', () => {
      this.pause();
      this.#show();
    });
    new ResizeObserver(() => this.#drawSoon()).observe(this.#canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#drawSoon());
  }

  get #isOpen() {
    return !this.#section.hidden;
  }

  get #at() {
    return Number(this.#slider.value);
  }

  /** The past window that is shown; null if that is the newest, or the strip is closed. */
  get window() {
    return this.#isOpen && this.#at < this.#windows.length - 1 ? this.#windows[this.#at] : null;
  }

  async open() {
    this.#section.hidden = false;
    byId('replay-open').setAttribute('aria-expanded', 'true');
    byId('replay-close').focus();
    await this.reload();
    if (!this.#slider.disabled) this.#slider.focus();
  }

  close() {
    const past = this.window !== null;
    this.pause();
    this.#section.hidden = true;
    this.#windows = [];
    this.#loading = null;
    byId('replay-open').setAttribute('aria-expanded', 'false');
    byId('replay-open').focus();
    if (past) this.on.live();
  }

  /** Load the windows of the last hour, if the strip is open. */
  async reload() {
    if (!this.#isOpen) return;
    const loading = (this.#loading = []);
    this.#say('Loading…');
    let past = [];
    let failure = '';
    try {
      past = (await pastEvents()).filter(({ event }) => event === 'window').map(({ data }) => data);
    } catch (error) {
      failure = error.message;
    }
    if (this.#loading !== loading) return;
    this.#loading = null;
    this.#windows = [];
    for (const window of [...past, ...loading]) this.#push(window);
    this.#trim();
    const enabled = this.#windows.length > 1;
    this.#slider.disabled = byId('replay-play').disabled = !enabled;
    this.#slider.max = Math.max(0, this.#windows.length - 1);
    this.#slider.value = this.#slider.max;
    if (failure || !enabled) this.#say(failure || 'There are no past windows in the last hour.');
    else this.#label();
    this.#drawSoon();
  }

  /** Add the newest window. */
  add(window) {
    if (!this.#isOpen) return;
    if (this.#loading) {
      this.#loading.push(slim(window));
      return;
    }
    const live = this.window === null;
    this.#push(slim(window));
    const gone = this.#trim();
    const at = Math.max(0, this.#at - gone);
    this.#slider.max = this.#windows.length - 1;
    this.#slider.value = live ? this.#slider.max : at;
    this.#slider.disabled = byId('replay-play').disabled = this.#windows.length < 2;
    this.#label();
    this.#drawSoon();
  }

  /** Stop playing. */
  pause() {
    clearInterval(this.#timer);
    this.#timer = 0;
    byId('replay-play').textContent = 'Play';
  }

  #play() {
    // From the newest window there is nothing to play: begin at the oldest.
    if (this.window === null) this.#slider.value = 0;
    byId('replay-play').textContent = 'Pause';
    this.#timer = setInterval(() => this.#step(), STEP_S * 1000);
    this.#show();
  }

  #step() {
    this.#slider.value = this.#at + 1;
    if (this.window === null) this.pause();
    this.#show();
  }

  #push(window) {
    const last = this.#windows.at(-1);
    if (!last || isNew(idOf(window), idOf(last))) this.#windows.push(window);
  }

  /** Forget windows that are older than an hour; return their number. */
  #trim() {
    const newestMs = (this.#windows.at(-1)?.trigger_ns ?? 0) / 1e6;
    const first = this.#windows.findIndex((window) => newestMs - window.trigger_ns / 1e6 <= HOUR_MS);
    const gone = Math.max(0, first, this.#windows.length - KEPT_MAX);
    this.#windows.splice(0, gone);
    return gone;
  }

  #show() {
    this.#label();
    this.#drawSoon();
    if (this.window === null) this.on.live();
    else this.on.window(this.window, this.#timer ? STEP_S : 0);
  }

  #say(text) {
    byId('replay-window').textContent = text;
  }

  #label() {
    const window = this.#windows[this.#at];
    if (!window) return;
    const live = this.window === null;
    const [top] = ranked(window);
    const most = top ? `, most ${top.emoji_type}` : '';
    const text = `${live ? 'Live' : timeOf(window)}: ${count(window.total)}${most}`;
    this.#say(text);
    this.#slider.setAttribute('aria-valuetext', text);
    byId('replay-from').textContent = timeOf(this.#windows[0]);
    byId('replay-to').textContent = timeOf(this.#windows.at(-1));
    const highest = this.#windows.reduce((most, { total }) => Math.max(most, total), 0);
    byId('replay-top').textContent = `highest ${count(highest)} per window`;
  }

  #drawSoon() {
    if (!this.#frame && this.#isOpen) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const scale = Math.min(2, devicePixelRatio || 1);
    const { width, height } = this.#canvas.getBoundingClientRect();
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    const context = this.#canvas.getContext('2d');
    context.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const shown = this.#windows.length;
    const most = this.#windows.reduce((highest, { total }) => Math.max(highest, total), 1);
    const step = shown > 1 ? (width - THUMB) / (shown - 1) : 0;
    const bar = Math.min(10, Math.max(1, step * 0.8));
    this.#windows.forEach(({ total }, index) => {
      const tall = Math.max(1, (total / most) * (height - 4));
      context.fillStyle = style.getPropertyValue(index === this.#at ? '--orange' : '--blue');
      context.globalAlpha = index <= this.#at ? 0.85 : 0.35;
      context.fillRect(THUMB / 2 + index * step - bar / 2, height - tall, bar, tall);
    });
  }
}
