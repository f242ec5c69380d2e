"""Passkeys (Web Authentication Level 3): the options that browsers get, and the answers of authenticators. No I/O.

Discoverable credentials with user verification, so that a passkey alone is two factors; attestation is not asked for.
The relying party's id and origin are those of PUBLIC_URL, never of a request.
"""

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from fido2.server import Fido2Server
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

CHALLENGE_BYTES = HANDLE_BYTES = 32
TIMEOUT_MILLISECONDS = 5 * 60 * 1000
ALGORITHMS = (-7, -8, -257)  # ES256, EdDSA, RS256 (COSE)
ALGORITHM = 3  # the parameter of a COSE key (RFC 9052 section 7.1)
MODULUS, EXPONENT = -1, -2  # the parameters of an RSA key (RFC 8230 section 4)
RS256 = -257
RSA_BYTES, RSA_EXPONENT = (256, 512), 65537  # others cost much to verify (denial of service)
MOST_ID_BYTES = 1023  # of a credential (section 5.8.3)
MOST_KEY_BYTES = 2048  # of a credential with its id
MOST_TEXT = 6144  # of each part of an answer: the parser of CBOR takes quadratic time (denial of service)
Answer = Mapping[str, Any]  # what PublicKeyCredential.toJSON() returns


class InvalidPasskey(Exception):
    """The answer is malformed, or not the one of this passkey to this challenge at this site."""


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A credential that an authenticator has made."""

    id: bytes
    public_key: bytes  # AttestedCredentialData
    counter: int
    backup_eligible: bool
    backed_up: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified answer: the authenticator's counter, and whether the passkey is backed up now."""

    counter: int
    backed_up: bool


def new_challenge() -> bytes:
    """Return a random challenge."""
    return secrets.token_bytes(CHALLENGE_BYTES)


def new_handle() -> bytes:
    """Return a random user handle, which tells an authenticator nothing about the user."""
    return secrets.token_bytes(HANDLE_BYTES)


def challenge_of(answer: Answer) -> bytes:
    """Return the challenge that an answer is for. Raises InvalidPasskey."""
    try:
        _require_small(answer)
        return CollectedClientData(websafe_decode(answer["response"]["clientDataJSON"])).challenge
    except Exception:  # whatever a client has sent
        raise InvalidPasskey from None


def id_of(answer: Answer) -> bytes:
    """Return the id of the credential that has answered. Raises InvalidPasskey."""
    try:
        _require_small(answer)
        raw_id: bytes = websafe_decode(answer["rawId"])
    except Exception:
        raise InvalidPasskey from None
    if not 0 < len(raw_id) <= MOST_ID_BYTES:
        raise InvalidPasskey
    return raw_id


