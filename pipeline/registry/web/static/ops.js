// The operator's view: it fetches the figures every two seconds and draws them.

import { byId, element, whole } from './dom.js';

const POLL_MS = 2_000;
const POLL_MAX_MS = 15_000;
const [WIDTH, HEIGHT] = [600, 150];

let ingestUrl = null;
let ingestAlert = null;

const seconds = (value) => (value === null ? '–' : `${value.toFixed(2)}\u00a0s`);
const known = (value, show = whole) => (value === null ? '–' : show(value));
const rate = (value) => (value < 10 ? value.toFixed(1) : whole(value));

function svgElement(svg, tag, className, attributes) {
  const created = document.createElementNS(svg.namespaceURI, tag);
  created.setAttribute('class', className);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  return created;
}

/** Draw values from left to right as a line; null leaves a gap. */
function line(id, values, topId) {
  const svg = byId(id);
  const present = values.filter((value) => value !== null);
  const most = Math.max(1, ...present);
  const parts = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const x = values.length > 1 ? (index / (values.length - 1)) * WIDTH : WIDTH;
    const y = HEIGHT - (value / most) * (HEIGHT - 6);
    const begins = !parts.length || values[index - 1] === null;
    parts.push(`${begins ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`);
  });
  svg.replaceChildren(svgElement(svg, 'path', 'line', { d: parts.join('') }));
  byId(topId).textContent = present.length ? `highest ${rate(Math.max(...present))}` : 'no data yet';
}

/** Draw each micro-batch's time as a bar, with a line at the trigger interval. */
function bars(batches, triggerS) {
  const svg = byId('batch-chart');
  const most = Math.max(triggerS * 1.15, ...batches.map((batch) => batch.batch_s));
  const step = WIDTH / Math.max(40, batches.length);
  const left = WIDTH - step * batches.length;
  const y = (value) => HEIGHT - (value / most) * HEIGHT;
  svg.replaceChildren(
    ...batches.map((batch, index) =>
      svgElement(svg, 'rect', batch.batch_s > triggerS ? 'bar over' : 'bar', {
        x: (left + index * step).toFixed(1),
        y: y(batch.batch_s).toFixed(1),
        width: (step * 0.7).toFixed(1),
        height: (HEIGHT - y(batch.batch_s)).toFixed(1),
      }),
    ),
    svgElement(svg, 'line', 'limit', { x1: 0, x2: WIDTH, y1: y(triggerS).toFixed(1), y2: y(triggerS).toFixed(1) }),
  );
  const longest = Math.max(0, ...batches.map((batch) => batch.batch_s));
  byId('batch-top').textContent = batches.length ? `longest ${seconds(longest)}; dashed: trigger` : 'no data yet';
}

function showAlerts(alerts) {
  const all = ingestAlert ? [ingestAlert, ...alerts] : alerts;
  const items = all.map(({ title, detail }) => {
    const item = element('li');
    item.append(element('b', '', title), element('span', '', detail));
    return item;
  });
  const list = byId('alerts');
  const shown = items.length ? items : [element('li', 'none', 'No alerts.')];
  // Screen readers would read an unchanged list aloud again.
  if (list.textContent !== shown.map((item) => item.textContent).join('')) list.replaceChildren(...shown);
}

function showSubscribers(subscribers) {
  const most = Math.max(1, ...subscribers.map((member) => member.clients));
  byId('subscribers').replaceChildren(
    ...subscribers.map((member) => {
      const row = element('tr', member.live ? '' : 'silent');
      const share = element('td', 'share');
      const track = element('span', 'track');
      const bar = element('i');
      bar.style.width = `${(100 * member.clients) / most}%`;
      track.append(bar);
      share.append(track);
      const announced = member.live ? `${member.age_s.toFixed(1)} s ago` : `silent for ${whole(member.age_s)} s`;
      const last = member.last_event_id === null ? 'none' : member.last_event_id.split(':').at(-1);
      row.append(
        element('td', '', `${member.cluster}/${member.subscriber}`),
        element('td', '', whole(member.clients)),
        share,
        element('td', 'n', announced),
        element('td', 'n', last),
      );
      return row;
    }),
  );
}

