"""Password hashing runs off the event loop, with bounded concurrency."""

import asyncio
import os
import secrets
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from app.refusals import refusal
from app.security.passwords import CONTEXT, NICENESS, Passwords, normalise
from app.security.turns import Caller, HashingBusy
from tests.conftest import PASSWORD, Service
from tests.interleaving import settle

TIMEOUT_SECONDS = 60  # for a busy machine; nothing takes so long when all is well


class Blocker:
    """Work for a hashing thread that blocks until the test releases it."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.started = threading.Semaphore(0)

    def __call__(self) -> str:
        """Block the thread until the work is released."""
        self.started.release()
        assert self.released.wait(TIMEOUT_SECONDS)
        return "done"


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    """Yield blocking work, which is always released at the end."""
    blocker = Blocker()
    yield blocker
    blocker.released.set()


def pool(threads: int = 1, queue: int = 1) -> Passwords:
    return Passwords(min_length=8, product="acme_api", threads=threads, queue=queue, places=8)


async def run(passwords: Passwords, work: Callable[[], str]) -> str:
    """Run a function in a hashing thread."""
    with passwords.turns.place(Caller()) as place:
        await place.turn()
        return await passwords._work(place, work)


async def verify(passwords: Passwords, password: str, password_hash: str | None) -> tuple[bool, str | None]:
    with passwords.turns.place(Caller()) as place:
        await place.turn()
        return await passwords.verify(place, password, password_hash)


def test_only_the_right_password_of_an_existing_user_is_accepted() -> None:
    async def story() -> None:
        passwords = pool(queue=8)
        stored = await passwords.hash("cafe\u0301 cafe\u0301")
        assert await verify(passwords, "caf\u00e9 caf\u00e9", stored) == (True, None)
        assert await verify(passwords, "cafe cafe", stored) == (False, None)
        passwords._dummy_hash = stored
        assert await verify(passwords, "caf\u00e9 caf\u00e9", None) == (False, None), "also with the dummy password"

    asyncio.run(story())


def test_a_dummy_hash_has_the_parameters_of_real_hashes() -> None:
    """The dummy hash is verified once for an unknown user (prevents user enumeration by timing)."""

    async def story() -> None:
        passwords = pool(queue=8)
        await passwords.prepare()
        stored = await passwords.hash(PASSWORD)
        assert (
            passwords._dummy_hash.rpartition("$")[0].rpartition("$")[0] == stored.rpartition("$")[0].rpartition("$")[0]
        )

    asyncio.run(story())


def test_an_outdated_hash_is_replaced_during_verification() -> None:
    """Its parameters are weaker than the current ones, or its scheme is deprecated."""

    async def story() -> None:
        passwords = pool()
        for weak in (
            CONTEXT.handler("argon2").using(time_cost=1, memory_cost=8192).hash(PASSWORD),
            CONTEXT.handler("pbkdf2_sha256").hash(PASSWORD),
        ):
            right, better = await verify(passwords, PASSWORD, weak)
            assert right
            assert better is not None
            assert better.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
            assert await verify(passwords, PASSWORD, better) == (True, None)

    asyncio.run(story())


def test_a_full_hashing_queue_returns_503_with_retry_after(blocker: Blocker) -> None:
    async def story() -> None:
        passwords = pool(threads=1, queue=1)
        working, waiting = (asyncio.ensure_future(run(passwords, blocker)) for _ in range(2))
        await settle()
        with pytest.raises(HashingBusy) as busy:
            await passwords.hash(PASSWORD)
        problem = refusal(busy.value)
        assert problem
        assert (problem.status_code, problem.code) == (503, "hashing_busy")
        assert "Retry-After" in problem.headers
        blocker.released.set()
        assert {*await asyncio.gather(working, waiting)} == {"done"}
        assert await verify(passwords, PASSWORD, await passwords.hash(PASSWORD)) == (True, None)

    asyncio.run(story())


def test_a_cancelled_request_leaves_the_hashing_queue(blocker: Blocker) -> None:
    async def story() -> None:
        passwords = pool(threads=1, queue=1)
        working = asyncio.ensure_future(run(passwords, blocker))
        request: asyncio.Future[Any] = asyncio.ensure_future(passwords.hash(PASSWORD))
        await settle()
        request.cancel()
        await settle()
        waiting = asyncio.ensure_future(passwords.hash(PASSWORD))
        await settle()
        blocker.released.set()
        assert await working == "done"
        assert (await waiting).startswith("$argon2id$")

    asyncio.run(story())


def test_a_thread_stays_busy_until_its_work_is_done_although_the_request_is_cancelled(blocker: Blocker) -> None:
    async def story() -> None:
        passwords = pool(threads=1, queue=0)
        request: Awaitable[Any] = asyncio.ensure_future(run(passwords, blocker))
        await asyncio.to_thread(blocker.started.acquire)
        request.cancel()  # type: ignore[attr-defined]
        await settle()
        with pytest.raises(HashingBusy):
            await passwords.hash(PASSWORD)
        blocker.released.set()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not passwords.turns._free:
                await settle()
        assert await passwords.hash(PASSWORD)

    asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_hashing_threads_have_a_lower_priority() -> None:
    def niceness() -> str:
        return str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    async def story() -> None:
        before = niceness()
        assert await run(pool(), niceness) == str(min(19, int(before) + NICENESS))
        assert niceness() == before

    asyncio.run(story())


def test_liveness_does_not_wait_for_forty_logins(
    service: Service, blocker: Blocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one login hashes and the others wait for a thread, the event loop is free."""

    def verify(*_: str) -> tuple[bool, None]:
        blocker()
        return False, None

    async def story() -> None:
        bodies = [{"username": f"unknown-{secrets.token_hex(4)}", "password": PASSWORD} for _ in range(40)]
        logins = [asyncio.ensure_future(service.send("POST", "/auth", json=body)) for body in bodies]
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS / 2):  # the work in the thread blocks longer
                await asyncio.to_thread(blocker.started.acquire)
                while service.app.ctx.passwords.turns.waiting < 40 - service.config.PASSWORD_HASHING_THREADS:
                    await settle()
                assert (await service.send("GET", "/health/live")).status_code == 200
            assert not any(login.done() for login in logins)
        finally:
            blocker.released.set()
        assert {response.status_code for response in await asyncio.gather(*logins)} == {401}

    monkeypatch.setattr("app.security.passwords._verify", verify)
    service.run(story())


def test_passwords_are_normalised_to_nfc() -> None:
    assert normalise("e\u0301") == normalise("\u00e9") == "\u00e9"
