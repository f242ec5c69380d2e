"""BlackSheep with its own JWT bearer authentication and a symmetric key, after its documentation.

BlackSheep's middlewares run for all routes of an application, also for those with @allow_anonymous. Therefore the
secret is in an application of its own, mounted in the one without authentication.
"""

import os
import time
from dataclasses import dataclass

import jwt
from blacksheep import Application, Router, json
from blacksheep.messages import Response
from blacksheep.server.authentication.jwt import JWTBearerAuthentication
from blacksheep.server.authorization import auth
from essentials.secrets import Secret

ISSUER = AUDIENCE = "bench"
KEY = os.environ["BENCH_KEY"]

protected = Application(router=Router())
protected.use_authentication().add(
    JWTBearerAuthentication(
        secret_key=Secret.from_env("BENCH_KEY"),
        valid_audiences=[AUDIENCE],
        valid_issuers=[ISSUER],
        algorithms=["HS256"],
    )
)
protected.use_authorization()

app = Application(router=Router())
app.mount_registry.auto_events = True
app.mount("/tests/secret", protected)


@dataclass
class Login:
    """The body of a login request."""

    username: str


@app.router.post("/auth")
async def login(data: Login) -> Response:
    """Issue a token."""
    claims = {"sub": data.username, "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 3600}
    return json({"access_token": jwt.encode(claims, KEY, "HS256")})


@app.router.get("/tests/hello")
async def hello() -> Response:
    """Return the public response."""
    return json({"Hello": "World!"})


@auth()
@protected.router.get("/")
async def secret() -> Response:
    """Return the response for clients with a valid token."""
    return json({"Hello": "Secret!"})
