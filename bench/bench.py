"""What every experiment works with: the machine's MongoDB, the key, the tokens, and a way to say how far it is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench import contenders, load
from bench.load import Load, Outcome
from bench.results import Results
from bench.scale import Scale
from bench.servers import Contender, Server
from bench.tokens import ROTATION, Mint, write
from tools.local_mongo import LocalMongo


def in_turn(names: Iterable[str], round_number: int) -> list[str]:
    """Return the names, every other round the other way round, so that none is always the first."""
    ordered = list(names)
    return ordered[::-1] if round_number % 2 else ordered


@dataclass(frozen=True)
class Bench:
    """One run."""

    scale: Scale
    folder: Path  # for logs and tokens; gone afterwards
    mongo: LocalMongo
    key: str = field(repr=False)
    mint: Mint
    step: Callable[[str], None]  # say what comes next
    results: Results

    def mongo_uri(self, database: str) -> str:
        """Return the connection string of a database of the experiment's own."""
        return f"mongodb://{self.mongo.address}/{database}"

    def service(self, database: str, name: str = contenders.OURS) -> Contender:
        """Describe this service on a database of the experiment's own."""
        return contenders.service(self.key, self.mongo_uri(database), name=name)

    def rotation(self) -> tuple[list[str], Path]:
        """Return a thousand tokens of this service, and the file that holds them."""
        tokens = self.mint.several(ROTATION)
        return tokens, write(self.folder / "rotation", tokens)

    def burst(self, server: Server, file: Path) -> Outcome:
        """Ask for the secret with the file's tokens in turn, for as long as a burst of a pair lasts."""
        return load.apply(server, Load("/tests/secret", self.scale.pair_burst_seconds, lines="token", file=file))
