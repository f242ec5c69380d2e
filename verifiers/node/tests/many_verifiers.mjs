// A server with one Node verifier for each service in NAMES. `/<name>` is protected by its verifier.

import { createServer } from "node:http";
import { Verifier } from "../verifier.mjs";

const { SERVICE_URL, ISSUER: issuer, AUDIENCE: audience, STALE_SECONDS, NAMES, PORT, CLOCK_AHEAD } = process.env;
const RealDate = Date;
const ahead = Number(CLOCK_AHEAD ?? 0) * 1000;
globalThis.Date = class extends RealDate {
  constructor(...values) {
    super(...(values.length ? values : [RealDate.now() + ahead]));
  }

  static now() {
    return RealDate.now() + ahead;
  }
};
console.warn = () => {}; // the services fail on purpose

const staleSeconds = Number(STALE_SECONDS);
const verifiers = Object.fromEntries(
  NAMES.split(",").map((name) => [
    `/${name}`,
    new Verifier(`${SERVICE_URL}/${name}`, { issuer, audience, staleSeconds }).start(),
  ]),
);
createServer((request, response) =>
  verifiers[request.url].protect(request, response, () => response.end(request.claims.sub)),
).listen(Number(PORT), "127.0.0.1");
