"""Passwords: hashed off the event loop, and only so many at once."""

import asyncio
import os
import secrets
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from app.refusals import refusal
from app.security.passwords import CONTEXT, NICENESS, HashingBusy, Passwords, normalise
from tests.conftest import PASSWORD, Service


class Blocker:
    """Work for a hashing thread that lasts until the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self) -> str:
        """Wait in the thread."""
        self.begun.release()
        assert self.go.wait(5)
        return "done"


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    """Give work that is let go at the end in any case."""
    blocker = Blocker()
    yield blocker
    blocker.go.set()


def pool(threads: int = 1, queue: int = 1) -> Passwords:
    return Passwords(min_length=8, threads=threads, queue=queue)


async def run(passwords: Passwords, work: Callable[[], str]) -> str:
    """Do other work than hashing in a hashing thread."""
    await passwords.wait_for_turn()
    return await passwords._work(work)


async def verify(passwords: Passwords, password: str, password_hash: str | None) -> tuple[bool, str | None]:
    await passwords.wait_for_turn()
    return await passwords.verify(password, password_hash)


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_right_wrong_and_nobodys() -> None:
    async def story() -> None:
        passwords = pool(queue=8)
        stored = await passwords.hash("cafe\u0301 cafe\u0301")
        assert await verify(passwords, "caf\u00e9 caf\u00e9", stored) == (True, None)
        assert await verify(passwords, "cafe cafe", stored) == (False, None)
        assert await verify(passwords, "the password of no user", None) == (False, None)

    asyncio.run(story())


def test_nobodys_password_costs_what_anybodys_costs() -> None:
    """An unknown user is verified against a hash of the same parameters, once."""

    async def story() -> None:
        passwords = pool(queue=8)
        stored = await passwords.hash(PASSWORD)
        assert (
            passwords._dummy_hash.rpartition("$")[0].rpartition("$")[0] == stored.rpartition("$")[0].rpartition("$")[0]
        )

    asyncio.run(story())


def test_a_weaker_hash_is_replaced_on_the_way() -> None:
    """When parameters rise, or the hash is of another age."""

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


def test_beyond_the_queue_it_refuses_for_now(blocker: Blocker) -> None:
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
        blocker.go.set()
        assert {*await asyncio.gather(working, waiting)} == {"done"}
        assert await verify(passwords, PASSWORD, await passwords.hash(PASSWORD)) == (True, None)

    asyncio.run(story())


def test_a_client_that_gives_up_leaves_the_queue(blocker: Blocker) -> None:
    async def story() -> None:
        passwords = pool(threads=1, queue=1)
        working = asyncio.ensure_future(run(passwords, blocker))
        given_up: asyncio.Future[Any] = asyncio.ensure_future(passwords.hash(PASSWORD))
        await settle()
        given_up.cancel()
        await settle()
        waiting = asyncio.ensure_future(passwords.hash(PASSWORD))
        await settle()
        blocker.go.set()
        assert await working == "done"
        assert (await waiting).startswith("$argon2id$")

    asyncio.run(story())


def test_a_thread_is_busy_until_its_work_is_done_although_the_client_left(blocker: Blocker) -> None:
    async def story() -> None:
        passwords = pool(threads=1, queue=0)
        left: Awaitable[Any] = asyncio.ensure_future(run(passwords, blocker))
        await asyncio.to_thread(blocker.begun.acquire)
        left.cancel()  # type: ignore[attr-defined]
        await settle()
        with pytest.raises(HashingBusy):
            await passwords.hash(PASSWORD)
        blocker.go.set()
        async with asyncio.timeout(5):
            while passwords._free.locked():
                await settle()
        assert await passwords.hash(PASSWORD)

    asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_hashing_yields_to_requests() -> None:
    def niceness() -> str:
        return str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    async def story() -> None:
        assert await run(pool(), niceness) == str(NICENESS)
        assert niceness() == "0"

    asyncio.run(story())


def test_liveness_does_not_wait_for_forty_logins(
    service: Service, blocker: Blocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one hashes and the others wait for their turn, the event loop is free."""

    def verify(*_: str) -> tuple[bool, None]:
        blocker()
        return False, None

    async def story() -> None:
        bodies = [{"username": f"nobody-{secrets.token_hex(4)}", "password": PASSWORD} for _ in range(40)]
        logins = [asyncio.ensure_future(service.send("POST", "/auth", json=body)) for body in bodies]
        try:
            async with asyncio.timeout(4):  # the work in a thread takes longer
                await asyncio.to_thread(blocker.begun.acquire)
                while service.app.ctx.passwords.waiting < 40 - service.config.PASSWORD_HASHING_THREADS:
                    await settle()
                assert (await service.send("GET", "/health/live")).status_code == 200
            assert not any(login.done() for login in logins)
        finally:
            blocker.go.set()
        assert {answer.status_code for answer in await asyncio.gather(*logins)} == {401}

    monkeypatch.setattr("app.security.passwords._verify", verify)
    service.run(story())


def test_one_form_for_all_spellings() -> None:
    assert normalise("e\u0301") == normalise("\u00e9") == "\u00e9"
