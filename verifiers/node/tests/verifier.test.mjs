// The verifier in the frameworks for which it is made, and its end.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { getEventListeners } from "node:events";
import { createServer } from "node:http";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import { after, before, describe, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import express from "express";
import fastify from "fastify";
import { Refusal, Verifier } from "../verifier.mjs";
import { AUDIENCE, ISSUER, startService, until } from "./service.mjs";

const settings = { issuer: ISSUER, audience: AUDIENCE, staleSeconds: 3, unknownKeySeconds: 0.5 };

// Each starts a server with a protected route and returns its URL and how to stop it.
const FRAMEWORKS = {
  "node:http": async (verifier) => {
    const server = createServer((request, response) =>
      verifier.protect(request, response, () => response.end(request.claims.sub)),
    );
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
  },
  Express: async (verifier) => {
    const app = express().get("/", verifier.protect, (request, response) => response.send(request.claims.sub));
    const server = await new Promise((resolve) => {
      const listening = app.listen(0, "127.0.0.1", () => resolve(listening));
    });
    return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
  },
  Fastify: async (verifier) => {
    const app = fastify();
    app.addHook("onRequest", (request, reply, done) => verifier.protect(request.raw, reply.raw, done));
    app.get("/", async (request) => request.raw.claims.sub);
    return { url: await app.listen({ port: 0, host: "127.0.0.1" }), stop: () => app.close() };
  },
};

let service;
before(async () => {
  service = await startService();
});
after(() => service.stop());

for (const [name, serve] of Object.entries(FRAMEWORKS)) {
  describe(name, () => {
    let verifier, server;
    const get = (token) => fetch(server.url, token ? { headers: { authorization: `Bearer ${token}` } } : {});
    before(async () => {
      verifier = new Verifier(service.url, settings).start();
      server = await serve(verifier);
      await until(async () => (await get(await service.token())).status === 200);
    });
    after(async () => {
      await verifier.close();
      await server.stop();
    });

    test("accepts a valid token and passes its claims", async () => {
      assert.equal(await (await get(await service.token({ sub: "bob" }))).text(), "bob");
    });

    test("rejects a missing and an invalid token", async () => {
      const missing = await get();
      assert.equal(missing.status, 401);
      assert.equal(missing.headers.get("www-authenticate"), "Bearer");
      const invalid = await get("a.b.c");
      assert.match(invalid.headers.get("www-authenticate"), /^Bearer error="invalid_token"/);
      assert.equal(invalid.headers.get("content-type"), "application/problem+json");
      assert.equal((await invalid.json()).code, "token_invalid");
    });

    test("rejects an ended session", async () => {
      const token = await service.token({ sid: `ended-${name}` });
      assert.equal((await get(token)).status, 200);
      service.sessions[`ended-${name}`] = Date.now() / 1000 + 900;
      await until(async () => (await get(token)).status === 401);
      assert.equal((await (await get(token)).json()).code, "session_ended");
    });
  });
}

test("a fetch handler turns a refusal into a response", async () => {
  const verifier = new Verifier(service.url, settings).start();
  const handler = async (request) => {
    try {
      const { sub } = await verifier.authenticate([request.headers.get("authorization") ?? ""]);
      return new Response(sub);
    } catch (error) {
      assert(error instanceof Refusal);
      return new Response(error.body, error);
    }
  };
  const headers = { authorization: `Bearer ${await service.token()}` };
  const first = await handler(new Request("http://localhost/", { headers }));
  assert.equal(first.status, 503);
  assert.equal(first.headers.get("retry-after"), "2");
  await until(async () => (await handler(new Request("http://localhost/", { headers }))).status === 200);
  assert.equal((await handler(new Request("http://localhost/"))).status, 401);
  await verifier.close();
});

test("concurrent requests with a new key share one fetch, and claims cannot be changed", async () => {
  const verifier = new Verifier(service.url, settings).start();
  const old = await service.token();
  await until(() => verifier.authenticate([`Bearer ${old}`]).then(Boolean, () => false));
  const kid = await service.addKey();
  await new Promise((resolve) => setTimeout(resolve, 600)); // a new key id is looked up every half second
  const fetches = service.fetches;
  const tokens = await Promise.all(Array.from({ length: 20 }, () => service.token({}, kid)));
  const claims = await Promise.all(tokens.map((token) => verifier.authenticate([`Bearer ${token}`])));
  assert.equal(service.fetches, fetches + 1);
  assert.throws(() => claims[0].scopes.push("admin"), TypeError);
  assert.throws(() => (claims[0].sub = "root"), TypeError);
  await verifier.close();
});

test("a suspended machine accepts nothing before the next proof", async () => {
  const verifier = new Verifier(service.url, settings).start();
  const authorization = [`Bearer ${await service.token()}`];
  await until(() => verifier.authenticate(authorization).then(Boolean, () => false));
  const { uptime } = os;
  os.uptime = () => uptime() + 60;
  syncBuiltinESMExports();
  await assert.rejects(verifier.authenticate(authorization), { message: "revocations_stale" });
  await until(() => verifier.authenticate(authorization).then(Boolean, () => false));
  os.uptime = uptime;
  syncBuiltinESMExports();
  await verifier.close();
});

test("requests leave no listeners behind", async () => {
  setFlagsFromString("--expose-gc");
  const [collect, { AbortController }, made] = [runInNewContext("gc"), globalThis, []];
  globalThis.AbortController = class extends AbortController {
    constructor() {
      super();
      made.push(this);
    }
  };
  const verifier = new Verifier(service.url, { ...settings, staleSeconds: 0.3 }).start();
  const [closing] = made;
  await until(() => (collect(), made.length > 150)); // while a long poll waits, others come and go
  globalThis.AbortController = AbortController;
  assert.ok(getEventListeners(closing.signal, "abort").length < 8);
  await verifier.close();
});

test("close() leaves nothing that keeps Node alive", async () => {
  const script = `
    import { Verifier } from ${JSON.stringify(new URL("../verifier.mjs", import.meta.url).href)};
    const verifier = new Verifier(${JSON.stringify(service.url)}, ${JSON.stringify(settings)}).start();
    setTimeout(() => verifier.close(), 500);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: "inherit" });
  const timer = setTimeout(() => child.kill(), 8000);
  const code = await new Promise((resolve) => child.once("exit", resolve));
  clearTimeout(timer);
  assert.equal(code, 0);
});
