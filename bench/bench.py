"""The context that all experiments share: MongoDB, the key, the tokens, the progress callback and the results."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from app.tokens.refresh import RefreshTokens
from bench import contenders
from bench.checkouts import OURS
from bench.database import PASSWORD, username
from bench.load import Load
from bench.machine import SERVER_CORE
from bench.results import Results
from bench.scale import Scale
from bench.servers import Contender
from bench.setup import Setup
from bench.tokens import ROTATION, TokenSigner, write
from config.product import SLUG
from tools.local_mongo import LocalMongo

Name = TypeVar("Name")


def alternate(names: Iterable[Name], round_number: int) -> list[Name]:
    """Return the names, reversed in every second round, so that none is always first."""
    ordered = list(names)
    return ordered[::-1] if round_number % 2 else ordered


@dataclass(frozen=True)
class Bench:
    """The context of one run."""

    scale: Scale
    folder: Path  # for logs and tokens; deleted after the run
    mongo: LocalMongo
    key: str = field(repr=False)
    signer: TokenSigner
    setup: Setup
    step: Callable[[str], None]  # reports the next step
    results: Results

    def mongo_uri(self, database: str) -> str:
        """Return the connection string of an experiment's database."""
        return f"mongodb://{self.mongo.address}/{database}"

    def service(
        self,
        database: str,
        name: str = OURS,
        *,
        workers: int = 1,
        cores: str = str(SERVER_CORE),
        settings: Mapping[str, str] | None = None,
    ) -> Contender:
        """Describe this service with an experiment's database and settings."""
        uri = self.mongo_uri(database)
        ours = contenders.service(self.setup.today, self.key, uri, name=name, workers=workers, cores=cores)
        return ours.with_settings(settings or {})

    def services(self, database: str) -> dict[str, Contender]:
        """Describe this service, then that of the earlier commit if there is one, by their databases."""
        described = {database: self.service(database)}
        if earlier := self.setup.earlier:
            own = f"{database}_earlier"
            described[own] = contenders.service(earlier, self.key, self.mongo_uri(own))
        return described

    def login_bodies(self, number: int) -> Path:
        """Return a file with the bodies of logins of the first users of fill_users."""
        bodies = (json.dumps({"username": username(n), "password": PASSWORD}) for n in range(number))
        return write(self.folder / "logins", bodies)

    def refresh_tokens(self, session_ids: Iterable[str]) -> list[str]:
        """Return the first refresh token of each session."""
        due = RefreshTokens([self.key.encode()], product=SLUG)
        return [due.encode(id_, 0) for id_ in session_ids]

    def rotation(self) -> tuple[list[str], Path]:
        """Return 1,000 tokens of this service, and the file that contains them."""
        tokens = self.signer.sign_many(ROTATION)
        return tokens, write(self.folder / "rotation", tokens)

    def burst(self, file: Path) -> Load:
        """Request the secret with the file's tokens in rotation, for `pair_burst_seconds`."""
        return Load("/tests/secret", self.scale.pair_burst_seconds, lines="token", file=file)
