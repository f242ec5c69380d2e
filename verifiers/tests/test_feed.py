"""Whatever the network does with the feed, no ended session is accepted for longer than `stale_seconds`.

Each way to tamper with the feed has a service and a verifier of its own, so that all of them are tested at once.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from verifiers.tests.fake_service import FEED, Answer, FakeServer, FakeService, Fault, Key, Query, encode
from verifiers.tests.servers import MANY, STALE_SECONDS, TIMEOUT_SECONDS, running

POLL_SECONDS = 0.2
REMOVED = object()
CLAIMS = ("iss", "iat", "after", "cursor", "complete", "sessions", "dropped_keys", "age")
WRONG: list[tuple[str, Any]] = [
    ("iss", "http://other.test"), ("iss", None), ("iat", "now"), ("iat", None), ("iat", True), ("cursor", 7),
    ("cursor", None), ("complete", "true"), ("complete", 1), ("complete", None), ("sessions", []), ("sessions", None),
    ("sessions", {"a": "soon"}), ("sessions", {"a": None}), ("sessions", {"a": True}), ("dropped_keys", "none"),
    ("dropped_keys", None), ("dropped_keys", [1]), ("age", -1), ("age", "0"), ("age", None), ("age", False),
    ("age", []), ("age", float("nan")), ("age", float("inf")), ("age", 1e999), ("age", STALE_SECONDS + 0.01),
    ("nonce", "another"), ("nonce", None), ("nonce", ["nonce"]), ("after", "another"), ("after", None), ("after", 0),
    *((name, REMOVED) for name in (*CLAIMS, "nonce")),
]  # fmt: skip


def tampered(name: str, value: Any) -> Fault:
    """Sign answers in which one claim is replaced or removed, as a service would with another request or clock."""

    async def fault(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED:
            return await service.honest(path, query)
        claims = {**service.claims(query), name: value}
        return service.signed({key: claim for key, claim in claims.items() if claim is not REMOVED})

    return fault


def resigned(key: Key | None = None, **header: Any) -> Fault:
    """Sign right answers with another key or header."""

    async def fault(service: FakeService, path: str, query: Query) -> Answer:
        if path != FEED:
            return await service.honest(path, query)
        named = {name: service.key.kid if value == "KID" else value for name, value in header.items()}
        return service.signed(service.claims(query), key, **named)

    return fault


def answered(*, wait: float = 0, **answer: Any) -> Fault:
    """Answer the feed with these bytes and this status."""

    async def fault(service: FakeService, path: str, query: Query) -> Answer:
        await asyncio.sleep(wait if path == FEED else 0)
        return Answer(**answer) if path == FEED and answer else await service.honest(path, query)

    return fault


async def unreachable(service: FakeService, path: str, query: Query) -> Answer:
    await asyncio.sleep(3600)
    return await service.honest(path, query)


async def cut_short(service: FakeService, path: str, query: Query) -> Answer:
    answer = await service.honest(path, query)
    return Answer(answer.body[:-10], disconnect=True) if path == FEED else answer


async def truncated(service: FakeService, path: str, query: Query) -> Answer:
    answer = await service.honest(path, query)
    return Answer(answer.body[:-2]) if path == FEED else answer


async def replayed(service: FakeService, path: str, query: Query) -> Answer:
    """Repeat the latest answer of the same kind."""
    return service.recorded["nonce" in query] if path == FEED else await service.honest(path, query)


async def reordered(service: FakeService, path: str, query: Query) -> Answer:
    """Give each request the answer to the one before."""
    if path != FEED:
        return await service.honest(path, query)
    _, previous = [request for request in service.requests if request[0] == FEED][-2]
    return service.signed(service.claims(previous))


async def rolled_back(service: FakeService, path: str, query: Query) -> Answer:
    """Answer the right nonce, by a worker that has not proven its news since the fault began."""
    return await tampered("age", STALE_SECONDS * 3)(service, path, query)


async def unsigned(service: FakeService, path: str, query: Query) -> Answer:
    if path != FEED:
        return await service.honest(path, query)
    header = {"alg": "none", "kid": service.key.kid, "typ": "revocations+jwt"}
    return Answer(f"{encode(header)}.{encode(service.claims(query))}.".encode())


async def other_algorithm(service: FakeService, path: str, query: Query) -> Answer:
    return await resigned(service.other_key, kid=service.key.kid)(service, path, query)


async def access_token(service: FakeService, path: str, query: Query) -> Answer:
    """Sign the right claims as an access token, whose claims users influence."""
    return await resigned(typ="at+jwt")(service, path, query)


async def redirected(service: FakeService, path: str, query: Query) -> Answer:
    if path == "/.well-known/moved":
        return await service.honest(FEED, query)
    location = f"moved?{'&'.join(f'{name}={value}' for name, value in query.items())}"
    return Answer(status=302, headers={"Location": location}) if path == FEED else await service.honest(path, query)


async def too_large(service: FakeService, path: str, query: Query) -> Answer:
    return await tampered("padding", "." * 5_000_000)(service, path, query)


async def signed_by_dropped_key(service: FakeService, path: str, query: Query) -> Answer:
    """Drop a key in the news, and sign proofs with it. Who asks for news again has read that it was dropped."""
    if path != FEED:
        return await service.honest(path, query)
    if "nonce" not in query:
        service.dropped = [*service.dropped, service.other_key.kid]
        return service.signed(service.claims(query))
    while len(service.dropped) < 2:
        await asyncio.sleep(0.02)
    return service.signed(service.claims(query), service.other_key)


async def endless_pages(service: FakeService, path: str, query: Query) -> Answer:
    return await tampered("complete", False)(service, path, query)


HARMFUL: dict[str, Fault] = {
    "unreachable": unreachable,
    "cut short": cut_short,
    "truncated": truncated,
    "delayed": answered(wait=STALE_SECONDS + 0.2),
    "replayed": replayed,
    "reordered": reordered,
    "rolled back": rolled_back,
    "unsigned": unsigned,
    "another algorithm under the key id": other_algorithm,
    "access token": access_token,
    "redirected": redirected,
    "too large": too_large,
    "endless": answered(endless=True),
    "signed by a dropped key": signed_by_dropped_key,
    "pages without end": endless_pages,
    "forged with the key id": resigned(FORGER := Key(), kid="KID"),
    "forged with a key of its own": resigned(FORGER),
    "forged with an embedded key": resigned(FORGER, jwk=FORGER.jwk),
    "forged with a key URL": resigned(FORGER, jku="http://127.0.0.1:1/jwks.json"),
    "critical header": resigned(crit=["exp"]),
    "no type": resigned(typ=None),
    "type JWT": resigned(typ="JWT"),
    "empty": answered(body=b"{}"),
    "text": answered(body=b"\xff.\xff.\xff"),
    **{f"status {status}": answered(status=status) for status in (204, 404, 500, 503)},
    **{f"{name} is {'removed' if value is REMOVED else value!r}": tampered(name, value) for name, value in WRONG},
}


def news(fault: Fault) -> Fault:
    """Tamper only with the answers to long polls."""

    async def only_news(service: FakeService, path: str, query: Query) -> Answer:
        proof = path == FEED and "nonce" in query
        return await (service.honest(path, query) if proof else fault(service, path, query))

    return only_news


async def skipped(service: FakeService, path: str, query: Query) -> Answer:
    """Answer a long poll with a cursor that skips entries, as a recording could."""
    claims = service.claims(query)
    return (
        service.signed({**claims, "cursor": "1000", "sessions": {}})
        if path == FEED
        else await service.honest(path, query)
    )


async def repeated(service: FakeService, path: str, query: Query) -> Answer:
    """Repeat every entry, in another order."""
    if path != FEED:
        return await service.honest(path, query)
    return service.signed({**service.claims(query), "sessions": dict(reversed(service.ended))})


async def two_workers(service: FakeService, path: str, query: Query) -> Answer:
    service.ages = [0.0, STALE_SECONDS * 0.4] if len(service.ages) == 1 else service.ages
    return await service.honest(path, query)


async def single_entries(service: FakeService, path: str, query: Query) -> Answer:
    service.page = 1
    return await service.honest(path, query)


async def keys_unavailable(service: FakeService, path: str, query: Query) -> Answer:
    return await service.honest(path, query) if path == FEED else Answer(status=500)


HARMLESS: dict[str, Fault] = {
    "no news": news(unreachable),
    "news replayed": news(replayed),
    "news forged": news(resigned(FORGER)),
    "news with a cursor that skips entries": news(skipped),
    "news unavailable": news(answered(status=503)),
    "entries repeated": repeated,
    "two workers with different ages": two_workers,
    "pages of one entry": single_entries,
    "slow": answered(wait=STALE_SECONDS / 10),
    "keys unavailable": keys_unavailable,
    "none": answered(),
}


async def last_page_missing(service: FakeService, path: str, query: Query) -> Answer:
    service.page = 2
    return Answer(status=500) if query.get("after") == "4" else await service.honest(path, query)


async def no_keys(service: FakeService, path: str, query: Query) -> Answer:
    return await service.honest(path, query) if path == FEED else Answer(b'{"keys": []}')


AT_START: dict[str, Fault] = {
    "service unavailable": answered(status=503),
    "keys cannot be fetched": keys_unavailable,
    "no key made": no_keys,
    "last page missing": last_page_missing,
    "everything unreachable": unreachable,
}


@dataclass
class Trial:
    """What a verifier answered for a good token and for one whose session ended when the fault began."""

    service: FakeService
    fault: Fault
    good: str = ""
    doomed: str = ""
    answers: list[tuple[float, str, int]] = field(default_factory=list)  # time of the request, token, status

    def __post_init__(self) -> None:
        self.good, self.doomed = self.service.token(sid="good"), self.service.token(sid="doomed")
        for number in range(5):
            self.service.end(f"earlier-{number}")

    def __getitem__(self, which: str) -> str:
        return self.good if which == "good" else self.doomed

    def statuses(self, token: str, after: float = 0, before: float = float("inf")) -> list[int]:
        """Return the answers for a token to the requests of a period."""
        return [status for at, which, status in self.answers if which == token and after <= at < before]


@dataclass
class Run:
    """All trials of one implementation, and when the faults began and ended."""

    trials: dict[str, Trial]
    began: float = 0
    ended: float = 0


def key_of(name: str) -> str:
    """Return a name in the form of a path segment."""
    return encode(name.encode())


async def follow(port: int, name: str, trial: Trial, over: asyncio.Event) -> None:
    """Present both tokens again and again on one connection. An HTTP client would take most of the time of the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not over.is_set():
        for which in ("good", "doomed"):
            began = time.monotonic()
            writer.write(
                f"GET /{key_of(name)} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {trial[which]}\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await (reader.readexactly(int(length[1])) if length else reader.readuntil(b"\r\n0\r\n\r\n"))
            trial.answers.append((began, which, int(head.split()[1])))
        await asyncio.sleep(POLL_SECONDS)
    writer.close()


async def observe(run: Run, port: int) -> None:
    """Present tokens while the faults begin and end."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for name, trial in run.trials.items():
            tasks.create_task(follow(port, name, trial, over))
        await make_faults(run)
        over.set()


async def make_faults(run: Run) -> None:
    """Wait until all verifiers work, make the faults, end them, and wait until all work again."""
    started = {name: trial for name, trial in run.trials.items() if name not in AT_START}
    await reach(started, "good", 200)
    for trial in started.values():
        trial.service.fault = trial.fault
        trial.service.end("doomed")
    run.began = time.monotonic()
    await asyncio.sleep(STALE_SECONDS + 1)
    harmless = {name: run.trials[name] for name in HARMLESS}
    await reach(harmless, "good", 200)
    await reach(harmless, "doomed", 401)
    run.ended = time.monotonic()
    for trial in run.trials.values():
        trial.service.fault, trial.service.page, trial.service.ages = None, 1000, [0.0]
    for name in AT_START:
        run.trials[name].service.end("doomed")
    await reach(run.trials, "good", 200)
    await reach(run.trials, "doomed", 401)


async def reach(trials: dict[str, Trial], token: str, status: int) -> None:
    """Wait until all verifiers answer with a status."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        missing = [name for name, trial in trials.items() if trial.statuses(token)[-1:] != [status]]
        if not missing or time.monotonic() > deadline:
            assert not missing, f"{token} is not {status}: {missing}"
            return
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module", params=MANY)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Observe all trials with one implementation."""
    with FakeServer() as server:
        faults = HARMFUL | HARMLESS | AT_START
        run = Run({name: Trial(server.add(key_of(name)), fault) for name, fault in faults.items()})
        skipping = "news with a cursor that skips entries"  # no honest long poll is open when the session ends
        for name, fault in {**AT_START, skipping: HARMLESS[skipping]}.items():
            run.trials[name].service.fault = fault
        names = ",".join(key_of(name) for name in faults)
        url = server.url("").rstrip("/")
        with running(MANY[request.param], url, NAMES=names) as client:
            asyncio.run(observe(run, client.base_url.port or 0))
        yield run


@pytest.mark.parametrize("name", HARMFUL)
def test_a_fault_ends_all_acceptance_in_time(run: Run, name: str) -> None:
    trial, limit = run.trials[name], run.began + STALE_SECONDS
    for token in ("good", "doomed"):
        assert 200 not in trial.statuses(token, limit, run.ended)
    assert 503 in trial.statuses("good", limit, run.ended)
    assert 401 not in trial.statuses("good")


@pytest.mark.parametrize("name", HARMFUL)
def test_a_session_that_ended_during_a_fault_is_not_accepted_afterwards(run: Run, name: str) -> None:
    trial = run.trials[name]
    assert 200 not in trial.statuses("doomed", run.began + STALE_SECONDS)
    assert trial.statuses("doomed")[-1] == 401
    assert trial.statuses("good")[-1] == 200


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_fault_neither_delays_ends_nor_rejects_good_tokens(run: Run, name: str) -> None:
    trial, limit = run.trials[name], run.began + STALE_SECONDS
    assert 401 not in trial.statuses("good")
    assert 200 in trial.statuses("good", limit, run.ended)
    assert 401 in trial.statuses("doomed", run.began, run.ended)
    assert 200 not in trial.statuses("doomed", limit)


@pytest.mark.parametrize("name", AT_START)
def test_nothing_is_accepted_until_the_whole_state_is_read(run: Run, name: str) -> None:
    trial = run.trials[name]
    assert set(trial.statuses("good", 0, run.ended)) == set(trial.statuses("doomed", 0, run.ended)) == {503}
    assert trial.statuses("good")[-1] == 200
