"""Users: register, change or leave one's own account, administer those of others."""

from collections.abc import Awaitable, Callable
from functools import partial

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView
from sanic_jwt import scoped

from app.context import Request, begin, claims, client
from app.http.bodies import read, read_query, write
from app.http.client import address, network
from app.http.problems import Problem, conflict, insufficient_scope, not_found, token_refused
from app.http.responses import nothing
from app.models.users import Access, ChangedMeanwhile, LastAdmin, User, UsernameTaken
from app.openapi.description import describe
from app.schemas.auth import Tokens
from app.schemas.users import (
    USER_ID,
    Deletion,
    PageQuery,
    PasswordChange,
    Registered,
    Registration,
    UserChange,
    UserOut,
    UsersOut,
)
from app.security.authentication import protected

blueprint = Blueprint("users", url_prefix="/users")
blueprint.on_request(begin)


class Register(HTTPMethodView, attach=blueprint, uri="/registration"):
    """A user's beginning."""

    @describe(
        body=Registration,
        answers={201: Registered},
        refuses=("username_taken", "too_many_attempts", "hashing_busy", "store_unavailable"),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Register a user and log in."""
        body = read(request, Registration)
        ctx = request.app.ctx
        ctx.passwords.check(body.password, body.username)
        await ctx.throttle.registration(network(address(request)))
        user = User.new(body.username, await ctx.passwords.hash(body.password))
        try:
            tokens = await ctx.logins.register(user, client(request))
        except UsernameTaken:
            raise conflict("username_taken", "Another user has this name.") from None
        return write(Registered(**tokens.model_dump(), user=UserOut.of(user)), 201)


class MyPassword(HTTPMethodView, attach=blueprint, uri="/me/password"):
    """One's own password."""

    @describe(
        body=PasswordChange,
        answers={200: Tokens},
        refuses=("wrong_credentials", "too_many_attempts", "hashing_busy", "store_unavailable"),
        token=True,
    )
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Change one's password; every other session ends, and a fresh one begins."""
        body = read(request, PasswordChange)
        ctx = request.app.ctx
        user = await ctx.credentials.check_again(claims(request).sub, body.current_password, address(request))
        ctx.passwords.check(body.new_password, user.username, field="new_password")
        new_hash = await ctx.passwords.hash(body.new_password)
        await ctx.logins.confirm(user, claims(request))
        try:
            user = await ctx.logins.change(user, password=new_hash)
        except ChangedMeanwhile:
            raise token_refused("session_ended", "The session ended while the password was being changed.") from None
        try:
            tokens = await ctx.logins.open(user, client(request))
        except Problem as overtaken:
            if overtaken.status_code != 401:
                raise
            detail = "The password was changed, and all sessions were ended meanwhile. Please log in with the new one."
            raise token_refused("session_ended", detail) from None
        return write(tokens)


class MyDeletion(HTTPMethodView, attach=blueprint, uri="/me/delete"):
    """One's own account's end."""

    @describe(
        body=Deletion,
        answers={204: None},
        refuses=("last_admin", "wrong_credentials", "too_many_attempts", "hashing_busy", "store_unavailable"),
        token=True,
    )
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Delete one's account and end all its sessions."""
        body = read(request, Deletion)
        ctx = request.app.ctx
        user = await ctx.credentials.check_again(claims(request).sub, body.current_password, address(request))
        await ctx.logins.confirm(user, claims(request))
        try:
            await ctx.logins.delete(user)
        except LastAdmin:
            raise last_admin() from None
        except ChangedMeanwhile:
            raise token_refused("session_ended", "The session ended while the account was being deleted.") from None
        return nothing()


class AllUsers(HTTPMethodView, attach=blueprint, uri=""):
    """Everybody, page by page."""

    @describe(
        query=PageQuery,
        answers={200: UsersOut},
        refuses=("insufficient_scope", "invalid_fields", "store_unavailable"),
        token=True,
    )
    @scoped("admin")
    async def get(self, request: Request) -> HTTPResponse:
        """List users in the order of their ids, which is that of their registration."""
        await administrator(request)
        query = read_query(request, PageQuery)
        users = await request.app.ctx.users.page(query.after, query.limit + 1)
        more = len(users) > query.limit
        page = [UserOut.of(user) for user in users[: query.limit]]
        return write(UsersOut(users=page, next=page[-1].id if more else None))


class OneUser(HTTPMethodView, attach=blueprint, uri=f"/<user_id:{USER_ID}>"):
    """Somebody."""

    @describe(answers={200: UserOut}, refuses=("insufficient_scope", "not_found", "store_unavailable"), token=True)
    @scoped("admin")
    async def get(self, request: Request, user_id: str) -> HTTPResponse:
        """Show a user."""
        await administrator(request)
        return write(UserOut.of(found(await request.app.ctx.users.by_id(user_id))))

    @describe(
        body=UserChange,
        answers={200: UserOut},
        refuses=("insufficient_scope", "not_found", "last_admin", "store_unavailable"),
        token=True,
    )
    @scoped("admin")
    async def patch(self, request: Request, user_id: str) -> HTTPResponse:
        """Change a user's access or disable the user; all its sessions end."""
        await administrator(request)
        body = read(request, UserChange)
        access = None if body.access is None else Access[body.access.upper()]

        async def change(user: User) -> User:
            by = claims(request).sub
            return await request.app.ctx.logins.change(user, by=by, access=access, disabled=body.disabled)

        return write(UserOut.of(await insist(request, user_id, change)))

    @describe(
        answers={204: None}, refuses=("insufficient_scope", "not_found", "last_admin", "store_unavailable"), token=True
    )
    @scoped("admin")
    async def delete(self, request: Request, user_id: str) -> HTTPResponse:
        """Delete a user and end all its sessions."""
        await administrator(request)
        await insist(request, user_id, partial(request.app.ctx.logins.delete, by=claims(request).sub))
        return nothing()


async def administrator(request: Request) -> None:
    """Refuse who is no administrator any more, though the token may not have heard of it yet. Raises Problem 403."""
    user = await request.app.ctx.users.by_id(claims(request).sub)
    if user is None or not user.allowed(Access.ADMIN):
        raise insufficient_scope()


async def insist(request: Request, user_id: str, change: Callable[[User], Awaitable[User]]) -> User:
    """Have an administrator's change of a user made. Raises Problem 403, 404 or 409."""

    async def still_administrator(user: User) -> User:
        await administrator(request)
        return await change(user)

    try:
        changed = await request.app.ctx.logins.insist(user_id, still_administrator)
    except LastAdmin:
        raise last_admin() from None
    return found(changed)


def found(user: User | None) -> User:
    """Return the user that was looked for. Raises Problem 404."""
    if user is None:
        raise not_found("There is no user with this id.")
    return user


def last_admin() -> Problem:
    """Refuse to leave nobody who could undo it."""
    return conflict("last_admin", "This is the last administrator.")
