// The service's keys and feed, for the tests of this folder. `verifiers/tests` has the attacks.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from "jose";

export const ISSUER = "http://issuer.test";
export const AUDIENCE = "orders";
const seconds = () => Math.floor(Date.now() / 1000);

export async function startService() {
  const service = { sessions: {}, keys: [], fetches: 0, stop: () => {} };
  service.addKey = async () => {
    const { privateKey, publicKey } = await generateKeyPair("EdDSA");
    const jwk = await exportJWK(publicKey);
    const kid = await calculateJwkThumbprint(jwk);
    service.keys.push({ kid, privateKey, jwk: { ...jwk, kid, alg: "EdDSA", use: "sig" } });
    return kid;
  };
  const sign = (claims, typ, kid) => {
    const key = service.keys.find((candidate) => candidate.kid === kid) ?? service.keys[0];
    return new SignJWT(claims).setProtectedHeader({ alg: "EdDSA", kid: key.kid, typ }).sign(key.privateKey);
  };
  service.token = (claims = {}, kid) => {
    const times = { iat: seconds(), exp: seconds() + 900 };
    const ids = { sub: "alice", sid: randomUUID(), jti: randomUUID(), iss: ISSUER, aud: AUDIENCE };
    return sign({ ...ids, ...times, scopes: ["user"], ...claims }, "at+jwt", kid);
  };
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost");
    const { after = null, nonce } = Object.fromEntries(searchParams);
    if (pathname === "/.well-known/jwks.json") {
      service.fetches += 1;
      return response.end(JSON.stringify({ keys: service.keys.map(({ jwk }) => jwk) }));
    }
    if (nonce === undefined) await new Promise((resolve) => setTimeout(resolve, 200)); // a long poll without news
    const { sessions } = service;
    const feed = { iss: ISSUER, iat: seconds(), after, cursor: "1", complete: true, sessions, dropped_keys: [], age: 0 };
    response.end(await sign({ ...feed, nonce }, "revocations+jwt"));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  service.url = `http://127.0.0.1:${server.address().port}`;
  service.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  await service.addKey();
  return service;
}

// Wait until an asynchronous condition is true.
export async function until(condition, limit = 10_000) {
  for (const deadline = Date.now() + limit; !(await condition()); ) {
    if (Date.now() > deadline) throw new Error("the condition was not met in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
