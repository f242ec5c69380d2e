// A session in cookie mode: the browser keeps the tokens in cookies that no script can read.
//
//   await open("/auth", { username: "alice", password });
//   const { sessions } = await call("GET", "/auth/sessions");
//   await logOut();

const API = document.querySelector("meta[name=api]").content;
// With the first one, the browser has deleted the access cookie, because the token has expired.
const REFRESH_CODES = ["token_missing", "token_expired", "token_invalid"];

/** An error response (RFC 9457): `code` for programs, `message` for people. */
export class Refusal extends Error {
  constructor(status, problem) {
    const [invalid] = problem?.errors ?? [];
    super(invalid ? `${invalid.field} ${invalid.message}` : (problem?.detail ?? `The API responded with ${status}.`));
    Object.assign(this, { ...problem, status });
  }
}

async function send(method, path, body) {
  const json = body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(API + path, { method, credentials: "include", ...json });
  const content = await response.json().catch(() => null); // some responses have no body
  if (!response.ok) throw new Refusal(response.status, content);
  return content;
}

// Only one tab refreshes at a time. A refused refresh is repeated once: the browser may have newer cookies by then.
function refresh() {
  const exchange = () => send("POST", "/auth/refresh");
  const again = (error) => (error.status === 401 ? exchange() : Promise.reject(error));
  return navigator.locks.request("session", () => exchange().catch(again));
}

/** Send a request, and return the JSON of its response. Throws Refusal; 401 means that nobody is logged in. */
export async function call(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (error) {
    if (!REFRESH_CODES.includes(error.code)) throw error;
    await refresh().catch((failure) => Promise.reject(failure.status < 500 ? error : failure));
    return send(method, path, body);
  }
}

/** Return the user who is logged in, or null. */
export const whoAmI = () =>
  call("GET", "/auth/me").catch((error) => (error.status === 401 ? null : Promise.reject(error)));

/** Log in ("/auth") or register ("/users/registration"). `askCode` returns a code of the user's second factor. */
export async function open(path, credentials, askCode) {
  try {
    await send("POST", path, { ...credentials, mode: "cookie" });
  } catch (error) {
    if (error.code !== "second_factor_required" || !askCode) throw error;
    const { challenge } = error;
    await send("POST", "/auth/second-factor", { challenge, code: await askCode(), mode: "cookie" });
  }
  if (await whoAmI()) return;
  throw new Error("The browser rejected the cookies: the page is on another site than the API, or one has no https.");
}

/** End the session in all tabs. */
export const logOut = () => send("POST", "/auth/logout");