/** Say how many records were no reactions; the one that `up` sends to a new chain's first window does not count. */
function invalid(windows) {
  const ofUp = ({ id, malformed }) => (id.endsWith(':0') ? Math.min(1, malformed) : 0);
  const count = windows.reduce((sum, window) => sum + window.malformed - ofUp(window), 0);
  if (!count) return '';
  return `In the last ${windows.length} windows, ${count === 1 ? '1 record was not a valid reaction' : `${whole(count)} records were not valid reactions`}.`;
}

/** Say how many records no stage could use, and how to see them. */
function unused(count) {
  if (!count) return '';
  return `${count === 1 ? '1 record' : `${whole(count)} records`} that a stage could not use: emostream dead-letters shows them.`;
}

function show(data) {
  const { batch, trigger_s: triggerS } = data;
  byId('arriving').textContent = known(data.arriving_per_s, rate);
  byId('counted').textContent = rate(data.counted_per_s);
  byId('lag').textContent = known(data.lag);
  const usual = data.arriving_per_s === null ? '' : `; up to ${whole(2 * data.arriving_per_s * triggerS)} is usual`;
  byId('lag-usual').textContent = `reactions not yet read by Spark${usual}`;
  byId('batch').textContent = seconds(batch.p95_s);
  byId('batch').classList.toggle('bad', batch.newest_s > triggerS);
  byId('trigger').textContent = `of ${triggerS}\u00a0s`;
  byId('headroom').textContent = batch.p95_s === null ? 'p95' : `p95; median ${seconds(batch.p50_s)}, newest ${seconds(batch.newest_s)}`;
  byId('watching').textContent = whole(data.watching);
  const live = data.subscribers.filter((member) => member.live).length;
  byId('per-subscriber').textContent = `clients on ${live} live of ${data.subscribers.length} subscribers`;
  line('arriving-chart', data.samples.map((sample) => sample.arriving_per_s), 'arriving-top');
  line('lag-chart', data.samples.map((sample) => sample.lag), 'lag-top');
  bars(data.batches, triggerS);
  showSubscribers(data.subscribers);
  showAlerts(data.alerts);
  byId('note').textContent = [invalid(data.windows), unused(data.dead_letters)].filter(Boolean).join(' ');
}

/** Fetch the health of ingest from the browser, as reactions are sent; one of its workers answers. */
async function checkIngest() {
  try {
    if (ingestUrl === null) ingestUrl = (await (await fetch('/page/settings.json')).json()).ingest_url;
    const response = await fetch(`${ingestUrl}/healthz`, { signal: AbortSignal.timeout(5_000), credentials: 'omit' });
    const health = await response.json();
    byId('ingest').textContent = response.ok ? 'OK' : 'unhealthy';
    byId('ingest-words').textContent = `${whole(health.waiting)} waiting, ${whole(health.accepted)} accepted by the worker that answered`;
    ingestAlert = response.ok ? null : { title: 'Ingest is unhealthy', detail: health.status };
  } catch {
    byId('ingest').textContent = 'silent';
    byId('ingest-words').textContent = 'no answer';
    ingestAlert = { title: 'Ingest does not answer', detail: `${ingestUrl ?? 'its address is unknown'}: this browser cannot send reactions` };
  }
  byId('ingest').classList.toggle('bad', ingestAlert !== null);
}

function state(kind, text) {
  byId('state').dataset.kind = kind;
  if (byId('state-words').textContent !== text) byId('state-words').textContent = text;
}

async function run() {
  let waitMs = POLL_MS;
  let shownMs = null;
  for (;;) {
    if (!document.hidden) {
      await checkIngest();
      try {
        const response = await fetch('/ops/data', { cache: 'no-store', signal: AbortSignal.timeout(10_000) });
        if (!response.ok) throw new Error(`status ${response.status}`);
        show(await response.json());
        shownMs = Date.now();
        waitMs = POLL_MS;
        state('live', 'Live');
      } catch {
        waitMs = Math.min(POLL_MAX_MS, waitMs * 1.5);
        const age = shownMs === null ? '' : `; the figures are ${Math.round((Date.now() - shownMs) / 1000)} s old`;
        state('waiting', `The registry does not answer${age}`);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, waitMs * (0.9 + Math.random() * 0.2)));
  }
}

run();
