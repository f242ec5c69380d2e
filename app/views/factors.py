"""Second factors: enrol an authenticator, make recovery codes, remove them; and administer those of others."""

from sanic import Blueprint, HTTPResponse
from sanic.views import HTTPMethodView

from app.context import Request
from app.http.bodies import read, write
from app.http.client import client
from app.http.codes import Code
from app.http.responses import no_content
from app.openapi.operations import describe
from app.schemas.factors import (
    PASSKEY_ID,
    FactorsOut,
    NewPasskeyIn,
    PasskeyAdded,
    PasskeyId,
    PasskeyOptions,
    PasskeyOut,
    PasskeysOut,
    RecoveryCodesOut,
    TotpCode,
    TotpSecret,
    read_id,
)
from app.schemas.users import USER_ID, UserId
from app.security.authentication import actor, administrators, authenticated, claims, fresh, fresh_with_factor

blueprint = Blueprint("factors", url_prefix="/users")
OFF = (Code.NOT_ENABLED,)
HASHES = (Code.TOO_MANY_ATTEMPTS, Code.HASHING_BUSY)


class MyTotp(HTTPMethodView, attach=blueprint, uri="/me/totp"):
    """The user's authenticator."""

    @describe(responses={200: TotpSecret}, refuses=(*OFF, Code.ALREADY_ENROLLED))
    @authenticated
    @fresh
    async def post(self, request: Request) -> HTTPResponse:
        """Begin to enrol an authenticator app.

        The secret is shown once, and counts when a code of it was shown to `POST /users/me/totp/confirmation`.
        """
        return write(await request.app.ctx.enrolment.begin(claims(request)))

    @describe(responses={204: None}, refuses=(*OFF, Code.NOT_FOUND))
    @authenticated
    @fresh_with_factor
    async def delete(self, request: Request) -> HTTPResponse:
        """Remove your authenticator.

        All other sessions end. Recovery codes are removed with the last factor.
        """
        await request.app.ctx.enrolment.remove(claims(request))
        return no_content()


class MyTotpConfirmation(HTTPMethodView, attach=blueprint, uri="/me/totp/confirmation"):
    """The confirmation of an authenticator."""

    @describe(body=TotpCode, responses={200: RecoveryCodesOut}, refuses=(*OFF, Code.WRONG_CODE, *HASHES))
    @authenticated
    async def post(self, request: Request) -> HTTPResponse:
        """Confirm your authenticator app with a code.

        All other sessions end. With the first factor there are recovery codes, which are shown once.
        """
        body = read(request, TotpCode)
        codes = await request.app.ctx.enrolment.confirm(claims(request), body.code, client(request))
        return write(RecoveryCodesOut(recovery_codes=codes or None), omit_none=True)


class MyRecoveryCodes(HTTPMethodView, attach=blueprint, uri="/me/recovery-codes"):
    """The user's recovery codes."""

    @describe(responses={200: RecoveryCodesOut}, refuses=(*OFF, Code.NOT_FOUND, *HASHES))
    @authenticated
    @fresh_with_factor
    async def post(self, request: Request) -> HTTPResponse:
        """Make new recovery codes; those before are void."""
        codes = await request.app.ctx.enrolment.replace_recovery_codes(claims(request), client(request))
        return write(RecoveryCodesOut(recovery_codes=codes))


class MyFactors(HTTPMethodView, attach=blueprint, uri="/me/factors"):
    """The user's second factors."""

    @describe(responses={200: FactorsOut}, refuses=OFF)
    @authenticated
    async def get(self, request: Request) -> HTTPResponse:
        """List your second factors."""
        found = await request.app.ctx.enrolment.of(claims(request).sub)
        return write(
            FactorsOut(
                totp=found.totp is not None, passkeys=len(found.passkeys), recovery_codes_left=len(found.recovery_codes)
            )
        )


class UserFactors(HTTPMethodView, attach=blueprint, uri=f"/<user_id:{USER_ID}>/factors"):
    """The second factors of a user who has lost them."""

    @describe(responses={204: None}, refuses=(*OFF, Code.NOT_FOUND))
    @administrators
    @fresh_with_factor
    async def delete(self, request: Request, user_id: UserId) -> HTTPResponse:
        """Remove all second factors of a user, who has lost them.

        All its sessions end, and it is told by mail. Make sure first that it is really the user who asks.
        """
        await request.app.ctx.enrolment.reset(user_id, actor(request))
        return no_content()


class PasskeyRegistrationOptions(HTTPMethodView, attach=blueprint, uri="/me/passkeys/options"):
    """The start of the registration of a passkey."""

    @describe(responses={200: PasskeyOptions}, refuses=OFF)
    @authenticated
    @fresh
    async def post(self, request: Request) -> HTTPResponse:
        """Return options with which a browser makes a passkey."""
        return write(PasskeyOptions(await request.app.ctx.passkeys.options_to_add(claims(request))))


class MyPasskeys(HTTPMethodView, attach=blueprint, uri="/me/passkeys"):
    """The user's passkeys."""

    @describe(responses={200: PasskeysOut}, refuses=OFF)
    @authenticated
    async def get(self, request: Request) -> HTTPResponse:
        """List your passkeys."""
        found = await request.app.ctx.enrolment.of(claims(request).sub)
        return write(PasskeysOut(passkeys=[PasskeyOut.of(one) for one in found.passkeys]))

    @describe(
        body=NewPasskeyIn,
        responses={201: PasskeyAdded},
        refuses=(*OFF, Code.WRONG_CODE, Code.ALREADY_ENROLLED, Code.TOO_MANY_PASSKEYS, *HASHES),
    )
    @authenticated
    @fresh
    async def post(self, request: Request) -> HTTPResponse:
        """Add a passkey.

        With the first factor, all other sessions end, and there are recovery codes, which are shown once.
        """
        body = read(request, NewPasskeyIn)
        passkeys = request.app.ctx.passkeys
        added, codes = await passkeys.add(claims(request), body.passkey, body.name, client(request))
        shown = PasskeyAdded(**PasskeyOut.of(added).model_dump(), recovery_codes=codes or None)
        return write(shown, 201, omit_none=True)


class MyPasskey(HTTPMethodView, attach=blueprint, uri=f"/me/passkeys/<passkey_id:{PASSKEY_ID}>"):
    """One of the user's passkeys."""

    @describe(responses={204: None}, refuses=(*OFF, Code.NOT_FOUND))
    @authenticated
    @fresh_with_factor
    async def delete(self, request: Request, passkey_id: PasskeyId) -> HTTPResponse:
        """Remove a passkey.

        All other sessions end. Recovery codes are removed with the last factor.
        """
        await request.app.ctx.passkeys.remove(claims(request), read_id(passkey_id))
        return no_content()
