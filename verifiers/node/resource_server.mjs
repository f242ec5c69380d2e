// A resource server: `GET /` is open, `GET /orders` needs a valid access token of the service.

import { createServer } from "node:http";
import { Verifier } from "./verifier.mjs";

const { SERVICE_URL, ISSUER, AUDIENCE, STALE_SECONDS, PORT } = process.env;
const verifier = new Verifier(SERVICE_URL ?? "http://127.0.0.1:8000", {
  issuer: ISSUER ?? "http://localhost:8000",
  audience: AUDIENCE ?? "sanic-api-demo",
  staleSeconds: Number(STALE_SECONDS ?? 10),
}).start();

const json = (response, status, body) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));

const server = createServer((request, response) => {
  const [path] = request.url.split("?");
  if (path === "/") return json(response, 200, { orders: "/orders" });
  return verifier.protect(request, response, () =>
    path === "/orders" ? json(response, 200, { sub: request.claims.sub }) : json(response, 404, {}),
  );
});
server.listen(Number(PORT ?? 9001), "127.0.0.1");

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => Promise.all([verifier.close(), server.close()]));
}
