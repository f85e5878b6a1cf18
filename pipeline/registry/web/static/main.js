// The page: it connects the parts.

import { byId, element, stored, whole } from './dom.js';
import { OwnTaps } from './live/own_taps.js';
import { Reactions } from './live/reactions.js';
import { SharedStream } from './live/shared_stream.js';
import { Swarm } from './live/swarm.js';
import { Picker } from './picker.js';
import { Replay, timeOf } from './replay.js';
import { Summary } from './summary.js';
import { Bars, showRanking, showTally } from './windows.js';

const RECENT_MAX = 3;
const NOTICE_MS = 8_000;
const POLL_S = 10;

const swarm = new Swarm(byId('swarm'));
const bars = new Bars();
const summary = new Summary();
const replay = new Replay({ window: showPast, live: showLive });
const picker = new Picker((emoji, plain) => {
  remember(plain);
  react(emoji, byId('more'));
});
const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');

let settings = { trigger_s: 6, group_size: 10, after: null };
let reactions = null;
let stream = null;
let newest = null;
let own = new OwnTaps(settings.trigger_s);
// The server's clock minus this clock, ms.
let clockMs = 0;
// The number of viewers; null while the registry does not answer.
let watchers = null;
let viewers = null;
let advised = '';
// Whether a person who hears the page was told that the connection was lost.
let wasLost = false;

// windows

function showWindow(window) {
  newest = window;
  const others = own.others(window);
  const fresh = nowMs() - window.trigger_ns / 1e6 < 2_000 * settings.trigger_s;
  bars.add(window, picker.nameOf);
  replay.add(window);
  if (fresh) summary.add(window, picker.nameOf);
  if (replay.window !== null) return;
  present(window);
  if (fresh && !isCalm()) legend(swarm.show(others, settings.trigger_s * 0.95));
}

/** Show a window's figures: the newest's, or those of a past one. */
function present(window) {
  byId('now-title').textContent = replay.window === null ? 'Most frequent now' : `Most frequent at ${timeOf(window)}`;
  showRanking(window, picker.nameOf);
  showOwnAndTally(window);
  byId('total').textContent = whole(window.total);
  byId('total-words').textContent = window.total === 1 ? 'reaction' : 'reactions';
  showAge();
}

function showOwnAndTally(window) {
  showTally(window, picker.nameOf, replay.window === null ? own.waiting : []);
}

/** Show a window of the last hour: in motion while it is played, otherwise as a still picture. */
function showPast(window, seconds) {
  present(window);
  if (isCalm()) return;
  if (seconds) legend(swarm.show(window.reactions, seconds));
  else legend(swarm.still(window.reactions, window.window));
}

function showLive() {
  swarm.clear();
  if (newest !== null) present(newest);
}

/** Return the server's time, ms. */
function nowMs() {
  return Date.now() + clockMs;
}

function showAge() {
  let ageS = Infinity;
  if (newest !== null) {
    ageS = Math.max(0, (nowMs() - newest.trigger_ns / 1e6) / 1000);
    const age = ageS < 90 ? `${Math.round(ageS)} s` : `${Math.round(ageS / 60)} min`;
    byId('age').textContent = `window ${newest.window}, ${age} ago`;
  }
  if (replay.window !== null) byId('age').textContent = `window ${replay.window.window}, replay of ${timeOf(replay.window)}`;
  // No window is sent while there are no reactions, so a long time without a window means that nobody reacts.
  // Without a connection this is not known.
  const quiet = isLive() && ageS >= 3 * settings.trigger_s && own.waiting.length === 0 && replay.window === null;
  byId('quiet').hidden = !quiet;
}

function missed({ reason }) {
  // Windows from before this page opened do not count as missed.
  if (newest === null) return;
  bars.gap();
  replay.reload();
  notice(`Some windows were missed: ${reason}.`);
}

// connection

function isLive() {
  return byId('connection').dataset.kind === 'live';
}

