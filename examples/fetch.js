// A client for browsers that stays logged in, in all tabs of a site together.
//
//   const session = new Session("https://api.example.com");
//   await session.open("/auth", { username: "alice", password });
//   const response = await session.fetch("/tests/secret");
//
// The tokens are kept in localStorage, so that a reload and another tab have them too. A script that somebody smuggles
// into the page could read them there; but it could as well ask the API itself. Keep such scripts out, with a
// Content-Security-Policy that allows none but your own.

const NAME = "session"; // of what is stored, and of the lock that the tabs share: browsers have locks on https only
const TRIES = 3; // the last begins within the ten seconds in which a lost answer can be asked for again
const ANSWER_MILLISECONDS = 3000;
const PAUSE_MILLISECONDS = 1000;
// An access token is also not valid if the service's key, clock or settings have changed; the refresh token tells.
const REFRESH_FOR = ["token_expired", "token_invalid"];

export class SessionEnded extends Error {}

export class Session {
  constructor(api = "") {
    this.api = api;
  }

  get tokens() {
    return JSON.parse(localStorage.getItem(NAME));
  }

  // Register ("/users/registration") or log in ("/auth"), and return the answer.
  async open(path, credentials) {
    const response = await this.#post(path, credentials);
    if (response.ok) localStorage.setItem(NAME, await response.clone().text());
    return response;
  }

  // As fetch, with the access token; once more if that is over. Throws SessionEnded.
  async fetch(path, options = {}) {
    let used = this.tokens;
    if (!used) throw new SessionEnded();
    let response = await this.#send(path, options, used);
    if (REFRESH_FOR.includes(await refusal(response))) {
      used = await this.#renew(used);
      response = await this.#send(path, options, used);
    }
    if ((await refusal(response)) === "session_ended") this.#end(used);
    return response;
  }

  // Log out, and return the answer: a session that could not be ended now goes on.
  async close() {
    const response = await this.fetch("/auth/logout", { method: "POST" });
    if (response.ok) localStorage.removeItem(NAME);
    return response;
  }

  // One tab refreshes; those that waited find the new tokens. A token that is used again too late ends the session.
  #renew(used) {
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

  // With the same token again if no answer comes: it gives the same successor.
  async #refresh(refresh_token) {
    for (let left = TRIES - 1; ; left--) {
      try {
        const signal = AbortSignal.timeout(ANSWER_MILLISECONDS);
        const response = await this.#post("/auth/refresh", { refresh_token }, signal);
        if (response.status !== 503 || !left) return response;
      } catch (error) {
        if (!left) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MILLISECONDS));
    }
  }

  #send(path, options, tokens) {
    const headers = new Headers(options.headers);
    headers.set("Authorization", `Bearer ${tokens.access_token}`);
    return fetch(this.api + path, { ...options, headers });
  }

  #post(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    return fetch(this.api + path, { method: "POST", headers, body: JSON.stringify(body), signal });
  }

  // Forget the tokens, unless somebody has logged in anew meanwhile, perhaps in another tab.
  #end(used) {
    if (this.tokens?.refresh_token === used.refresh_token) localStorage.removeItem(NAME);
    throw new SessionEnded();
  }
}

// The code of a 401, and undefined for every other answer.
async function refusal(response) {
  if (response.status === 401) return (await response.clone().json()).code;
}
