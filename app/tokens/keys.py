"""Keys: the forms of signing keys and of their public halves, and the encryption of stored secrets. Does no I/O."""

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from app.tokens.key_set import encryption_key_name

EDDSA, ES256 = "EdDSA", "ES256"
REQUIRED_MEMBERS = {"OKP": ("crv", "kty", "x"), "EC": ("crv", "kty", "x", "y")}  # RFC 7638 section 3.2, RFC 8037
NONCE_BYTES = 12  # of AES-GCM, random for each record

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
Jwk = dict[str, str]
Stored = dict[str, Any]  # an encrypted secret


class UndecipherableSecret(Exception):
    """A stored secret is encrypted with a key that is not configured, or was changed."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a signing key, under the name that tokens state."""

    kid: str
    algorithm: str
    jwk: Jwk
    key: Any

    @classmethod
    def of(cls, jwk: Jwk) -> "PublicKey":
        """Read a public JWK (RFC 7517)."""
        of_type: Any = OKPAlgorithm if jwk["alg"] == EDDSA else ECAlgorithm
        return cls(jwk["kid"], jwk["alg"], jwk, of_type.from_jwk(jwk))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its public half."""

    public: PublicKey
    private: PrivateKey

    @classmethod
    def new(cls, algorithm: str) -> "SigningKey":
        """Make a random key for EdDSA (RFC 8037) or ES256 (RFC 7518 section 3.4)."""
        made = ed25519.Ed25519PrivateKey.generate() if algorithm == EDDSA else ec.generate_private_key(ec.SECP256R1())
        return cls.of(made)

    @classmethod
    def of(cls, private: PrivateKey) -> "SigningKey":
        """Return a private key with its public half, named by its thumbprint."""
        public: Any = private.public_key()
        eddsa = isinstance(private, ed25519.Ed25519PrivateKey)
        of_type: Any = OKPAlgorithm if eddsa else ECAlgorithm
        jwk: Jwk = dict(of_type.to_jwk(public, as_dict=True))
        jwk = {name: value for name, value in jwk.items() if name in REQUIRED_MEMBERS[jwk["kty"]]}
        jwk |= {"kid": thumbprint(jwk), "use": "sig", "alg": EDDSA if eddsa else ES256}
        return cls(PublicKey(jwk["kid"], jwk["alg"], jwk, public), private)

    @classmethod
    def from_der(cls, der: bytes) -> "SigningKey":
        """Read a key. Raises ValueError."""
        private: Any = load_der_private_key(der, password=None)
        return cls.of(private)

    def to_der(self) -> bytes:
        """Return the private key in PKCS #8 (RFC 5958)."""
        return self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def thumbprint(jwk: Jwk) -> str:
    """Return the name of a key that follows from the key itself (RFC 7638)."""
    members = {name: jwk[name] for name in REQUIRED_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


class Encryption:
    """Encrypts with the first key, decrypts with all of them.

    The cipher is AES-256-GCM (NIST SP 800-38D).

    Each purpose has a key of its own (HKDF, RFC 5869), and the id of the record is authenticated, so that a ciphertext
    is worth nothing in another place. What is stored has the name of the key, the nonce, and the ciphertext with its
    tag.
    """

    def __init__(self, keys: Sequence[bytes], *, product: str) -> None:
        self._keys = {encryption_key_name(key): key for key in keys}
        self._current = encryption_key_name(keys[0])
        self._product = product

    @property
    def current(self) -> str:
        """The name of the key that encrypts."""
        return self._current

    def encrypt(self, secret: bytes, *, purpose: str, record: str) -> Stored:
        """Encrypt a secret for one record."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        ciphertext = self._cipher(self._current, purpose).encrypt(nonce, secret, record.encode())
        return {"key": self._current, "nonce": nonce, "ciphertext": ciphertext}

    def decrypt(self, stored: Stored, *, purpose: str, record: str) -> bytes:
        """Decrypt the secret of a record. Raises UndecipherableSecret."""
        try:
            key, nonce, ciphertext = stored["key"], stored["nonce"], stored["ciphertext"]
            if key not in self._keys:
                raise UndecipherableSecret(f"the encryption key {key} is not configured")
            return self._cipher(key, purpose).decrypt(nonce, ciphertext, record.encode())
        except (InvalidTag, ValueError, TypeError, KeyError):
            raise UndecipherableSecret("the ciphertext was changed") from None

    def renewed(self, stored: Stored, *, purpose: str, record: str) -> Stored | None:
        """Encrypt a secret again with the current key.

        Returns None if it cannot be read.
        """
        secret = self.readable(stored, purpose=purpose, record=record)
        return None if secret is None else self.encrypt(secret, purpose=purpose, record=record)

    def readable(self, stored: Stored, *, purpose: str, record: str) -> bytes | None:
        """Decrypt the secret of a record, or return None if it cannot be read."""
        try:
            return self.decrypt(stored, purpose=purpose, record=record)
        except UndecipherableSecret:
            return None

    def _cipher(self, name: str, purpose: str) -> AESGCM:
        label = f"{self._product} {purpose} 1".encode()
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=label).derive(self._keys[name]))
