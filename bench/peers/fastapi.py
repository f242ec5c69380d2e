"""FastAPI after its tutorial: OAuth2 with a bearer token, PyJWT, and the user as a dependency."""

import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import OAuth2PasswordBearer
from jwt.exceptions import InvalidTokenError
from pydantic import BaseModel

SECRET_KEY = os.environ["BENCH_KEY"]
ALGORITHM = "HS256"

oauth2_scheme = OAuth2PasswordBearer(tokenUrl="auth")
app = FastAPI()


class Login(BaseModel):
    """The body of a login request."""

    username: str


class Token(BaseModel):
    """The OAuth2 token response."""

    access_token: str
    token_type: str


class User(BaseModel):
    """The user of a token."""

    username: str


async def get_current_user(token: Annotated[str, Depends(oauth2_scheme)]) -> User:
    """Return the token's user."""
    credentials_exception = HTTPException(
        status_code=status.HTTP_401_UNAUTHORIZED,
        detail="Could not validate credentials",
        headers={"WWW-Authenticate": "Bearer"},
    )
    try:
        payload = jwt.decode(token, SECRET_KEY, algorithms=[ALGORITHM])
        username = payload.get("sub")
        if username is None:
            raise credentials_exception
    except InvalidTokenError:
        raise credentials_exception from None
    return User(username=username)


@app.post("/auth")
async def login(credentials: Login) -> Token:
    """Issue a token."""
    claims = {"sub": credentials.username, "exp": datetime.now(UTC) + timedelta(hours=1)}
    return Token(access_token=jwt.encode(claims, SECRET_KEY, algorithm=ALGORITHM), token_type="bearer")


@app.get("/tests/hello")
async def hello() -> dict[str, str]:
    """Return the public response."""
    return {"Hello": "World!"}


@app.get("/tests/secret")
async def secret(current_user: Annotated[User, Depends(get_current_user)]) -> dict[str, str]:
    """Return the response for clients with a valid token."""
    return {"Hello": "Secret!"}
