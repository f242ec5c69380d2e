// Fastify with @fastify/jwt, after their documentation. With BENCH_CACHE, the plugin caches so many verified tokens.

"use strict";

const fastify = require("fastify")();

const HELLO = { schema: { response: { 200: { type: "object", properties: { Hello: { type: "string" } } } } } };

fastify.register(require("@fastify/jwt"), {
  secret: process.env.BENCH_KEY,
  sign: { algorithm: "HS256", expiresIn: "1h" },
  verify: { algorithms: ["HS256"], cache: Number(process.env.BENCH_CACHE ?? 0) },
});

fastify.decorate("authenticate", async (request, reply) => {
  try {
    await request.jwtVerify();
  } catch (error) {
    reply.send(error);
  }
});

// Issue a token.
fastify.post("/auth", async (request) => ({ access_token: fastify.jwt.sign({ sub: request.body.username }) }));

// Return the public response.
fastify.get("/tests/hello", HELLO, async () => ({ Hello: "World!" }));

// Return the response for clients with a valid token.
fastify.get("/tests/secret", { ...HELLO, onRequest: [fastify.authenticate] }, async () => ({ Hello: "Secret!" }));

fastify.listen({ host: "127.0.0.1", port: Number(process.argv[2]) }, (error) => {
  if (error) throw error;
});
