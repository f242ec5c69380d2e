// Requests to the service in cookie mode: the tokens are in cookies that no script can read.

// The pages are in a folder below the service, which may itself be behind a prefix.
const root = new URL("..", location.href);
const RENEWABLE = ["token_missing", "token_expired", "token_invalid"];

/** A refusal of the service (RFC 9457), with a sentence for people. */
export class Refusal extends Error {
  constructor(problem) {
    const [field] = problem.errors ?? [];
    super(field ? `The ${field.field.replaceAll("_", " ")} ${field.message}.` : problem.detail);
    Object.assign(this, { status: problem.status, code: problem.code, challenge: problem.challenge, factors: problem.factors ?? [] });
  }
}

async function send(method, path, body, credentials = "same-origin") {
  const json = body && { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(new URL(path.slice(1), root), { method, credentials, ...json });
  const content = response.status === 204 || response.status === 202 ? null : await response.json();
  if (!response.ok) throw new Refusal(content);
  return content;
}

// Several tabs may find at once that the access token has expired: one exchanges the refresh token, the others wait.
// If that is refused, the browser may have newer cookies by now, so it is tried once more with those.
const refresh = () =>
  navigator.locks.request("session", () => send("POST", "/auth/refresh").catch(() => send("POST", "/auth/refresh")));

/** Send a request, and repeat it once after a refresh if the access token is not valid any more. */
export async function call(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (error) {
    if (!RENEWABLE.includes(error.code)) throw error;
    await refresh().catch(() => Promise.reject(error));
    return send(method, path, body);
  }
}

/** Log in or register: the response sets the cookies. */
export const open = (path, body) => send("POST", path, { ...body, mode: "cookie" });

/** Send a request without the cookies, as somebody who is not logged in. */
export const ask = (method, path, body) => send(method, path, body, "omit");
