// A browser client that refreshes its tokens and shares one session between all tabs of a site.
//
//   const session = new Session("https://api.example.com");
//   await session.open("/auth", { username: "alice", password });
//   const response = await session.fetch("/tests/secret");
//
// With a second factor: session.open("/auth", credentials, async (factors) => prompt("Code")). See withStepUp below for
// routes that need a recent authentication. fetch.d.ts has the types; both work as the `fetch` of openapi-fetch.
//
// The tokens are in localStorage, so that they survive a reload and are available in other tabs. An injected script
// (XSS) could read them there, but it could also call the API itself. Prevent such scripts with a
// Content-Security-Policy that allows only your own.

const NAME = "session"; // of the localStorage item and of the lock; browsers have navigator.locks on https only
const ATTEMPTS = 3; // the last one starts within 10 seconds, while the service accepts the same refresh token again
const RESPONSE_TIMEOUT_MILLISECONDS = 3000;
const RETRY_DELAY_MILLISECONDS = 1000;
// An access token also becomes invalid if the key, clock or settings of the service change. Then only a refresh shows
// whether the session is still active.
const REFRESH_CODES = ["token_expired", "token_invalid"];

export class SessionEnded extends Error {}

export class Session {
  #steppedUp = new Set(); // refresh tokens of sessions that a step-up has replaced

  constructor(api = "") {
    this.api = api;
  }

  get tokens() {
    return JSON.parse(localStorage.getItem(NAME));
  }

  // Register ("/users/registration") or log in ("/auth"), and return the response. `askCode` gets the names of the user's
  // second factors, if there are any, and returns a code.
  async open(path, credentials, askCode) {
    let response = await this.#post(path, credentials);
    if (askCode && (await errorCode(response)) === "second_factor_required") {
      const { challenge, factors } = await response.json();
      response = await this.#post("/auth/second-factor", { challenge, code: await askCode(factors) });
    }
    if (response.ok) localStorage.setItem(NAME, await response.clone().text());
    return response;
  }

  // Like fetch, with the access token. Repeats the request once after a refresh if needed. Throws SessionEnded.
  async fetch(input, options) {
    const request = this.request(input, options);
    let used = this.tokens;
    if (!used) throw new SessionEnded();
    let response = await this.#send(request, used);
    if (REFRESH_CODES.includes(await errorCode(response))) {
      used = await this.#refreshOnce(used);
      response = await this.#send(request, used);
    }
    if ((await errorCode(response)) === "session_ended" && this.#steppedUp.has(used.refresh_token)) {
      used = this.tokens; // a step-up has replaced the session meanwhile
      response = await this.#send(request, used);
    }
    if ((await errorCode(response)) === "session_ended") this.#end(used);
    return response;
  }

  // A request to the API, of a path or of another request.
  request(input, options) {
    return new Request(input instanceof Request ? input : this.api + input, options);
  }

  // Authenticate again, and return the response; a new session replaces the current one.
  async stepUp(proof) {
    const body = JSON.stringify(proof);
    const headers = { "Content-Type": "application/json" };
    const before = this.tokens;
    const response = await this.fetch("/auth/step-up", { method: "POST", headers, body });
    if (response.ok) {
      this.#steppedUp.add(before.refresh_token);
      localStorage.setItem(NAME, await response.clone().text());
    }
    return response;
  }

  // Log out, and return the response. If it is not ok, the session is still active.
  async close() {
    const response = await this.fetch("/auth/logout", { method: "POST" });
    if (response.ok) localStorage.removeItem(NAME);
    return response;
  }

  // Only one tab refreshes; the waiting tabs then find the new tokens. Late reuse of a refresh token ends the session.
  #refreshOnce(used) {
    return navigator.locks.request(NAME, async () => {
      const now = this.tokens;
      if (!now) throw new SessionEnded();
      if (now.refresh_token !== used.refresh_token) return now;
      const response = await this.#refresh(now.refresh_token);
      if (response.status === 401) this.#end(now);
      if (!response.ok) throw new Error(`The session cannot be refreshed now: ${response.status}`);
      localStorage.setItem(NAME, await response.text());
      return this.tokens;
    });
  }

  // Without a response, retry with the same refresh token: the service returns the same successor.
  async #refresh(refresh_token) {
    for (let left = ATTEMPTS - 1; ; left--) {
      try {
        const signal = AbortSignal.timeout(RESPONSE_TIMEOUT_MILLISECONDS);
        const response = await this.#post("/auth/refresh", { refresh_token }, signal);
        if (response.status !== 503 || !left) return response;
      } catch (error) {
        if (!left) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MILLISECONDS));
    }
  }

  #send(request, tokens) {
    const copy = request.clone(); // so that it can be sent again
    copy.headers.set("Authorization", `Bearer ${tokens.access_token}`);
    return fetch(copy);
  }

  #post(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    return fetch(this.api + path, { method: "POST", headers, body: JSON.stringify(body), signal });
  }

  // Remove the tokens, unless a new login has replaced them meanwhile, perhaps in another tab.
  #end(used) {
    if (this.tokens?.refresh_token === used.refresh_token) localStorage.removeItem(NAME);
    throw new SessionEnded();
  }
}

// Like session.fetch; but if a route needs a recent authentication, ask for a proof, step up and repeat the request.
//
//   const request = withStepUp(session, async (factors) =>
//     factors.length ? { code: prompt("Code") } : { current_password: prompt("Password") });
//   const response = await request("/users/me/totp", { method: "POST" });
//   const api = createClient({ baseUrl: "https://api.example.com", fetch: request }); // openapi-fetch
//
// `prove` gets the names of the user's second factors once the service has asked for one, before that an empty list. It
// returns the body of POST /auth/step-up, or null if the user gives up: then the response is the refusal.
export function withStepUp(session, prove) {
  let running = null; // one step-up for all requests that wait for it
  const stepUp = async () => {
    let proof = await prove([]);
    let response = proof && (await session.stepUp(proof));
    if (response && (await errorCode(response)) === "second_factor_required") {
      proof = await prove((await response.json()).factors);
      response = proof && (await session.stepUp(proof));
    }
    return response?.ok ? null : response;
  };
  return async (input, options) => {
    const request = session.request(input, options);
    const refusal = await session.fetch(request.clone());
    if ((await errorCode(refusal)) !== "step_up_required") return refusal;
    running ??= stepUp().finally(() => (running = null));
    const failed = await running;
    return failed === null ? session.fetch(request) : (failed?.clone() ?? refusal);
  };
}

// Return the error code of a 401 response, and undefined for other responses.
async function errorCode(response) {
  if (response.status === 401) return (await response.clone().json()).code;
}
