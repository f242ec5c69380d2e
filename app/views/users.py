"""Change or delete your own account; administer the accounts of others."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read, read_query, write
from app.http.client import client
from app.http.codes import Code
from app.http.responses import no_content
from app.models.users import Access
from app.openapi.operations import describe
from app.schemas.auth import Issued
from app.schemas.users import (
    USER_ID,
    Deletion,
    PageQuery,
    PasswordChange,
    UserChange,
    UserId,
    UserOut,
    UsersOut,
)
from app.security.authentication import actor, administrators, claims, protected
from app.security.cookie_mode import without_cookies

blueprint = Blueprint("users", url_prefix="/users")
BY_PASSWORD = (Code.STEP_UP_REQUIRED, Code.WRONG_CREDENTIALS, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY)


class MyPassword(HTTPMethodView, attach=blueprint, uri="/me/password"):
    """The user's password."""

    @describe(
        body=PasswordChange,
        responses={200: Issued},
        refuses=BY_PASSWORD,
    )
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Change your password; all sessions end and a new one starts."""
        body = read(request, PasswordChange)
        tokens = await request.app.ctx.accounts.change_password(
            claims(request),
            current_password=body.current_password,
            new_password=body.new_password,
            client=client(request),
        )
        cookie_mode = request.app.ctx.cookie_mode
        return cookie_mode.respond(tokens, as_cookies=cookie_mode.wanted(request))


class MyDeletion(HTTPMethodView, attach=blueprint, uri="/me/delete"):
    """The end of an account."""

    @describe(
        body=Deletion,
        responses={204: None},
        refuses=(Code.LAST_ADMIN, *BY_PASSWORD),
    )
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Delete your account and end all its sessions."""
        body = read(request, Deletion)
        await request.app.ctx.accounts.delete(
            claims(request), current_password=body.current_password, client=client(request)
        )
        return without_cookies(request, no_content())


class AllUsers(HTTPMethodView, attach=blueprint, uri=""):
    """All users, page by page."""

    @describe(query=PageQuery, responses={200: UsersOut})
    @administrators
    async def get(self, request: Request) -> HTTPResponse:
        """List users in the order of registration."""
        query = read_query(request, PageQuery)
        users = await request.app.ctx.administration.page(query.after, query.limit + 1)
        page = [UserOut.of(user) for user in users[: query.limit]]
        more = len(users) > query.limit
        return write(UsersOut(users=page, next=page[-1].id if more else None))


class OneUser(HTTPMethodView, attach=blueprint, uri=f"/<user_id:{USER_ID}>"):
    """One user."""

    @describe(responses={200: UserOut}, refuses=(Code.NOT_FOUND,))
    @administrators
    async def get(self, request: Request, user_id: UserId) -> HTTPResponse:
        """Return a user."""
        return write(UserOut.of(await request.app.ctx.administration.get(user_id)))

    @describe(body=UserChange, responses={200: UserOut}, refuses=(Code.NOT_FOUND, Code.LAST_ADMIN))
    @administrators
    async def patch(self, request: Request, user_id: UserId) -> HTTPResponse:
        """Change a user's access level or disable the user.

        All its sessions end.
        """
        body = read(request, UserChange)
        user = await request.app.ctx.administration.change(
            user_id,
            actor(request),
            access=None if body.access is None else Access[body.access.upper()],
            disabled=body.disabled,
        )
        return write(UserOut.of(user))

    @describe(responses={204: None}, refuses=(Code.NOT_FOUND, Code.LAST_ADMIN))
    @administrators
    async def delete(self, request: Request, user_id: UserId) -> HTTPResponse:
        """Delete a user and end all its sessions."""
        await request.app.ctx.administration.delete(user_id, actor(request))
        return no_content()
