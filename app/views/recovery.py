"""E-mail addresses, and the way back in without the password. These routes exist if mail is on."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read, write
from app.http.client import client
from app.http.codes import Code
from app.http.responses import accepted, no_content
from app.openapi.operations import describe
from app.schemas.emails import Code as CodeIn
from app.schemas.emails import EmailChange, Reset, ResetRequest, Undo
from app.schemas.users import USER_ID, RegisteredOut, RegistrationWithEmail, UserId, UserOut
from app.security.authentication import actor, administrators, claims, fresh, protected
from app.security.cookie_mode import COOKIES

blueprint = Blueprint("recovery")
WITH_FACTOR = (
    Code.SECOND_FACTOR_REQUIRED,
    Code.SECOND_FACTOR_INVALID,
    Code.NOT_ENABLED,
    Code.TOO_MANY_ATTEMPTS,
    Code.HASHING_BUSY,
)


class Register(HTTPMethodView, attach=blueprint, uri="/users/registration"):
    """The start of an account."""

    @describe(
        body=RegistrationWithEmail,
        responses={201: RegisteredOut},
        refuses=(Code.USERNAME_TAKEN, *COOKIES, Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Register a user and log in.

        A code is sent to the address, if one is given.
        """
        body, cookie_mode = read(request, RegistrationWithEmail), request.app.ctx.cookie_mode
        as_cookies = cookie_mode.wanted(request, body.mode)
        user, tokens = await request.app.ctx.accounts.register(
            body.username, body.password, client(request), email=body.address()
        )
        return cookie_mode.respond_registered(tokens, UserOut.of(user), as_cookies=as_cookies)


class MyEmail(HTTPMethodView, attach=blueprint, uri="/users/me/email"):
    """The user's e-mail address."""

    @describe(body=EmailChange, responses={202: None}, refuses=(Code.TOO_MANY_ATTEMPTS,))
    @protected
    @fresh
    async def put(self, request: Request) -> HTTPResponse:
        """Change your e-mail address.

        The old one stays until the code that is sent to the new one is shown.
        """
        body = read(request, EmailChange)
        await request.app.ctx.emails.claim(claims(request), body.address())
        return accepted()

    @describe(responses={204: None})
    @protected
    @fresh
    async def delete(self, request: Request) -> HTTPResponse:
        """Remove your e-mail address."""
        await request.app.ctx.emails.remove(claims(request))
        return no_content()


class MyEmailCode(HTTPMethodView, attach=blueprint, uri="/users/me/email/code"):
    """A code for the user's address."""

    @describe(responses={202: None}, refuses=(Code.NOTHING_TO_VERIFY,))
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Send a new code to the address that you claim."""
        await request.app.ctx.emails.send_code(claims(request))
        return accepted()


class MyEmailVerification(HTTPMethodView, attach=blueprint, uri="/users/me/email/verification"):
    """The verification of the user's address."""

    @describe(
        body=CodeIn,
        responses={200: UserOut},
        refuses=(Code.WRONG_CODE, Code.NOTHING_TO_VERIFY, Code.EMAIL_TAKEN),
    )
    @protected
    async def post(self, request: Request) -> HTTPResponse:
        """Verify your e-mail address with the code that was sent to it."""
        body = read(request, CodeIn)
        return write(UserOut.of(await request.app.ctx.emails.verify(claims(request), body.code)))


class EmailUndo(HTTPMethodView, attach=blueprint, uri="/users/email/undo"):
    """The undoing of a change of address."""

    @describe(body=Undo, responses={204: None}, refuses=(Code.ONE_TIME_TOKEN_INVALID, *WITH_FACTOR))
    async def post(self, request: Request) -> HTTPResponse:
        """Undo a change of address with the token of a notice.

        All sessions end, and the password is void.
        """
        body = read(request, Undo)
        await request.app.ctx.emails.undo(body.token, client(request), body.evidence)
        return no_content()


class ResetRequests(HTTPMethodView, attach=blueprint, uri="/auth/reset"):
    """The start of a reset."""

    @describe(body=ResetRequest, responses={202: None})
    async def post(self, request: Request) -> HTTPResponse:
        """Ask for a mail with which a forgotten password is replaced."""
        body = read(request, ResetRequest)
        await request.app.ctx.recovery.request(body.address(), client(request))
        return accepted()


class ResetConfirmation(HTTPMethodView, attach=blueprint, uri="/auth/reset/confirmation"):
    """The completion of a reset."""

    @describe(
        body=Reset,
        responses={204: None},
        refuses=(Code.ONE_TIME_TOKEN_INVALID, *WITH_FACTOR),
    )
    async def post(self, request: Request) -> HTTPResponse:
        """Set a new password with the token of a mail.

        All sessions end.
        """
        body = read(request, Reset)
        await request.app.ctx.recovery.confirm(body.token, body.new_password, client(request), body.evidence)
        return no_content()


class UserReset(HTTPMethodView, attach=blueprint, uri=f"/users/<user_id:{USER_ID}>/reset"):
    """A reset that an administrator starts."""

    @describe(responses={202: None}, refuses=(Code.NOT_FOUND, Code.NO_VERIFIED_ADDRESS))
    @administrators
    @fresh
    async def post(self, request: Request, user_id: UserId) -> HTTPResponse:
        """Mail a user a link with which the password is replaced."""
        await request.app.ctx.recovery.start_for(user_id, actor(request))
        return accepted()
