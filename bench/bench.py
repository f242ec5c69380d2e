"""The context that all experiments share: MongoDB, the key, the tokens, the progress callback and the results."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench import contenders, load
from bench.load import Load, Outcome
from bench.results import Results
from bench.scale import Scale
from bench.servers import Contender, Server
from bench.tokens import ROTATION, TokenSigner, write
from tools.local_mongo import LocalMongo


def alternate(names: Iterable[str], round_number: int) -> list[str]:
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
    step: Callable[[str], None]  # reports the next step
    results: Results

    def mongo_uri(self, database: str) -> str:
        """Return the connection string of an experiment's database."""
        return f"mongodb://{self.mongo.address}/{database}"

    def service(self, database: str, name: str = contenders.OURS) -> Contender:
        """Describe this service with an experiment's database."""
        return contenders.service(self.key, self.mongo_uri(database), name=name)

    def rotation(self) -> tuple[list[str], Path]:
        """Return 1,000 tokens of this service, and the file that contains them."""
        tokens = self.signer.sign_many(ROTATION)
        return tokens, write(self.folder / "rotation", tokens)

    def burst(self, server: Server, file: Path) -> Outcome:
        """Request the secret with the file's tokens in rotation, for `pair_burst_seconds`."""
        return load.apply(server, Load("/tests/secret", self.scale.pair_burst_seconds, lines="token", file=file))
