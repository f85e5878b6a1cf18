// The operator's view: asks every two seconds, and draws what it is told.

import { byId, element, whole } from './dom.js';

const ASK_MS = 2_000;
const ASK_MAX_MS = 15_000;
const [WIDTH, HEIGHT] = [600, 150];

let ingestUrl = null;
let ingestTrouble = null;

const seconds = (value) => (value === null ? '–' : `${value.toFixed(2)} s`);
const known = (value, show = whole) => (value === null ? '–' : show(value));
const rate = (value) => (value < 10 ? value.toFixed(1) : whole(value));

function drawn(svg, tag, className, attributes) {
  const made = document.createElementNS(svg.namespaceURI, tag);
  made.setAttribute('class', className);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Draw values from left to right as a line; what is null leaves a hole. */
function line(id, values, words) {
  const svg = byId(id);
  const there = values.filter((value) => value !== null);
  const most = Math.max(1, ...there);
  const parts = [];
  values.forEach((value, place) => {
    if (value === null) return;
    const x = values.length > 1 ? (place / (values.length - 1)) * WIDTH : WIDTH;
    const y = HEIGHT - (value / most) * (HEIGHT - 6);
    const begins = !parts.length || values[place - 1] === null;
    parts.push(`${begins ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`);
  });
  svg.replaceChildren(drawn(svg, 'path', 'line', { d: parts.join('') }));
  byId(words).textContent = there.length ? `highest ${rate(Math.max(...there))}` : 'nothing yet';
}

/** Draw each micro-batch's time as a bar against the trigger. */
function bars(batches, triggerS) {
  const svg = byId('batch-chart');
  const most = Math.max(triggerS * 1.15, ...batches.map((batch) => batch.batch_s));
  const step = WIDTH / Math.max(40, batches.length);
  const left = WIDTH - step * batches.length;
  const y = (value) => HEIGHT - (value / most) * HEIGHT;
  svg.replaceChildren(
    ...batches.map((batch, place) =>
      drawn(svg, 'rect', batch.batch_s > triggerS ? 'bar over' : 'bar', {
        x: (left + place * step).toFixed(1),
        y: y(batch.batch_s).toFixed(1),
        width: (step * 0.7).toFixed(1),
        height: (HEIGHT - y(batch.batch_s)).toFixed(1),
      }),
    ),
    drawn(svg, 'line', 'limit', { x1: 0, x2: WIDTH, y1: y(triggerS).toFixed(1), y2: y(triggerS).toFixed(1) }),
  );
  const longest = Math.max(0, ...batches.map((batch) => batch.batch_s));
  byId('batch-top').textContent = batches.length ? `longest ${seconds(longest)} of ${triggerS} s` : 'nothing yet';
}

function showTroubles(troubles) {
  const every = ingestTrouble ? [ingestTrouble, ...troubles] : troubles;
  const items = every.map(({ what, detail }) => {
    const item = element('li');
    item.append(element('b', '', what), element('span', '', detail));
    return item;
  });
  const list = byId('troubles');
  const shown = items.length ? items : [element('li', 'none', 'Nothing is wrong that can be seen from here.')];
  // The same again is not news, and would be read out again.
  if (list.textContent !== shown.map((item) => item.textContent).join('')) list.replaceChildren(...shown);
}

function showSubscribers(subscribers) {
  const most = Math.max(1, ...subscribers.map((held) => held.clients));
  byId('subscribers').replaceChildren(
    ...subscribers.map((held) => {
      const row = element('tr', held.live ? '' : 'silent');
      const share = element('td', 'share');
      const track = element('span', 'track');
      const bar = element('i');
      bar.style.width = `${(100 * held.clients) / most}%`;
      track.append(bar);
      share.append(track);
      const heard = held.live ? `${held.age_s.toFixed(1)} s ago` : `silent for ${whole(held.age_s)} s`;
      const last = held.last_event_id === null ? 'none' : held.last_event_id.split(':').at(-1);
      row.append(
        element('td', '', `${held.cluster}/${held.subscriber}`),
        element('td', '', whole(held.clients)),
        share,
        element('td', 'n', heard),
        element('td', 'n', last),
      );
      return row;
    }),
  );
}

function show(data) {
  const { batch, trigger_s: triggerS } = data;
  byId('arriving').textContent = known(data.arriving_per_s, rate);
  byId('counted').textContent = rate(data.counted_per_s);
  byId('lag').textContent = known(data.lag);
  const usual = data.arriving_per_s === null ? '' : `, up to ${whole(data.arriving_per_s * triggerS)} is usual`;
  byId('lag-usual').textContent = `reactions not read by Spark${usual}`;
  byId('batch').textContent = seconds(batch.p95_s);
  byId('batch').classList.toggle('bad', batch.newest_s > triggerS);
  byId('trigger').textContent = `of ${triggerS} s`;
  byId('headroom').textContent = batch.p95_s === null ? 'micro-batch time, p95' : `p95; median ${seconds(batch.p50_s)}, newest ${seconds(batch.newest_s)}`;
  byId('watching').textContent = whole(data.watching);
  const live = data.subscribers.filter((held) => held.live).length;
  byId('per-subscriber').textContent = `clients on ${live} live of ${data.subscribers.length} subscribers`;
  line('arriving-chart', data.samples.map((sample) => sample.arriving_per_s), 'arriving-top');
  line('lag-chart', data.samples.map((sample) => sample.lag), 'lag-top');
  bars(data.batches, triggerS);
  showSubscribers(data.subscribers);
  showTroubles(data.troubles);
  byId('note').textContent = `Of the last ${data.windows.length} windows, ${data.malformed === 1 ? '1 record was no reaction' : `${whole(data.malformed)} records were no reactions`}.`;
}

/** Ask ingest itself, by the way that reactions take; each answer is that of one of its workers. */
async function askIngest() {
  try {
    if (ingestUrl === null) ingestUrl = (await (await fetch('/page/settings.json')).json()).ingest_url;
    const response = await fetch(`${ingestUrl}/healthz`, { signal: AbortSignal.timeout(5_000), credentials: 'omit' });
    const health = await response.json();
    byId('ingest').textContent = response.ok ? 'OK' : 'ill';
    byId('ingest-words').textContent = `a worker holds ${whole(health.waiting)}, took ${whole(health.accepted)} so far`;
    ingestTrouble = response.ok ? null : { what: 'Ingest is ill', detail: health.status };
  } catch {
    byId('ingest').textContent = 'silent';
    byId('ingest-words').textContent = 'no answer';
    ingestTrouble = { what: 'Ingest does not answer', detail: `${ingestUrl ?? 'its address is not known'}: reactions cannot be sent from here` };
  }
  byId('ingest').classList.toggle('bad', ingestTrouble !== null);
}

function state(kind, words) {
  byId('state').dataset.kind = kind;
  if (byId('state-words').textContent !== words) byId('state-words').textContent = words;
}

async function run() {
  let waitMs = ASK_MS;
  let heardMs = null;
  for (;;) {
    if (!document.hidden) {
      await askIngest();
      try {
        const response = await fetch('/ops/data', { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
        if (!response.ok) throw new Error(`status ${response.status}`);
        show(await response.json());
        heardMs = Date.now();
        waitMs = ASK_MS;
        state('live', 'Live');
      } catch {
        waitMs = Math.min(ASK_MAX_MS, waitMs * 1.5);
        const old = heardMs === null ? '' : `, figures are ${Math.round((Date.now() - heardMs) / 1000)} s old`;
        state('waiting', `The registry does not answer${old}`);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs * (0.9 + Math.random() * 0.2)));
  }
}

run();