function showConnection(kind, text, waitMs, advice = '') {
  const pill = byId('connection');
  const before = pill.dataset.kind;
  pill.dataset.kind = kind;
  const seconds = Math.ceil(waitMs / 1000);
  byId('connection-words').textContent = waitMs ? `${text}, retrying in ${seconds} s` : text;
  const lost = kind === 'waiting' || kind === 'lost';
  if (lost && before === 'live') {
    wasLost = true;
    summary.say('The connection was lost. Reconnecting.');
  } else if (kind === 'live' && wasLost) {
    wasLost = false;
    summary.say('Reconnected.');
  }
  if (advice) advise(advice);
  else if (kind === 'live') advise('');
  showAge();
  showWatching();
}

/** Show what the user can do to be connected, until the page is connected. */
function advise(advice) {
  if (advice === advised) return;
  advised = advice;
  byId('notice').hidden = true;
  if (!advice) return;
  notice(advice, 0);
  summary.say(advice);
}

function showWatching() {
  // Subscribers announce their clients once per second: this page counts itself from the start.
  const count = watchers === null ? null : Math.max(isLive() ? 1 : 0, watchers);
  byId('watching').textContent = count === null ? '–' : whole(count);
  // A viewer whose tab is hidden has no stream, and is registered for another hour.
  const away = count !== null && viewers > count;
  byId('viewers').textContent = away ? `of ${whole(viewers)} viewers` : count === 1 ? 'viewer' : 'viewers';
}

async function pollWatching() {
  let pollS = POLL_S;
  try {
    const response = await fetch('/watching', { cache: 'no-store', signal: AbortSignal.timeout(5_000) });
    const answer = await response.json();
    watchers = answer.watching;
    viewers = answer.registered;
    pollS = answer.again_s;
  } catch {
    watchers = null;
  }
  showWatching();
  nextPollMs = performance.now() + pollS * (750 + Math.random() * 500);
  schedulePoll();
}

let nextPollMs = 0;
let pollTimer = 0;
function schedulePoll() {
  clearTimeout(pollTimer);
  if (!document.hidden) pollTimer = setTimeout(pollWatching, Math.max(0, nextPollMs - performance.now()));
}

// reacting

/** Send a reaction and show it at once; `button` is where it flies from. */
function react(emoji, button) {
  if (reactions === null) return refused('The page is still loading: try again in a moment.', []);
  if (!reactions.react(emoji)) return;
  // In a replay it is not shown: it will be in its window.
  if (replay.window !== null) return;
  own.add(emoji, nowMs());
  showAge();
  if (isCalm()) return showOwnAndTally(newest ?? { reactions: [] });
  const { left, width } = button.getBoundingClientRect();
  swarm.fly(emoji, left + width / 2);
}

function sent(emoji) {
  byId('sent').className = '';
  const names = emoji.length === 1 ? picker.nameOf(emoji[0]) : `${emoji.length} reactions`;
  byId('sent').textContent = `Sent: ${names}. It will be in the next window.`;
}

function refused(text, emoji) {
  own.cancel(emoji);
  byId('sent').className = 'refused';
  byId('sent').textContent = text;
}

function remember(emoji) {
  const fixed = [...document.querySelectorAll('#quick [data-emoji]:not(.recent)')].map((button) => button.dataset.emoji);
  if (fixed.includes(emoji)) return;
  const recent = [emoji, ...recentEmoji().filter((other) => other !== emoji)].slice(0, RECENT_MAX);
  stored.set('recent', JSON.stringify(recent));
  showRecent();
}

function recentEmoji() {
  try {
    return JSON.parse(stored.get('recent') ?? '[]').map(String);
  } catch {
    return [];
  }
}

function showRecent() {
  for (const button of document.querySelectorAll('#quick .recent')) button.remove();
  for (const emoji of recentEmoji()) {
    const button = element('button', 'recent');
    button.type = 'button';
    button.dataset.emoji = emoji;
    byId('more').before(button);
  }
  showTones();
}

