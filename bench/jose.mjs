// A server that verifies tokens with stock jose, for bench/rotations.py: 204 for a valid one, 401 for any other.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(new URL("../verifiers/node/package.json", import.meta.url));
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(require.resolve("jose")).href);
const { SERVICE_URL, ISSUER, AUDIENCE, FACTOR, PORT } = process.env;

// The defaults of jose, in milliseconds, scaled as the lead time of the service is.
const caching = { cacheMaxAge: 600_000 / Number(FACTOR), cooldownDuration: 30_000 / Number(FACTOR) };
const keys = createRemoteJWKSet(new URL(`${SERVICE_URL}/.well-known/jwks.json`), caching);
const options = { issuer: ISSUER, audience: AUDIENCE, typ: "at+jwt", algorithms: ["EdDSA"] };

createServer(async (request, response) => {
  try {
    await jwtVerify(request.headers.authorization.slice(7), keys, options);
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(401).end(error.code);
  }
}).listen(Number(PORT), "127.0.0.1");
