// Passkeys in the browser (Web Authentication Level 3). Browsers without parseCreationOptionsFromJSON have none here.

import { ask, call } from "./api.js";

export const supported = "parseCreationOptionsFromJSON" in (window.PublicKeyCredential ?? {});

/** Make a passkey for the user of the session, and return the answer of the authenticator. */
export async function make() {
  const options = await call("POST", "/users/me/passkeys/options");
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  return (await navigator.credentials.create({ publicKey })).toJSON();
}

const waiting = new AbortController(); // of the offer; a browser answers one request at a time

/** Ask for a passkey, and return the challenge with the answer. `inSession` is for a step-up. */
export async function show({ inSession = false } = {}) {
  waiting.abort();
  return answer(await (inSession ? call : ask)("POST", "/auth/passkey/options"));
}

/**
 * Offer the passkeys that the browser has in the field of the name (conditional UI), and return as `show` does when a
 * person chooses one. The challenge is valid for five minutes, so it is renewed before. Throws AbortError after `show`.
 */
export async function offer() {
  waiting.signal.throwIfAborted();
  const renewal = AbortSignal.timeout(240_000);
  const signal = AbortSignal.any([waiting.signal, renewal]);
  try {
    return await answer(await ask("POST", "/auth/passkey/options"), { mediation: "conditional", signal });
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    return offer();
  }
}

async function answer(options, how) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = await navigator.credentials.get({ publicKey, ...how });
  return { challenge: options.challenge, passkey: credential.toJSON() };
}
