"""A software authenticator for passkeys (Web Authentication Level 3, section 6).

It does what that of Chromium cannot: counters of 0 or that go back, no user verification, other origins.
"""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from fido2 import cbor
from fido2.cose import ES256

USER_PRESENT, USER_VERIFIED, ELIGIBLE, BACKED_UP, ATTESTED, EXTENDED = 1, 4, 8, 16, 64, 128  # flags (section 6.1)


def text(data: bytes) -> str:
    """Return bytes as Base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def data(encoded: str) -> bytes:
    """Return the bytes of a text in Base64url."""
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


@dataclass
class Authenticator:
    """One passkey, and how its next answers differ from those of an honest authenticator."""

    origin: str
    counts: bool = True
    verifies: bool = True
    eligible: bool = False
    counter: int = 0
    cross_origin: bool = False
    backed_up: bool | None = None  # as eligible, unless it says otherwise
    public_key: dict[int, Any] | None = None  # another one than its own
    extensions: bytes = b""
    rp_id: str | None = None  # another one than that of the options
    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    handle: bytes = b""

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer the options of a registration, as toJSON() does."""
        assert options["authenticatorSelection"]["userVerification"] == "required"
        assert options["authenticatorSelection"]["residentKey"] == "required"
        self.handle = data(options["user"]["id"])
        cose: Any = ES256.from_cryptography_key(self.key.public_key())  # type: ignore[no-untyped-call]
        public_key = cbor.encode(self.public_key or dict(cose))
        credential = bytes(16) + len(self.id).to_bytes(2) + self.id + public_key
        auth_data = self._auth_data(options["rp"]["id"], ATTESTED) + credential
        attestation = cbor.encode({"fmt": "none", "attStmt": {}, "authData": auth_data})
        client_data = self._client_data("webauthn.create", options["challenge"])
        return self._answer({"clientDataJSON": text(client_data), "attestationObject": text(attestation)})

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer the options of a login or step-up, as toJSON() does."""
        assert options["userVerification"] == "required"
        assert "allowCredentials" not in options
        if self.counts:
            self.counter += 1
        auth_data = self._auth_data(options["rpId"], EXTENDED if self.extensions else 0) + self.extensions
        client_data = self._client_data("webauthn.get", options["challenge"])
        signature = self.key.sign(auth_data + hashlib.sha256(client_data).digest(), ec.ECDSA(SHA256()))
        response = {"clientDataJSON": client_data, "authenticatorData": auth_data, "signature": signature}
        response |= {"userHandle": self.handle} if self.handle else {}
        return self._answer({name: text(value) for name, value in response.items()})

    def _auth_data(self, rp_id: str, flags: int) -> bytes:
        backed_up = self.eligible if self.backed_up is None else self.backed_up
        flags |= USER_PRESENT | (USER_VERIFIED if self.verifies else 0)
        flags |= (ELIGIBLE if self.eligible else 0) | (BACKED_UP if backed_up else 0)
        return hashlib.sha256((self.rp_id or rp_id).encode()).digest() + bytes([flags]) + self.counter.to_bytes(4)

    def _client_data(self, kind: str, challenge: str) -> bytes:
        fields = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.cross_origin}
        return json.dumps(fields).encode()

    def _answer(self, response: dict[str, str]) -> dict[str, Any]:
        credential_id = text(self.id)
        extensions: dict[str, Any] = {}
        return {
            "id": credential_id,
            "rawId": credential_id,
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": extensions,
            "response": response,
        }
