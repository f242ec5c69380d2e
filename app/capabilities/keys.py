"""Asymmetric keys: other services verify access tokens, and follow the ended sessions."""

from datetime import timedelta

from app.database.client import Database
from app.models import keys
from app.models.sessions import Sessions
from app.security.feed import Feed
from app.security.keys import SigningKeys
from app.security.revocations import Revocations
from app.tokens.feed import FeedTokens
from app.tokens.key_set import KeySet
from app.tokens.keys import Encryption
from config import Config


class Keys:
    """The keys of this worker, and the feed that they sign."""

    def __init__(
        self,
        config: Config,
        key_set: KeySet,
        database: Database,
        sessions: Sessions,
        revocations: Revocations,
        encryption: Encryption,
    ) -> None:
        self.set = key_set
        self.signing = SigningKeys(
            keys.Keys(database.collection("keys")),
            key_set,
            encryption,
            sessions,
            algorithm=None if config.JWT_ALGORITHM == "HS256" else config.JWT_ALGORITHM,
            lead=timedelta(seconds=config.SIGNING_KEY_LEAD_SECONDS),
            days=config.SIGNING_KEY_DAYS,
        )
        self.feed = revocations.observer = Feed(
            revocations,
            FeedTokens(key_set, issuer=config.issuers[0]),
            replace_key=self.signing.read_soon,
        )

    def signs_with(self, kids: set[str]) -> bool:
        """Return whether one of these keys signs."""
        return any(key and key.public.kid in kids for key in (self.set.signing, self.set.feed))
