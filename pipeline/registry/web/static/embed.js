// <emo-stream>: the swarm, the newest window's counts and buttons to react, for a page of any site.
//
//   <script type="module" src="http://127.0.0.1:8080/page/embed.js"></script>
//   <emo-stream emoji="😂 ❤️ 👏"></emo-stream>
//
// It uses the chain whose registry serves this script. That must list the page's origin in its setting `origins`.

import { element, whole } from './dom.js';
import { OwnTaps } from './live/own_taps.js';
import { Reactions } from './live/reactions.js';
import { SharedStream } from './live/shared_stream.js';
import { Swarm } from './live/swarm.js';
import { ranked } from './windows.js';

const REGISTRY = new URL(import.meta.url).origin;
const EMOJI = '😂 ❤️ 👏 🎉 🔥 😮';
const RANKED = 5;
const ANSWER_MS = 10_000;
const [RETRY_MS, RETRY_MAX_MS] = [2_000, 30_000];

// A style sheet that is made by a script needs no permission in the site's Content-Security-Policy.
const STYLE = new CSSStyleSheet();
STYLE.replaceSync(`
  :host { display: block; height: 22rem; min-height: 14rem; color-scheme: inherit; --ink: #1d2327; --muted: #5b656d;
    --rule: #dfe3e6; --paper: #fdfdfb; --tint: #f1f3f1; --blue: #0b66b0; --bad: #b3261e;
    color: var(--ink); font: 1rem/1.4 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; }
  @media (prefers-color-scheme: dark) { :host { --ink: #e6e9eb; --muted: #a0abb4; --rule: #343b41; --paper: #15191c;
    --tint: #1e2428; --blue: #69b3f5; --bad: #ff8a80; } }
  :host([hidden]), [hidden] { display: none !important; }
  * { box-sizing: border-box; margin: 0; padding: 0; }
  section { height: 100%; display: flex; flex-direction: column; border: 1px solid var(--rule); border-radius: .75rem;
    background: var(--paper); overflow: hidden; }
  .head { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 1rem; padding: .4rem .9rem 0;
    font-size: .875rem; color: var(--muted); font-variant-numeric: tabular-nums; }
  .head b { color: var(--ink); font-size: 1.125rem; }
  .stage { position: relative; flex: 1; min-height: 0; border-block: 1px solid var(--rule); overflow: auto; }
  canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
  ol { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem .9rem; height: 2rem; padding: .15rem .9rem .35rem;
    overflow: hidden; font-size: .9375rem; font-weight: 600; font-variant-numeric: tabular-nums; }
  .emoji, button { font-family: "Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif; font-weight: 400; }
  .buttons { display: flex; gap: .35rem; padding: .5rem .9rem .25rem; }
  button { flex: 1 1 0; min-width: 0; max-width: 5rem; height: 2.75rem; border: 1px solid var(--rule); border-radius: .75rem;
    background: var(--tint); font-size: 1.35rem; line-height: 1; cursor: pointer; touch-action: manipulation; }
  button:hover, button:active { border-color: var(--blue); }
  :focus-visible { outline: .1875rem solid var(--blue); outline-offset: .125rem; }
  .said { min-height: 1.5rem; padding: 0 .9rem .25rem; font-size: .8125rem; color: var(--muted); }
  .said.refused, .failed { color: var(--bad); }
  .failed { padding: .9rem; overflow-wrap: anywhere; }
`);

/** A failure that trying again does not fix, with a sentence for the site's owner. */
class NotAllowed extends Error {}

class EmoStream extends HTMLElement {
  #started = null;
  #parts = null;
  #swarm = null;
  #stream = null;
  #reactions = null;
  #own = null;
  #settings = null;
  #clockMs = 0;
  #reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');

