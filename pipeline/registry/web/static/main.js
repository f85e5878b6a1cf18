// The page: joins the parts.

import { byId, element, kept, whole } from './dom.js';
import { Picker } from './picker.js';
import { Reactions } from './reactions.js';
import { Stream } from './stream.js';
import { Summary } from './summary.js';
import { Swarm } from './swarm.js';
import { Bars, showRanking, showTally } from './windows.js';

const RECENT_MAX = 3;
const NOTICE_MS = 8_000;
const ASK_AGAIN_S = 10;

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
// The server's clock less this one's, ms.
let clockMs = 0;
// What the registry says; null while it does not.
let watchers = null;

// windows

function take(window) {
  newest = window;
  const ageMs = Date.now() + clockMs - window.trigger_ns / 1e6;
  const fresh = ageMs < 2_000 * settings.trigger_s;
  bars.add(window, picker.nameOf);
  showRanking(window, picker.nameOf);
  showTally(window, picker.nameOf);
  byId('total').textContent = whole(window.total);
  byId('total-words').textContent = window.total === 1 ? 'reaction' : 'reactions';
  tellAge();
  if (!fresh) return;
  summary.take(window, picker.nameOf);
  if (!isCalm()) legend(swarm.show(window.reactions, settings.trigger_s * 0.95));
}

function tellAge() {
  let ageS = Infinity;
  if (newest !== null) {
    ageS = Math.max(0, (Date.now() + clockMs - newest.trigger_ns / 1e6) / 1000);
    const old = ageS < 90 ? `${Math.round(ageS)} s` : `${Math.round(ageS / 60)} min`;
    byId('age').textContent = `window ${newest.window}, ${old} old`;
  }
  // A window without reactions is not sent: silence is not a fault. Whoever is cut off cannot tell.
  byId('quiet').hidden = !isLive() || ageS < 3 * settings.trigger_s;
}

function missed({ reason }) {
  // What came before this page opened is nobody's loss.
  if (newest === null) return;
  bars.gap();
  notice(`Some windows were missed: ${reason}.`);
}

// connection

function isLive() {
  return byId('connection').dataset.kind === 'live';
}

function connection(kind, words, waitMs) {
  const pill = byId('connection');
  const before = pill.dataset.kind;
  pill.dataset.kind = kind;
  const seconds = Math.ceil(waitMs / 1000);
  byId('connection-words').textContent = waitMs ? `${words}, again in ${seconds} s` : words;
  const lost = kind === 'waiting' || kind === 'lost';
  if (lost && before === 'live') summary.say('The connection was lost. Connecting again.');
  if (kind === 'live' && newest !== null) summary.say('Connected again.');
  if (kind === 'lost') elsewhere();
  tellAge();
  tellWatching();
}

/** Another name for the same machine keeps the stream's cookie away. */
function elsewhere() {
  const ours = new URL(settings.registry_url ?? location.href);
  if (ours.hostname === location.hostname) return;
  notice('This page cannot be reached at the address it was opened at. It should be at ', ours.href);
}

function tellWatching() {
  // Subscribers tell once a second: whoever sees the stream is watching already.
  byId('watching').textContent = watchers === null ? '–' : whole(Math.max(isLive() ? 1 : 0, watchers));
}

async function watching() {
  let againS = ASK_AGAIN_S;
  if (!document.hidden) {
    try {
      const response = await fetch('/watching', { cache: 'no-store', signal: AbortSignal.timeout(5_000) });
      const said = await response.json();
      watchers = said.watching;
      againS = said.again_s;
    } catch {
      watchers = null;
    }
    tellWatching();
  }
  setTimeout(watching, againS * (750 + Math.random() * 500));
}

// reacting

function react(emoji) {
  if (reactions === null) return refused('The page is still being set up.');
  return reactions.react(emoji);
}

function sent(emoji) {
  byId('sent').className = '';
  const names = emoji.length === 1 ? picker.nameOf(emoji[0]) : `${emoji.length} reactions`;
  byId('sent').textContent = `Sent: ${names}. It counts in the next window.`;
}

function refused(words) {
  byId('sent').className = 'refused';
  byId('sent').textContent = words;
}

function remember(emoji) {
  const usual = [...document.querySelectorAll('#quick [data-emoji]:not(.recent)')].map((button) => button.dataset.emoji);
  if (usual.includes(emoji)) return;
  const recent = [emoji, ...recentOnes().filter((other) => other !== emoji)].slice(0, RECENT_MAX);
  kept.set('recent', JSON.stringify(recent));
  showRecent();
}

function recentOnes() {
  try {
    return JSON.parse(kept.get('recent') ?? '[]').map(String);
  } catch {
    return [];
  }
}

function showRecent() {
  for (const button of document.querySelectorAll('#quick .recent')) button.remove();
  for (const emoji of recentOnes()) {
    const button = element('button', 'recent');
    button.type = 'button';
    button.dataset.emoji = emoji;
    byId('more').before(button);
  }
  dress();
}

/** Show every button in the chosen skin tone, with its name once names are there. */
function dress() {
  for (const button of document.querySelectorAll('#quick [data-emoji]')) {
    button.textContent = picker.inTone(button.dataset.emoji);
    if (button.matches('.recent')) button.setAttribute('aria-label', picker.nameOf(button.dataset.emoji));
  }
}

// choices

function isCalm() {
  const chosen = kept.get('calm');
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
  const unit = isCalm() ? 'each in the tally' : 'each emoji in the air';
  byId('legend').textContent = group > 1 ? `${unit} stands for up to ${whole(group)} reactions` : `${unit} is one reaction`;
}

let noticed = 0;
function notice(words, link = '') {
  const box = byId('notice');
  box.textContent = words;
  if (link) box.append(Object.assign(element('a', '', link), { href: link }));
  box.hidden = false;
  clearTimeout(noticed);
  if (!link) noticed = setTimeout(() => (box.hidden = true), NOTICE_MS);
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
  kept.set('calm', isCalm() ? 'no' : 'yes');
  applyCalm();
});
byId('aloud').addEventListener('click', () => {
  summary.enabled = !summary.enabled;
  kept.set('aloud', summary.enabled ? 'yes' : 'no');
  byId('aloud').setAttribute('aria-pressed', String(summary.enabled));
});
reducedMotion.addEventListener('change', applyCalm);
document.addEventListener('tone', dress);
document.addEventListener('visibilitychange', () => !document.hidden && stream?.hurry());
addEventListener('online', () => stream?.hurry());
addEventListener('pagehide', () => stream?.close());
// Out of the browser's back-and-forward cache: the place was given up when it went in.
addEventListener('pageshow', (event) => event.persisted && location.reload());

async function begin() {
  summary.enabled = kept.get('aloud') !== 'no';
  byId('aloud').setAttribute('aria-pressed', String(summary.enabled));
  for (let wait = 1_000; ; wait = Math.min(10_000, wait * 1.5)) {
    try {
      const askedMs = Date.now();
      const response = await fetch('/page/settings.json', { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
      settings = await response.json();
      clockMs = settings.now_ms - (askedMs + Date.now()) / 2;
      break;
    } catch {
      connection('waiting', 'No answer', wait);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
  applyCalm();
  reactions = new Reactions(settings.ingest_url, { sent, refused });
  stream = new Stream(settings.after, { window: take, reset: missed, state: connection });
  stream.run();
  setInterval(tellAge, 1_000);
  watching();
  picker.load().then(dress, () => {});
}

showRecent();
begin();
