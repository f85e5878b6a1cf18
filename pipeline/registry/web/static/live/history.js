// Past windows, from the API: a client that polls, for as long as it takes to come to the newest window.

import { isNew } from './stream.js';

const ANSWER_MS = 30_000;
/** The number of windows that a page keeps, as subscribers do: an hour of windows of 6 s. */
export const KEPT_MAX = 600;
const KEPT_EMOJI_MAX = 100;

/** Return a window with its most frequent emoji only: a busy one lists a thousand. */
export function slim(window) {
  if (window.reactions.length <= KEPT_EMOJI_MAX) return window;
  const reactions = [...window.reactions].sort((a, b) => b.count - a.count).slice(0, KEPT_EMOJI_MAX);
  return { ...window, reactions };
}

/**
 * Return the events after id `after`, as {id, event, data}: by default all windows that are kept, at least six hundred.
 * `base` is the registry's address in a page of another origin. Raises Error with a sentence for the user.
 */
export async function pastEvents({ after = 'kept', base = '' } = {}) {
  const registered = await request(`${base}/clients`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ transport: 'poll' }),
  });
  const { client_id: id, token, last_event_id: newest } = await registered.json();
  const headers = { Authorization: `Bearer ${token}` };
  const events = [];
  try {
    // A poll after the newest window would wait for the next one.
    for (let last = after; newest.includes(':') && isNew(newest, last); ) {
      const url = `${base}/clients/${id}/windows?after=${encodeURIComponent(last)}`;
      const answer = await (await request(url, { headers })).json();
      for (const { id: eventId, event, data } of answer.events) {
        events.push({ id: eventId, event, data: event === 'window' ? slim(data) : data });
      }
      if (answer.after === last) break;
      last = answer.after;
    }
  } finally {
    fetch(`${base}/clients/${id}`, { method: 'DELETE', headers, keepalive: true }).catch(() => {});
  }
  return events;
}

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, { ...options, cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MS) });
  } catch {
    throw new Error('Past windows cannot be loaded: there is no answer from the server.');
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null);
  throw new Error(`Past windows cannot be loaded: ${problem?.title ?? `the server answered ${response.status}`}.`);
}
