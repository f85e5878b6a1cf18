// A load for k6 (https://k6.io): fans who react, one client who watches, and someone who sends nonsense.
//
//   k6 run -e USERS=100 -e DURATION=60s experiments/k6/emostream.js
//
// Settings, each as -e NAME=VALUE: INGEST and REGISTRY (the addresses that `python -m pipeline up` prints), USERS,
// DURATION, and THINK_S (the mean pause of a fan, in seconds). k6 ends with status 99 if a threshold is missed.

import http from "k6/http";
import { check, fail, sleep } from "k6";
import { Counter } from "k6/metrics";

const INGEST = __ENV.INGEST || "http://127.0.0.1:8000";
const REGISTRY = __ENV.REGISTRY || "http://127.0.0.1:8080";
const THINK_S = number("THINK_S", 1);
// How often each emoji is sent, relative to the others.
const MIX = { "😂": 30, "❤️": 20, "🔥": 14, "👏": 10, "😍": 8, "🎉": 6, "😮": 5, "😢": 4, "👍": 2, "👍🏽": 1 };
const BAD = {
  "no emoji": { user_id: "k6-bad", emoji_type: "party-popper", timestamp: "2026-11-23T21:00:00Z" },
  "no timestamp": { user_id: "k6-bad", emoji_type: "🎉" },
  "no user": { user_id: "", emoji_type: "🎉", timestamp: "2026-11-23T21:00:00Z" },
};
const JSON_HEADERS = { "Content-Type": "application/json" };
// A poll is answered after 25 s at the latest.
const POLL_TIMEOUT = "40s";

const accepted = new Counter("emostream_accepted");
const counted = new Counter("emostream_counted");

const duration = __ENV.DURATION || "30s";

export const options = {
  scenarios: {
    fans: { executor: "constant-vus", exec: "react", vus: number("USERS", 10), duration },
    watcher: { executor: "constant-vus", exec: "watch", vus: 1, duration, gracefulStop: POLL_TIMEOUT },
    nonsense: { executor: "constant-vus", exec: "sendNonsense", vus: 1, duration },
  },
  thresholds: {
    checks: ["rate==1"],
    http_req_failed: ["rate==0"],
    "http_req_duration{scenario:fans}": ["p(99)<250"],
  },
};

// Before the load: both stages answer.
export function setup() {
  for (const [name, url] of Object.entries({ INGEST, REGISTRY })) {
    const answer = http.get(`${url}/healthz`);
    if (answer.status !== 200) fail(`${name} is ${url}, and no healthy stage answers there: set -e ${name}=URL`);
  }
}

// One fan: a reaction, and a pause of half to one and a half times THINK_S.
export function react() {
  const body = { user_id: `k6-${__VU}`, emoji_type: pick(MIX), timestamp: new Date().toISOString() };
  const answer = http.post(`${INGEST}/reactions`, JSON.stringify(body), { headers: JSON_HEADERS });
  const well = check(answer, {
    "a reaction is answered 202": ({ status }) => status === 202,
    "it is accepted": (answer) => answer.status === 202 && answer.json("accepted") === 1,
  });
  if (well) accepted.add(1);
  sleep(THINK_S * (0.5 + Math.random()));
}

// One client: registers, polls twice, leaves. The registry redirects each poll to the client's subscriber.
export function watch() {
  const registered = http.post(`${REGISTRY}/clients`, JSON.stringify({ transport: "poll" }), { headers: JSON_HEADERS });
  if (!check(registered, { "a registration is answered 201": ({ status }) => status === 201 })) {
    sleep(1);
    return;
  }
  const client = registered.json();
  const headers = { Authorization: `Bearer ${client.token}` };
  let after = client.last_event_id;
  for (let poll = 0; poll < 2; poll++) {
    const answer = http.get(`${client.stream_url}?after=${after}`, { headers, timeout: POLL_TIMEOUT });
    if (!check(answer, { "a poll is answered 200": ({ status }) => status === 200 })) break;
    const { events, after: next } = answer.json();
    for (const { event, data } of events) if (event === "window") counted.add(data.total);
    after = next;
  }
  const left = http.del(`${REGISTRY}/clients/${client.client_id}`, null, { headers });
  check(left, { "leaving is answered 204": ({ status }) => status === 204 });
}

// What ingest must refuse. A refusal counts as the expected answer, so that http_req_failed stays 0.
export function sendNonsense() {
  for (const [name, body] of Object.entries(BAD)) {
    const answer = http.post(`${INGEST}/reactions`, JSON.stringify(body), {
      headers: JSON_HEADERS,
      responseCallback: http.expectedStatuses(422),
    });
    check(answer, {
      [`${name}: refused with 422`]: ({ status }) => status === 422,
      [`${name}: the problem is explained`]: (answer) => answer.status === 422 && answer.json("detail").length > 0,
    });
    sleep(1);
  }
}

function pick(mix) {
  let left = Math.random() * Object.values(mix).reduce((sum, weight) => sum + weight, 0);
  for (const [emoji, weight] of Object.entries(mix)) if ((left -= weight) < 0) return emoji;
  return Object.keys(mix)[0];
}

function number(name, otherwise) {
  const value = __ENV[name] === undefined ? otherwise : Number(__ENV[name]);
  if (!(value > 0)) throw new Error(`${name} is ${__ENV[name]}: give a number above 0, such as ${otherwise}`);
  return value;
}
