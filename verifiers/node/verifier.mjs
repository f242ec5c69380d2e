/** Verify the access tokens of the service in another one, without a call per request. Copy this file. */

import { randomBytes } from "node:crypto";
import { STATUS_CODES } from "node:http";
import { uptime as bootClock } from "node:os"; // unlike performance.now(), it counts while the machine is suspended
import { setTimeout as sleep } from "node:timers/promises";
import { decodeProtectedHeader, importJWK, jwtVerify } from "jose";

/** @typedef {{ sub: string, sid: string, exp: number, scopes: string[], auth_time: number, amr: string[] }} Claims */
const KEYS = ["EdDSA OKP Ed25519 sig", "ES256 EC P-256 sig"]; // alg, kty, crv and use of accepted ones
const MARGIN_SECONDS = 300; // for which ended sessions are remembered longer, in case the service's clock is set back
const [MAX_BYTES, MAX_TOKENS] = [4 * 1024 * 1024, 10_000]; // of one response; in the cache of valid signatures

const [int, time] = [Number.isInteger, (value) => Number.isFinite(value) && value >= 0];
const [flag, str] = ["boolean", "string"].map((type) => (value) => typeof value === type);
const strs = (value) => Array.isArray(value) && value.every(str);
const times = (value) => value?.constructor === Object && Object.values(value).every(time);
const TOKEN = { sub: str, sid: str, jti: str, aud: str, iat: int, exp: int, scopes: strs, auth_time: int, amr: strs };
const FEED = { iat: time, age: time, cursor: str, complete: flag, sessions: times, dropped_keys: strs };
const conform = (claims, types) => Object.entries(types).every(([name, matches]) => matches(claims[name]));

/** A response with problem details (RFC 9457) instead of the handler's. */
export class Refusal extends Error {
  constructor(status, code, detail) {
    super(code);
    const error = code === "token_missing" ? "" : ` error="invalid_token", error_description="${detail}"`;
    const header = status === 401 ? { "www-authenticate": `Bearer${error}` } : { "retry-after": "2" };
    this.status = status;
    this.headers = { ...header, "content-type": "application/problem+json", "cache-control": "no-store" };
    this.body = JSON.stringify({ title: STATUS_CODES[status], status, detail, code });
  }
}

const stale = () => new Refusal(503, "revocations_stale", "Session status is temporarily unavailable.");
const invalid = () => new Refusal(401, "token_invalid", "The access token is not valid.");
/**
 * The keys and ended sessions of the service. A signed answer that echoes the nonce just sent makes it fresh from when
 * the request was sent, less the answer's age. Tokens are accepted only within `staleSeconds` from then by the boot
 * clock, and expire by the service's time.
 */
export class Verifier {
  #settings;
  #closing = new AbortController();
  #tasks = [];
  #keys = new Map(); // by id
  #keysAt = -Infinity; // when they were last asked for
  #renewal; // a promise of the keys
  #dropped = new Set(); // ids of keys
  #ended = new Map(); // when to forget each session
  #cursor = null; // of the proofs: nothing before it is missing
  #heard; // the cursor of the long polls
  #freshAt = -Infinity;
  #ahead = 0; // the service's time, less the boot clock
  #verified = new Map(); // key id and claims, by token

  /** @param {string} url @param {{ issuer: string, audience: string, staleSeconds?: number }} settings */
  constructor(url, { issuer, audience, staleSeconds = 10, unknownKeySeconds = 30 }) {
    this.#settings = { url: url.replace(/\/$/, ""), issuer, audience, staleSeconds, unknownKeySeconds };
  }

  /** Follow the service. Until its whole state is read, every token is answered 503. */
  start() {
    this.#tasks.push(this.#repeat(() => this.#prove(), this.#settings.staleSeconds / 4));
    this.#tasks.push(this.#repeat(() => this.#listen(), this.#settings.staleSeconds / 10));
    this.#tasks.push(this.#repeat(() => this.#renewKeys(), 300));
    return this;
  }