/** Show every button in the chosen skin tone, and with its name after the names are loaded. */
function showTones() {
  for (const button of document.querySelectorAll('#quick [data-emoji]')) {
    button.textContent = picker.inTone(button.dataset.emoji);
    if (button.matches('.recent')) button.setAttribute('aria-label', picker.nameOf(button.dataset.emoji));
  }
}

// choices

function isCalm() {
  const chosen = stored.get('calm');
  return chosen === null ? reducedMotion.matches : chosen === 'yes';
}

function applyCalm() {
  const calm = isCalm();
  byId('calm').setAttribute('aria-pressed', String(calm));
  byId('tally').hidden = !calm;
  byId('swarm').hidden = calm;
  if (calm) swarm.clear();
  legend(1);
}

function legend(share) {
  const group = Math.round(settings.group_size * share);
  const unit = isCalm() ? 'Each emoji in the list' : 'Each flying emoji';
  byId('legend').textContent = group > 1 ? `${unit} stands for up to ${whole(group)} reactions` : `${unit} is one reaction`;
}

// visibility

let ageTimer = 0;

/** A hidden page draws nothing and has no timer and no connection. */
function applyVisibility() {
  clearInterval(ageTimer);
  clearTimeout(pollTimer);
  if (document.hidden) {
    stream?.hide();
    replay.pause();
    swarm.clear();
    if (noticeTimer) hideNotice();
  } else if (stream !== null) {
    stream.show();
    showAge();
    ageTimer = setInterval(showAge, 1_000);
    schedulePoll();
  }
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', resolve, { once: true });
  });
}

let noticeTimer = 0;
function hideNotice() {
  clearTimeout(noticeTimer);
  noticeTimer = 0;
  byId('notice').hidden = true;
}

/** Show a sentence for a time, or until another one if `forMs` is 0. */
function notice(text, forMs = NOTICE_MS) {
  const box = byId('notice');
  if (box.textContent !== text) box.textContent = text;
  box.hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = forMs ? setTimeout(hideNotice, forMs) : 0;
}

// events

byId('quick').addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button?.id === 'more') picker.open();
  else if (button) {
    react(picker.inTone(button.dataset.emoji), button);
    button.classList.add('tapped');
    setTimeout(() => button.classList.remove('tapped'), 120);
  }
});
byId('calm').addEventListener('click', () => {
  stored.set('calm', isCalm() ? 'no' : 'yes');
  applyCalm();
});
byId('aloud').addEventListener('click', () => {
  summary.enabled = !summary.enabled;
  stored.set('aloud', summary.enabled ? 'yes' : 'no');
  byId('aloud').setAttribute('aria-pressed', String(summary.enabled));
});
reducedMotion.addEventListener('change', applyCalm);
document.addEventListener('tone', showTones);
document.addEventListener('visibilitychange', applyVisibility);
addEventListener('online', () => stream?.retryNow());
addEventListener('pagehide', () => stream?.close());
// A page from the back-forward cache has deleted its registration when it was hidden: load it again.
addEventListener('pageshow', (event) => event.persisted && location.reload());

async function start() {
  summary.enabled = stored.get('aloud') !== 'no';
  byId('aloud').setAttribute('aria-pressed', String(summary.enabled));
  for (let wait = 1_000; ; wait = Math.min(10_000, wait * 1.5)) {
    await visible();
    try {
      const sentMs = Date.now();
      const response = await fetch('/page/settings.json', { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
      settings = await response.json();
      clockMs = settings.now_ms - (sentMs + Date.now()) / 2;
      break;
    } catch {
      showConnection('waiting', 'No answer', wait);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  applyCalm();
  own = new OwnTaps(settings.trigger_s);
  reactions = new Reactions(settings.ingest_url, { sent, refused });
  stream = new SharedStream(settings.after, { window: showWindow, reset: missed, state: showConnection });
  applyVisibility();
  picker.load().then(showTones, () => {});
}

showRecent();
start();