class RelyingParty:
    """The site for which passkeys are made."""

    def __init__(self, origin: str, *, name: str) -> None:
        self._origin = origin
        entity = PublicKeyCredentialRpEntity(name=name, id=urlsplit(origin).hostname)
        self._server = Fido2Server(entity, AttestationConveyancePreference.NONE, self._is_own)
        self._server.timeout = TIMEOUT_MILLISECONDS  # type: ignore[assignment]
        self._server.allowed_algorithms = [one for one in self._server.allowed_algorithms if one.alg in ALGORITHMS]

    def creation_options(
        self, challenge: bytes, handle: bytes, username: str, existing: Sequence[bytes]
    ) -> dict[str, Any]:
        """Return the options of a registration, for PublicKeyCredential.parseCreationOptionsFromJSON()."""
        options, _ = self._server.register_begin(
            PublicKeyCredentialUserEntity(name=username, id=handle, display_name=username),
            [PublicKeyCredentialDescriptor(type=PublicKeyCredentialType.PUBLIC_KEY, id=one) for one in existing],
            ResidentKeyRequirement.REQUIRED,
            UserVerificationRequirement.REQUIRED,
            challenge=challenge,
        )
        return dict(options)["publicKey"]  # type: ignore[no-any-return]

    def request_options(self, challenge: bytes) -> dict[str, Any]:
        """Return the options of a login, which name no account, for parseRequestOptionsFromJSON()."""
        options, _ = self._server.authenticate_begin(
            user_verification=UserVerificationRequirement.REQUIRED, challenge=challenge
        )
        return dict(options)["publicKey"]  # type: ignore[no-any-return]

    def register(self, challenge: bytes, answer: Answer) -> NewPasskey:
        """Verify the answer to a registration. Raises InvalidPasskey."""
        try:
            _require_small(answer)
            response = RegistrationResponse.from_dict(answer)
            data = self._server.register_complete(_state(challenge), response)
            credential = data.credential_data
            usable = credential is not None and _is_usable(credential)
        except Exception:  # whatever a client has sent
            raise InvalidPasskey from None
        if response.response.client_data.cross_origin or credential is None or not usable or not _is_consistent(data):
            raise InvalidPasskey
        return NewPasskey(credential.credential_id, bytes(credential), data.counter, _eligible(data), _backed_up(data))

    def verify(
        self, challenge: bytes, answer: Answer, *, public_key: bytes, handle: bytes, eligible: bool
    ) -> Assertion:
        """Verify the answer of a known passkey. Raises InvalidPasskey.

        The counter is not compared here: that is part of the write (section 7.2, step 22).
        """
        try:
            _require_small(answer)
            response = AuthenticationResponse.from_dict(answer)
            self._server.authenticate_complete(_state(challenge), [AttestedCredentialData(public_key)], response)
        except Exception:  # whatever a client has sent
            raise InvalidPasskey from None
        data, shown = response.response.authenticator_data, response.response.user_handle
        if shown is None or not hmac.compare_digest(shown, handle):
            raise InvalidPasskey
        # What a page of another origin has asked for in a frame; and eligibility never changes (section 6.1.3).
        if response.response.client_data.cross_origin or _eligible(data) != eligible or not _is_consistent(data):
            raise InvalidPasskey
        return Assertion(data.counter, _backed_up(data))

    def _is_own(self, origin: str) -> bool:
        return origin == self._origin


def _state(challenge: bytes) -> dict[str, Any]:
    return {"challenge": websafe_encode(challenge), "user_verification": UserVerificationRequirement.REQUIRED}


def _require_small(answer: Answer) -> None:
    """Raise InvalidPasskey for an answer that would keep the event loop busy."""
    parts = [answer["rawId"], *answer["response"].values()]
    if any(isinstance(part, str) and len(part) > MOST_TEXT for part in parts):
        raise InvalidPasskey


def _is_usable(credential: AttestedCredentialData) -> bool:
    """Return whether answers can be verified with the key of a credential.

    Raises various errors for a key that is none.
    """
    key = credential.public_key
    if key.get(ALGORITHM) not in ALGORITHMS or not 0 < len(credential.credential_id) <= MOST_ID_BYTES:
        return False
    if len(bytes(credential)) > MOST_KEY_BYTES:
        return False
    if key[ALGORITHM] == RS256 and (
        not RSA_BYTES[0] <= len(key[MODULUS]) <= RSA_BYTES[1] or int.from_bytes(key[EXPONENT]) != RSA_EXPONENT
    ):
        return False
    try:
        key.verify(b"", b"")
    except InvalidSignature:
        return True  # the key is one: it has verified, and found the signature wrong
    return False


def _is_consistent(data: AuthenticatorData) -> bool:
    """Return whether the flags of backups go together: what is backed up is eligible (section 6.1.3)."""
    return _eligible(data) or not _backed_up(data)


def _eligible(data: AuthenticatorData) -> bool:
    return bool(data.flags & AuthenticatorData.FLAG.BE)


def _backed_up(data: AuthenticatorData) -> bool:
    return bool(data.flags & AuthenticatorData.FLAG.BS)
