// The page: it connects the parts.

import { byId, element, stored, whole } from './dom.js';
import { Picker } from './picker.js';
import { Reactions } from './live/reactions.js';
import { Stream } from './live/stream.js';
import { Summary } from './summary.js';
import { Swarm } from './live/swarm.js';
import { Bars, showRanking, showTally } from './windows.js';

const RECENT_MAX = 3;
const NOTICE_MS = 8_000;
const POLL_S = 10;

const swarm = new Swarm(byId('swarm'));
const bars = new Bars();
const summary = new Summary();
const picker = new Picker((emoji, plain) => {
  remember(plain);
  react(emoji);
});
const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');

let settings = { trigger_s: 6, group_size: 10, after: null };
let reactions = null;
let stream = null;
let newest = null;
// The server's clock minus this clock, ms.
let clockMs = 0;
// The number of viewers; null while the registry does not answer.
let watchers = null;
let advised = '';

// windows

function showWindow(window) {
  newest = window;
  const ageMs = Date.now() + clockMs - window.trigger_ns / 1e6;
  const fresh = ageMs < 2_000 * settings.trigger_s;
  bars.add(window, picker.nameOf);
  showRanking(window, picker.nameOf);
  showTally(window, picker.nameOf);
  byId('total').textContent = whole(window.total);
  byId('total-words').textContent = window.total === 1 ? 'reaction' : 'reactions';
  showAge();
  if (!fresh) return;
  summary.add(window, picker.nameOf);
  if (!isCalm()) legend(swarm.show(window.reactions, settings.trigger_s * 0.95));
}

function showAge() {
  let ageS = Infinity;
  if (newest !== null) {
    ageS = Math.max(0, (Date.now() + clockMs - newest.trigger_ns / 1e6) / 1000);
    const age = ageS < 90 ? `${Math.round(ageS)} s` : `${Math.round(ageS / 60)} min`;
    byId('age').textContent = `window ${newest.window}, ${age} ago`;
  }
  // No window is sent while there are no reactions, so a long time without a window means that nobody reacts.
  // Without a connection this is not known.
  byId('quiet').hidden = !isLive() || ageS < 3 * settings.trigger_s;
}

function missed({ reason }) {
  // Windows from before this page opened do not count as missed.
  if (newest === null) return;
  bars.gap();
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
  if (lost && before === 'live') summary.say('The connection was lost. Reconnecting.');
  if (kind === 'live' && newest !== null) summary.say('Reconnected.');
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
  byId('watching').textContent = watchers === null ? '–' : whole(Math.max(isLive() ? 1 : 0, watchers));
}

async function pollWatching() {
  let pollS = POLL_S;
  if (!document.hidden) {
    try {
      const response = await fetch('/watching', { cache: 'no-store', signal: AbortSignal.timeout(5_000) });
      const answer = await response.json();
      watchers = answer.watching;
      pollS = answer.again_s;
    } catch {
      watchers = null;
    }
    showWatching();
  }
  setTimeout(pollWatching, pollS * (750 + Math.random() * 500));
}

// reacting

function react(emoji) {
  if (reactions === null) return refused('The page is still loading: try again in a moment.');
  return reactions.react(emoji);
}

function sent(emoji) {
  byId('sent').className = '';
  const names = emoji.length === 1 ? picker.nameOf(emoji[0]) : `${emoji.length} reactions`;
  byId('sent').textContent = `Sent: ${names}. It will be in the next window.`;
}

function refused(text) {
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

let noticeTimer = 0;
/** Show a sentence for a time, or until another one if `forMs` is 0. */
function notice(text, forMs = NOTICE_MS) {
  const box = byId('notice');
  if (box.textContent !== text) box.textContent = text;
  box.hidden = false;
  clearTimeout(noticeTimer);
  if (forMs) noticeTimer = setTimeout(() => (box.hidden = true), forMs);
}

// events

byId('quick').addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button?.id === 'more') picker.open();
  else if (button) {
    react(picker.inTone(button.dataset.emoji));
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
document.addEventListener('visibilitychange', () => !document.hidden && stream?.retryNow());
addEventListener('online', () => stream?.retryNow());
addEventListener('pagehide', () => stream?.close());
// A page from the back-forward cache has deleted its registration when it was hidden: load it again.
addEventListener('pageshow', (event) => event.persisted && location.reload());

async function start() {
  summary.enabled = stored.get('aloud') !== 'no';
  byId('aloud').setAttribute('aria-pressed', String(summary.enabled));
  for (let wait = 1_000; ; wait = Math.min(10_000, wait * 1.5)) {
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
  reactions = new Reactions(settings.ingest_url, { sent, refused });
  stream = new Stream(settings.after, { window: showWindow, reset: missed, state: showConnection });
  stream.run();
  setInterval(showAge, 1_000);
  pollWatching();
  picker.load().then(showTones, () => {});
}

showRecent();
start();