  connectedCallback() {
    const started = (this.#started = new AbortController());
    this.#build(started.signal);
    this.#start(started.signal);
  }

  disconnectedCallback() {
    this.#started?.abort();
    this.#stream?.close();
    this.#stream = null;
    this.#swarm?.clear();
  }

  #build(signal) {
    const root = this.shadowRoot ?? this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [STYLE];
    const part = (tag, className, text, ...children) => {
      const created = element(tag, className, text);
      created.append(...children);
      return created;
    };
    const [total, state, canvas, list] = [part('b', '', '–'), part('span', '', 'Connecting'), part('canvas'), part('ol')];
    const words = part('span', '', 'reactions in the newest window');
    const said = part('p', 'said');
    const failed = part('p', 'failed');
    canvas.setAttribute('aria-hidden', 'true');
    list.setAttribute('aria-label', 'Most frequent now');
    said.setAttribute('role', 'status');
    failed.setAttribute('role', 'alert');
    failed.hidden = true;
    const buttons = part('div', 'buttons');
    buttons.setAttribute('role', 'group');
    buttons.setAttribute('aria-label', 'React');
    for (const emoji of new Set((this.getAttribute('emoji') ?? EMOJI).split(/\s+/).filter(Boolean))) {
      const button = part('button', '', emoji);
      button.type = 'button';
      button.setAttribute('aria-label', `React with ${emoji}`);
      button.addEventListener('click', () => this.#react(emoji, button));
      buttons.append(button);
    }
    const head = part('div', 'head', '', part('p', '', '', total, ' ', words), state);
    const body = part('section', '', '', head, list, part('div', 'stage', '', canvas, failed), buttons, said);
    body.setAttribute('aria-label', 'Live reactions');
    root.replaceChildren(body);
    this.#parts = { total, words, state, canvas, list, buttons, said, failed };
    this.#swarm = new Swarm(canvas);
    document.addEventListener('visibilitychange', () => this.#applyVisibility(), { signal });
    addEventListener('online', () => this.#stream?.retryNow(), { signal });
    addEventListener('pagehide', () => this.#stream?.close(), { signal });
    addEventListener('pageshow', (event) => event.persisted && this.#again(), { signal });
    this.#reducedMotion.addEventListener('change', () => this.#applyMotion(), { signal });
    this.#applyMotion();
  }

  async #start(signal) {
    for (let waitMs = RETRY_MS; ; waitMs = Math.min(RETRY_MAX_MS, 2 * waitMs)) {
      try {
        const sentMs = Date.now();
        this.#settings = await loadSettings();
        this.#clockMs = this.#settings.now_ms - (sentMs + Date.now()) / 2;
        break;
      } catch (error) {
        if (signal.aborted) return;
        this.#fail(error.message);
        if (error instanceof NotAllowed) return;
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
      if (signal.aborted) return;
    }
    if (signal.aborted) return;
    this.#fail('');
    this.#own = new OwnTaps(this.#settings.trigger_s);
    this.#reactions = new Reactions(this.#settings.ingest_url, {
      sent: () => this.#say('Sent. It will be in the next window.'),
      refused: (text, emoji) => {
        this.#own.cancel(emoji);
        this.#say(text, true);
      },
    });
    const on = {
      window: (window) => this.#show(window),
      reset: () => {},
      state: (_kind, text, _waitMs, advice) => {
        this.#parts.state.textContent = text;
        if (advice) this.#say(advice, true);
      },
    };
    this.#stream = new SharedStream(this.#settings.after, on, REGISTRY === location.origin ? '' : REGISTRY);
    this.#applyVisibility();
  }

  #again() {
    this.disconnectedCallback();
    this.connectedCallback();
  }

  /** Show why there is nothing to see, also in the console; nothing if the text is empty. */
  #fail(text) {
    const { failed, buttons, state } = this.#parts;
    if (text && failed.textContent !== text) console.error(`<emo-stream>: ${text}`);
    failed.textContent = text;
    failed.hidden = !text;
    for (const button of buttons.children) button.disabled = Boolean(text);
    state.textContent = text ? 'Not connected' : 'Connecting';
  }

  #say(text, refused = false) {
    this.#parts.said.className = refused ? 'said refused' : 'said';
    this.#parts.said.textContent = text;
  }

  #applyVisibility() {
    if (document.hidden) {
      this.#stream?.hide();
      this.#swarm.clear();
    } else {
      this.#stream?.show();
    }
  }

  #applyMotion() {
    this.#parts.canvas.hidden = this.#reducedMotion.matches;
    if (this.#reducedMotion.matches) this.#swarm.clear();
  }

  #show(window) {
    const { total, words, list } = this.#parts;
    const { trigger_s: triggerS } = this.#settings;
    const others = this.#own.others(window);
    total.textContent = whole(window.total);
    words.textContent = `${window.total === 1 ? 'reaction' : 'reactions'} in ${triggerS} s`;
    const items = ranked(window).slice(0, RANKED).map(({ emoji_type: emoji, count }) => {
      const item = element('li');
      item.append(element('span', 'emoji', emoji), ` ${whole(count)}`);
      return item;
    });
    list.replaceChildren(...items);
    const ageMs = Date.now() + this.#clockMs - window.trigger_ns / 1e6;
    if (ageMs < 2_000 * triggerS && !this.#reducedMotion.matches) this.#swarm.show(others, triggerS * 0.95);
  }

  #react(emoji, button) {
    if (!this.#reactions?.react(emoji)) return;
    if (this.#reducedMotion.matches) return;
    this.#own.add(emoji, Date.now() + this.#clockMs);
    const { left, width } = button.getBoundingClientRect();
    this.#swarm.fly(emoji, left + width / 2);
  }
}

/** Return the settings of the chain. Raises Error with a sentence: NotAllowed if this page's origin is not listed. */
async function loadSettings() {
  const request = (path) => fetch(`${REGISTRY}${path}`, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MS) });
  try {
    const response = await request('/page/settings.json');
    if (response.ok) return await response.json();
  } catch {
    // Every page may load the scripts: if these are answered, the browser withheld the settings from this page's origin.
    const script = await request('/page/embed.js').catch(() => null);
    if (script?.ok) {
      throw new NotAllowed(
        `Pages of ${location.origin} may not show the reactions of ${REGISTRY}: add ${location.origin} to the setting ` +
          'origins of the chain (EMOSTREAM_ORIGINS, --origins), and start it again.',
      );
    }
  }
  throw new Error(
    `There is no answer from ${REGISTRY}: check that it runs, and that connect-src in this page's ` +
      'Content-Security-Policy lists it. Trying again.',
  );
}

customElements.define('emo-stream', EmoStream);
