"""The life of signing keys: made, published, signing, verifying, dropped; followed by every worker."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from sanic.log import logger

from app.background import start
from app.clocks import boot_clock
from app.logs.audit import audit
from app.models.keys import Keys, Ring, StoredKey
from app.models.sessions import CLOCKS_DIFFER_SECONDS, LONGEST_TOKEN_SECONDS, Sessions
from app.security.key_errors import ChangedMeanwhile, NextKeyTooYoung, UnknownKid
from app.tokens.key_set import KeySet
from app.tokens.keys import Encryption, PublicKey, SigningKey, UndecipherableSecret

PURPOSE = "signing key"
VERIFIED = timedelta(seconds=LONGEST_TOKEN_SECONDS + CLOCKS_DIFFER_SECONDS)  # after a key has signed for the last time
SOONEST_SECONDS = 0.1  # between two reads for keys that are not known yet (denial of service by unknown keys)


class SigningKeys:
    """Follows the stored keys, and turns them when it is time.

    A key is published before it signs, for `lead`, so that whoever caches public keys knows it (jose and PyJWT refuse
    a token whose key they have just missed). The one before verifies as long as a token of it can be valid. `algorithm`
    is the one that signs, or None if HS256 does; keys of all algorithms verify.
    """

    def __init__(
        self,
        keys: Keys,
        key_set: KeySet,
        encryption: Encryption,
        sessions: Sessions,
        *,
        algorithm: str | None,
        lead: timedelta,
        days: float,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._keys = keys
        self._set = key_set
        self._encryption = encryption
        self._sessions = sessions
        self.algorithm = algorithm
        self._lead = lead
        self._life = timedelta(days=days)
        self._clock = clock
        self._adopted: object = None
        self._following = asyncio.Lock()  # or an older read could replace a newer one
        self._read_at = -SOONEST_SECONDS
        self._reading: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Read the keys, make the first ones, and turn them if it is time.

        Raises pymongo's errors.
        """
        async with self._following:
            await self._read()

    async def read_soon(self) -> None:
        """Read the keys, because a token states one that is not known here yet.

        All callers share one read, and there are few in a second whatever tokens clients invent. Raises pymongo's
        errors.
        """
        if self._reading is None:
            self._reading = start(self._read_after_pause())
        await asyncio.shield(self._reading)

    async def rotate(self, algorithm: str, *, now: bool) -> str:
        """Let the next key sign, and return its name.

        Make the first keys if there are none.

        With `now` also if it was published only a moment ago. Raises NextKeyTooYoung or ChangedMeanwhile.
        """
        ring = await self._ring(algorithm)
        if ring is None:
            await self._create(algorithm)
            ring = await self._ring(algorithm)
            if ring is None:
                raise ChangedMeanwhile
            return ring.current
        if not await self._turn(ring, timedelta(0) if now else self._lead):
            raise await self._why_not(ring)
        audit("key_rotated", kid=ring.next)
        return ring.next

    async def drop(self, kid: str, *, now: bool) -> None:
        """Refuse all tokens of a key from now on.

        Here and wherever the feed is followed.

        Raises UnknownKid, NextKeyTooYoung or ChangedMeanwhile.
        """
        rings = [ring for ring in await self._keys.all() if kid in ring.keys]
        if not rings:
            raise UnknownKid
        ring = rings[0]
        new = self._new(ring.algorithm) if kid in (ring.current, ring.next) else None
        if not await self._keys.drop(ring, kid, new, lead=timedelta(0) if now else self._lead):
            raise await self._why_not(ring)
        await self._finish_drop(ring.algorithm, kid)
        audit("key_dropped", kid=kid)

    async def rewrap(self) -> tuple[int, int]:
        """Encrypt all secrets again with the current key.

        Returns how many, and how many could not be read.
        """
        done = left = 0
        for ring in await self._keys.all():
            for key in ring.keys.values():
                before = key.secret["key"]
                if before == self._encryption.current:
                    continue
                if secret := self._encryption.renewed(key.secret, purpose=PURPOSE, record=key.kid):
                    done += await self._keys.rewrap(ring.algorithm, key.kid, before, secret)
                else:
                    left += 1
        return done, left

    async def _read_after_pause(self) -> None:
        await asyncio.sleep(max(0.0, self._read_at + SOONEST_SECONDS - self._clock()))
        async with self._following:
            self._reading = None  # this read may miss what later callers need
            await self._read()

    async def _read(self) -> None:
        self._read_at = self._clock()
        rings = {ring.algorithm: ring for ring in await self._keys.all()}
        if self.algorithm and self.algorithm not in rings:
            await self._create(self.algorithm)
            rings = {ring.algorithm: ring for ring in await self._keys.all()}
        self._adopt(rings)
        for ring in rings.values():
            await self._finish_drops(ring)
            if ring.now - ring.turned_at >= self._life and await self._turn(ring, self._lead):
                audit("key_rotated", kid=ring.next)

    async def _finish_drops(self, ring: Ring) -> None:
        for kid in ring.dropping:  # whose worker died before it was told
            await self._finish_drop(ring.algorithm, kid)

    async def _finish_drop(self, algorithm: str, kid: str) -> None:
        await self._sessions.end_key(kid)
        await self._keys.finish_drop(algorithm, kid)

    def _adopt(self, rings: dict[str, Ring]) -> None:
        alive = [key for ring in rings.values() for key in ring.keys.values() if not key.until or key.until > ring.now]
        signing = self._that_signs(rings)
        found = (signing and signing.kid, {key.kid for key in alive})
        if found == self._adopted:
            return
        self._set.public = {key.kid: PublicKey.of(key.jwk) for key in alive}
        private = self._readable(signing) if signing else None
        self._set.signing = private if self.algorithm else None
        self._set.feed = private
        self._set.read = True
        self._adopted = found

    def _readable(self, key: StoredKey) -> SigningKey | None:
        """Return the private key, or None if it cannot be read: what it has signed is verified nevertheless."""
        try:
            return SigningKey.from_der(self._opened(key))
        except UndecipherableSecret as error:
            logger.error("the signing key %s cannot be used: %s", key.kid, error)
            return None

    def _that_signs(self, rings: dict[str, Ring]) -> StoredKey | None:
        """Return the key that signs. A key of another algorithm than before signs once others may know it."""
        chosen = rings.get(self.algorithm or "")
        others = [ring for name, ring in rings.items() if name != self.algorithm]
        if chosen and others:
            current = chosen.keys[chosen.current]
            if current.created_at and chosen.now - current.created_at < self._lead:
                chosen = others[0]
        ring = chosen or (others[0] if others else None)
        return ring.keys[ring.current] if ring else None

    async def _ring(self, algorithm: str) -> Ring | None:
        return next((ring for ring in await self._keys.all() if ring.algorithm == algorithm), None)

    async def _create(self, algorithm: str) -> None:
        if await self._keys.create(algorithm, self._new(algorithm), self._new(algorithm)):
            audit("keys_made", algorithm=algorithm)

    async def _turn(self, ring: Ring, lead: timedelta) -> bool:
        new = self._new(ring.algorithm)
        return await self._keys.turn(ring, new, lead=lead, lifetime=VERIFIED)

    async def _why_not(self, ring: Ring) -> Exception:
        now = await self._ring(ring.algorithm)
        return NextKeyTooYoung() if now and now.version == ring.version else ChangedMeanwhile()

    def _new(self, algorithm: str) -> StoredKey:
        return self._sealed(SigningKey.new(algorithm))

    def _sealed(self, key: SigningKey) -> StoredKey:
        secret = self._encryption.encrypt(key.to_der(), purpose=PURPOSE, record=key.public.kid)
        return StoredKey(key.public.kid, key.public.jwk, secret)

    def _opened(self, key: StoredKey) -> bytes:
        return self._encryption.decrypt(key.secret, purpose=PURPOSE, record=key.kid)