  /** Stop, and wait until no request and no timer is left. */
  async close() {
    this.#closing.abort();
    await Promise.allSettled([...this.#tasks, this.#renewal]);
  }

  async #repeat(step, seconds) {
    for (const { signal } = this.#closing; !signal.aborted; ) {
      const pause = sleep(seconds * 1000, undefined, { signal }).catch(() => {});
      await step().catch((error) => signal.aborted || console.warn(`No news of the service: ${error}`));
      await pause;
    }
  }

  /** Middleware for Express and node:http: put the claims of a valid token on the request, or respond. */
  protect = async (request, response, next) => {
    try {
      request.claims = await this.authenticate(request.headersDistinct.authorization ?? []);
    } catch (refusal) {
      return response.writeHead(refusal.status, refusal.headers).end(refusal.body);
    }
    return next();
  };

  /** Return the claims of the valid token in Authorization headers. @returns {Promise<Claims>} @throws {Refusal} */
  async authenticate(/** @type {string[]} */ authorization) {
    const token = /^bearer (.*)$/i.exec(authorization.join(", "))?.[1].trim();
    if (!token) throw new Refusal(401, "token_missing", "An access token is required.");
    if (bootClock() - this.#freshAt > this.#settings.staleSeconds) throw stale();
    const { kid, claims } = this.#verified.get(token) ?? {};
    if (!claims) {
      await this.#verifyToken(token).catch(() => Promise.reject(invalid()));
      return this.authenticate(authorization); // its key may have been fetched, which takes time
    }
    if (!this.#keys.has(kid) || this.#dropped.has(kid)) throw invalid();
    if (claims.exp <= bootClock() + this.#ahead) throw new Refusal(401, "token_expired", "The token has expired.");
    if (this.#ended.has(claims.sid)) throw new Refusal(401, "session_ended", "The session has ended.");
    return claims;
  }

  async #verifyToken(token) {
    const { kid, payload } = await this.#verify(token, "at+jwt", this.#settings.audience);
    const claims = { auth_time: 0, amr: ["pwd"], ...payload };
    if (!conform(claims, TOKEN)) throw new TypeError("a claim is missing or has the wrong type");
    Object.values(claims).forEach(Object.freeze);
    if (this.#verified.size >= MAX_TOKENS) this.#verified.delete(this.#verified.keys().next().value); // the oldest
    this.#verified.set(token, { kid, claims: Object.freeze(claims) });
  }

  /** Return the key id and claims of a signed token. The key id selects the key, and the key the algorithm. */
  async #verify(jws, expectedType, audience) {
    const { issuer, staleSeconds, unknownKeySeconds } = this.#settings;
    const { kid, typ } = decodeProtectedHeader(jws);
    const minAge = this.#keys.size ? unknownKeySeconds : staleSeconds / 4;
    if (!this.#keys.has(kid) && !this.#dropped.has(kid)) await this.#renewKeys(minAge);
    const { key, alg } = this.#keys.get(kid);
    const options = { algorithms: [alg], issuer, audience, currentDate: new Date(0) }; // expiry is checked later
    const { payload } = await jwtVerify(jws, key, options);
    if (typ !== expectedType || this.#dropped.has(kid)) throw new TypeError("wrong type or dropped key");
    return { kid, payload };
  }

  /** Fetch the keys, unless they were asked for more recently. Concurrent callers share one fetch. */
  async #renewKeys(minAge = 0) {
    if (bootClock() - this.#keysAt >= minAge) this.#renewal = this.#fetchKeys();
    await this.#renewal;
  }

  async #fetchKeys() {
    this.#keysAt = bootClock();
    const { keys } = JSON.parse(await this.#get("/.well-known/jwks.json"));
    const usable = keys.filter((key) => KEYS.includes(`${key.alg} ${key.kty} ${key.crv} ${key.use}`) && !("d" in key));
    const entry = async (key) => [key.kid, { alg: key.alg, key: await importJWK(key) }];
    this.#keys = new Map(await Promise.all(usable.map(entry)));
  }

  /** Read all news, page by page. The nonces show that no page is a recording. */
  async #prove() {
    let [began, age, sent, feed] = [bootClock(), 0];
    do {
      [sent, feed] = [bootClock(), await this.#ask(this.#cursor, { nonce: randomBytes(16).toString("base64url") })];
      [this.#cursor, age] = [feed.cursor, Math.max(age, feed.age)];
    } while (!feed.complete);
    [this.#freshAt, this.#ahead, this.#heard] = [Math.max(this.#freshAt, began - age), feed.iat - sent, this.#cursor];
    for (const [sid, forgetAt] of this.#ended) if (forgetAt <= sent) this.#ended.delete(sid);
  }

  /** Hear of news at once. These answers may be recordings, so no proof uses their cursor. */
  async #listen() {
    for (this.#heard = this.#cursor; this.#heard !== null; ) {
      this.#heard = (await this.#ask(this.#heard, { wait: "25" })).cursor;
      await sleep(this.#settings.staleSeconds * 10, undefined, { signal: this.#closing.signal });
    }
  }

  /** Add the ended sessions and dropped keys after a cursor, and return the answer. */
  async #ask(after, query) {
    const jws = await this.#get("/.well-known/revocations", after === null ? query : { ...query, after });
    const { payload: feed } = await this.#verify(jws, "revocations+jwt");
    const asked = feed.after === after && feed.nonce === query.nonce && (feed.complete || feed.cursor !== after);
    if (!asked || !conform(feed, FEED)) throw new Error("this is invalid, or answers another request");
    for (const kid of feed.dropped_keys) this.#dropped.add(kid);
    for (const [sid, until] of Object.entries(feed.sessions)) {
      const forgetAt = bootClock() + Math.max(0, until - feed.iat) + MARGIN_SECONDS; // both by the service's clock
      this.#ended.set(sid, Math.max(this.#ended.get(sid) ?? 0, forgetAt));
    }
    return feed;
  }

  /** Return the body of a response that is successful, in time and not too large. */
  async #get(path, query = {}) {
    const { url, staleSeconds } = this.#settings;
    const [request, { signal: closing }] = [new AbortController(), this.#closing]; // the former is of the timer, too
    const abort = () => request.abort();
    closing.addEventListener("abort", abort); // removed below: Node does not always remove one that has a signal
    const late = sleep((staleSeconds / 3 + Number(query.wait ?? 0)) * 1000, undefined, request);
    const read = this.#read(`${url}${path}?${new URLSearchParams(query)}`, request);
    const first = Promise.race([read, late]).finally(() => closing.removeEventListener("abort", abort) ?? abort());
    return (await first) ?? Promise.reject(new Error("there was no answer in time"));
  }

  async #read(url, { signal }) {
    const response = await fetch(url, { redirect: "error", signal });
    if ([400, 422].includes(response.status) && /[?&]nonce=/.test(url)) this.#cursor = null; // read the whole state
    if (!response.ok) throw new Error(`the status is ${response.status}`);
    let body = "";
    for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
      if ((body += part).length > MAX_BYTES) throw new RangeError("the response is too large");
    }
    return body;
  }
}
