// Stands in for k6's modules: requests are recorded and answered from a table, nothing waits.
// Usage: node k6_stand_in.mjs SCRIPT; the table comes on standard input, the record goes to standard output as JSON.

import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";

const { env, answers } = JSON.parse(readFileSync(0, "utf8"));
const record = { requests: [], checks: [], counters: {} };

globalThis.__ENV = env;
globalThis.__VU = 7;
globalThis.__standIn = { record, answers };

const MODULES = {
  "k6/http": `
    const { record, answers } = globalThis.__standIn;
    function request(method, url, body, params) {
      record.requests.push({ method, url, body, headers: params?.headers ?? {}, expected: params?.responseCallback });
      const key = Object.keys(answers).find((each) => (method + " " + url).startsWith(each));
      const given = answers[params?.responseCallback ? "bad" : key] ?? { status: 0, body: null };
      return {
        status: given.status,
        json: (field) => (field === undefined ? given.body : given.body[field]),
      };
    }
    export default {
      get: (url, params) => request("GET", url, null, params),
      post: (url, body, params) => request("POST", url, body, params),
      del: (url, body, params) => request("DELETE", url, body, params),
      expectedStatuses: (...statuses) => statuses,
    };`,
  "k6": `
    const { record } = globalThis.__standIn;
    export function check(value, tests) {
      const results = Object.entries(tests).map(([name, test]) => [name, Boolean(test(value))]);
      record.checks.push(...results);
      return results.every(([, passed]) => passed);
    }
    export function fail(text) { throw new Error(text); }
    export function sleep(seconds) { if (!(seconds > 0)) throw new Error("sleep(" + seconds + ")"); }`,
  "k6/metrics": `
    const { record } = globalThis.__standIn;
    export class Counter {
      constructor(name) { this.name = name; record.counters[name] = 0; }
      add(value) { record.counters[this.name] += value; }
    }`,
};

registerHooks({
  resolve: (name, context, next) => (name in MODULES ? { url: `k6:${name}`, shortCircuit: true } : next(name, context)),
  load: (url, context, next) =>
    url.startsWith("k6:")
      ? { format: "module", source: MODULES[url.slice(3)], shortCircuit: true }
      : next(url, context),
});

try {
  const script = await import(pathToFileURL(process.argv[2]));
  record.options = script.options;
  script.setup();
  for (const { exec } of Object.values(script.options.scenarios)) script[exec]();
} catch (error) {
  record.error = error.message;
}
process.stdout.write(JSON.stringify(record));
