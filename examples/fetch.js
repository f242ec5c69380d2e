// A client for browsers that stays logged in, in all tabs of a site together.
//
//   const session = new Session("https://api.example.com");
//   await session.open("/auth", { username: "alice", password });
//   const response = await session.fetch("/tests/secret");
//
// The tokens are kept in localStorage, so that a reload and another tab have them too. A script that somebody smuggles
// into the page could read them there; but it could as well ask the API itself. Keep such scripts out, with a
// Content-Security-Policy that allows none but your own.

const NAME = "session"; // of what is stored, and of the lock that the tabs share
const TRIES = 3; // all within the ten seconds in which a lost answer can be asked for again
const PAUSE_MILLISECONDS = 1000;

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

  // As fetch, with the access token; once more if that has expired. Throws SessionEnded.
  async fetch(path, options = {}) {
    const used = this.tokens;
    if (!used) throw new SessionEnded();
    let response = await this.#send(path, options, used);
    if (await is(response, "token_expired")) response = await this.#send(path, options, await this.#renew(used));
    if (await is(response, "session_ended")) this.#forget();
    return response;
  }

  async close() {
    await this.fetch("/auth/logout", { method: "POST" });
    localStorage.removeItem(NAME);
  }

  // One tab refreshes; those that waited find the new tokens. A refresh token that two of them used would end the session.
  #renew(used) {
    return navigator.locks.request(NAME, async () => {
      const now = this.tokens;
      if (!now) throw new SessionEnded();
      if (now.refresh_token !== used.refresh_token) return now;
      const response = await this.#refresh(now.refresh_token);
      if (response.status === 401) this.#forget();
      if (!response.ok) throw new Error(`The session cannot be refreshed now: ${response.status}`);
      localStorage.setItem(NAME, await response.text());
      return this.tokens;
    });
  }

  // With the same token again if no answer comes: it gives the same successor.
  async #refresh(refresh_token) {
    for (let left = TRIES - 1; ; left--) {
      try {
        const response = await this.#post("/auth/refresh", { refresh_token });
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

  #post(path, body) {
    const headers = { "Content-Type": "application/json" };
    return fetch(this.api + path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  #forget() {
    localStorage.removeItem(NAME);
    throw new SessionEnded();
  }
}

async function is(response, code) {
  return response.status === 401 && (await response.clone().json()).code === code;
}
