"""Asymmetric keys: published before they sign, turned, dropped, encrypted; and attacks on tokens that they sign."""

import asyncio
import base64
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet as JoserfcKeySet
from pymongo.database import Database

from app.models.keys import Ring, startup_error
from app.security.key_errors import NextKeyTooYoung, UnknownKid
from app.security.keys import PURPOSE
from app.tokens.access import key_id
from app.tokens.key_set import encryption_key_name
from app.tokens.keys import Encryption, SigningKey, UndecipherableSecret
from config import Config
from config.product import SECOND_FACTOR_GRANT, SLUG
from tests.conftest import PASSWORD, Actor, Document, Service, drop_database, registered
from tests.published import ENCRYPTION_KEY, URL, feed_page, header, jwks, keys_of, signing_key, with_keys

ALGORITHMS = ["EdDSA", "ES256"]


@pytest.fixture(scope="module", params=ALGORITHMS)
def published(request: pytest.FixtureRequest, config: Config) -> Iterator[Service]:
    """Run a service whose tokens others can verify."""
    settings = with_keys(config, f"keys_{request.param.lower()}", JWT_ALGORITHM=request.param)
    with Service(settings) as service:
        yield service
    drop_database(settings.MONGO_URI)


@pytest.fixture
def fresh_settings(config: Config) -> Iterator[Config]:
    """Return settings with a database that is empty."""
    settings = with_keys(config, f"keys_{secrets.token_hex(4)}", SIGNING_KEY_LEAD_SECONDS=0)
    yield settings
    drop_database(settings.MONGO_URI)


Stored = Callable[[Config], Database[Document]]


@pytest.fixture
def stored(database: Database[Document]) -> Stored:
    """Return a function that returns the database of a service."""
    return lambda settings: database.client.get_database(settings.MONGO_URI.rpartition("/")[2])


def rotate(service: Service, *, now: bool = False) -> str:
    """Rotate the key, and have the service notice."""
    signing = keys_of(service).signing
    kid: str = service.run(signing.rotate(service.config.JWT_ALGORITHM, now=now))
    service.run(signing.follow())
    return kid


# What other services verify


# RFC 9864 replaces the name EdDSA by Ed25519, which PyJWT does not know yet.
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_another_implementation_verifies_the_tokens_by_the_published_keys(published: Service) -> None:
    actor = registered(published)
    keys = published("GET", "/.well-known/jwks.json").json()
    algorithm = published.config.JWT_ALGORITHM
    token = joserfc_jwt.decode(actor.tokens["access_token"], JoserfcKeySet.import_key_set(keys), algorithms=[algorithm])
    assert token.header["typ"] == "at+jwt"
    assert token.header["alg"] == algorithm
    assert (token.claims["iss"], token.claims["aud"], token.claims["sub"]) == (URL, SLUG, actor.claims["sub"])
    assert actor.secret_status == 200


def test_keys_are_named_by_their_thumbprints(published: Service) -> None:
    """RFC 7638, computed by another implementation."""
    keys = JoserfcKeySet.import_key_set(published("GET", "/.well-known/jwks.json").json())
    assert len(keys.keys) == 2
    for key in keys.keys:
        assert key.kid == key.thumbprint()


def test_the_key_set_has_public_parts_only_and_can_be_cached(published: Service) -> None:
    response = published("GET", "/.well-known/jwks.json")
    assert response.headers["cache-control"] == "public, max-age=300"
    for key in response.json()["keys"]:
        assert set(key) <= {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["use"], key["alg"]) == ("sig", published.config.JWT_ALGORITHM)
    tag = response.headers["etag"]
    again = published("GET", "/.well-known/jwks.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_the_metadata_are_made_of_the_settings_whatever_the_request_says(published: Service) -> None:
    """Poisoning of metadata and keys by Host or X-Forwarded-Host."""
    poisoned = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    metadata = published("GET", "/.well-known/oauth-authorization-server", headers=poisoned).json()
    assert metadata["issuer"] == URL
    assert metadata["jwks_uri"] == f"{URL}/.well-known/jwks.json"
    assert metadata["token_endpoint"] == f"{URL}/oauth/token"
    assert metadata["grant_types_supported"] == ["password", SECOND_FACTOR_GRANT, "refresh_token"]
    assert "evil" not in str(metadata)


def test_without_keys_the_set_is_empty_and_there_is_no_feed(service: Service) -> None:
    response = service("GET", "/.well-known/jwks.json")
    assert (response.status_code, response.json()) == (200, {"keys": []})
    assert service("GET", "/.well-known/revocations").status_code == 404
    assert service("GET", "/.well-known/oauth-authorization-server").status_code == 404


# Rotation


def test_a_key_is_published_before_it_signs(published: Service) -> None:
    actor = registered(published)
    current = header(actor.tokens["access_token"])["kid"]
    (next_,) = set(jwks(published)) - {current}
    with pytest.raises(NextKeyTooYoung):
        rotate(published)
    assert rotate(published, now=True) == next_
    assert header(actor.log_in().tokens["access_token"])["kid"] == next_
    assert {current, next_} < set(jwks(published))
    assert actor.secret_status == 200, "the previous key still verifies"


def test_a_rotation_ends_no_session_and_previous_keys_go_when_their_tokens_are_dead(
    fresh_settings: Config, stored: Stored
) -> None:
    with Service(fresh_settings) as service:
        actors = []
        for _ in range(3):
            actors.append(registered(service))
            rotate(service)
        assert [actor.secret_status for actor in actors] == [200, 200, 200]
        assert len(jwks(service)) == 5
        oldest = header(actors[0].tokens["access_token"])["kid"]
        past = stored(fresh_settings).command("hello")["localTime"] - timedelta(seconds=1)
        stored(fresh_settings)["keys"].update_one({"keys.kid": oldest}, {"$set": {"keys.$.until": past}})
        rotate(service)
        assert oldest not in jwks(service)
        assert [actor.secret_status for actor in actors[1:]] == [200, 200]
        assert actors[0].refresh().status_code == 200


def test_keys_turn_by_themselves_and_of_many_workers_one_turns(fresh_settings: Config, stored: Stored) -> None:
    with Service(fresh_settings.model_copy(update={"SIGNING_KEY_DAYS": 1})) as service:
        signing = keys_of(service).signing
        before = set(jwks(service))
        keys = stored(fresh_settings)["keys"]
        keys.update_one({}, [{"$set": {"turned_at": {"$subtract": ["$$NOW", 24 * 3600 * 1000]}}}])

        async def follow() -> None:
            await asyncio.gather(*(signing.follow() for _ in range(20)))
            await signing.follow()

        service.run(follow())
        assert len(set(jwks(service)) - before) == 1
        document = keys.find_one()
        assert document
        assert document["version"] == 2


def test_of_many_workers_that_start_at_once_one_makes_the_keys(fresh_settings: Config, stored: Stored) -> None:
    with Service(fresh_settings.model_copy(update={"JWT_ALGORITHM": "HS256"})) as service:
        signing = keys_of(service).signing

        async def create() -> None:
            await asyncio.gather(*(signing._create("EdDSA") for _ in range(20)))
            await signing.follow()

        service.run(create())
        assert len(jwks(service)) == 2
        assert stored(fresh_settings)["keys"].count_documents({}) == 1


def test_a_switch_of_the_algorithm_and_back_logs_nobody_out(fresh_settings: Config, stored: Stored) -> None:
    """During the switch, machines with both settings serve."""
    before = fresh_settings.model_copy(update={"JWT_ALGORITHM": "HS256"})
    with Service(before) as old:
        early = registered(old)
        assert header(early.tokens["access_token"])["alg"] == "HS256"
        assert old.run(keys_of(old).signing.rotate("EdDSA", now=False)) in str(
            stored(fresh_settings)["keys"].find_one()
        )
        with Service(fresh_settings) as new:
            late = registered(new)
            assert header(late.tokens["access_token"])["alg"] == "EdDSA"
            assert Actor(new, early.username, early.tokens).secret_status == 200
            assert Actor(old, late.username, late.tokens).secret_status == 200
            refreshed = Actor(old, late.username, late.tokens)
            assert refreshed.refresh().status_code == 200
            assert header(refreshed.tokens["access_token"])["alg"] == "HS256"
            assert Actor(new, late.username, refreshed.tokens).secret_status == 200


def test_a_token_of_a_key_that_another_worker_made_a_moment_ago_is_accepted(fresh_settings: Config) -> None:
    slow = {"REVOCATION_POLL_SECONDS": 60, "REVOCATION_STALE_SECONDS": 120}  # so that it does not follow by itself
    with Service(fresh_settings) as one, Service(fresh_settings.model_copy(update=slow)) as other:
        rotate(one)
        rotate(one, now=True)
        actor = registered(one)
        assert header(actor.tokens["access_token"])["kid"] not in keys_of(other).set.public
        for method, path in (("GET", "/tests/secret"), ("GET", "/auth/verify"), ("GET", "/auth/me")):
            assert other(method, path, token=actor.tokens["access_token"]).status_code == 200
        unknown = SigningKey.new("EdDSA")
        forged = jwt.encode(actor.claims, unknown.private, "EdDSA", {"typ": "at+jwt", "kid": unknown.public.kid})
        reads = count_reads(other)
        requests = [other.send("GET", "/tests/secret", token=forged) for _ in range(50)]
        assert {response.status_code for response in other.together(*requests)} == {401}
        assert len(reads) <= 10, "unknown keys do not flood the database"


def count_reads(service: Service) -> list[int]:
    """Count from now on how often the keys are read."""
    signing, reads = keys_of(service).signing, []
    follow = signing.follow

    async def counting() -> None:
        reads.append(1)
        await follow()

    signing.follow = counting  # type: ignore[method-assign]
    return reads


# Dropped keys


def test_tokens_of_a_dropped_key_are_refused_everywhere_and_their_sessions_go_on(fresh_settings: Config) -> None:
    with Service(fresh_settings) as one, Service(fresh_settings) as other:
        actor = registered(one)
        kid = header(actor.tokens["access_token"])["kid"]
        assert other("GET", "/tests/secret", token=actor.tokens["access_token"]).status_code == 200
        one.run(keys_of(one).signing.drop(kid, now=False))
        for service in (one, other):
            service.run(service.app.ctx.revocations.catch_up())
            service.run(keys_of(service).signing.follow())
            refused = service("GET", "/tests/secret", token=actor.tokens["access_token"])
            assert (refused.status_code, refused.json()["code"]) == (401, "token_invalid")
            assert kid not in jwks(service)
            assert feed_page(service)["dropped_keys"] == [kid]
        assert len(jwks(one)) == 2
        assert actor.refresh().status_code == 200
        assert actor.secret_status == 200


@pytest.mark.parametrize("which", ["current", "next", "previous"])
def test_every_key_can_be_dropped(fresh_settings: Config, which: str, stored: Stored) -> None:
    with Service(fresh_settings) as service:
        rotate(service)
        ring = stored(fresh_settings)["keys"].find_one() or {}
        known = {key["kid"] for key in ring["keys"]}
        kid = ring[which] if which != "previous" else (known - {ring["current"], ring["next"]}).pop()
        service.run(keys_of(service).signing.drop(kid, now=False))
        service.run(keys_of(service).signing.follow())
        after = stored(fresh_settings)["keys"].find_one() or {}
        left = {key["kid"] for key in after["keys"]}
        assert kid not in left
        assert {after["current"], after["next"]} <= left
        assert (after["current"] == ring["next"]) == (which == "current")
        assert registered(service).secret_status == 200


def test_a_key_is_not_dropped_while_others_may_not_know_the_next_one(published: Service) -> None:
    signing = keys_of(published).signing
    rotate(published, now=True)
    current = signing_key(published).public.kid
    with pytest.raises(NextKeyTooYoung):
        published.run(signing.drop(current, now=False))
    assert current in jwks(published)
    with pytest.raises(UnknownKid):
        published.run(signing.drop("x" * 43, now=False))
    published.run(signing.drop(current, now=True))


# Encryption


def test_the_database_has_no_private_key(published: Service, stored: Stored) -> None:
    document = stored(published.config)["keys"].find_one() or {}
    text = str(document).encode()
    for key in document["keys"]:
        assert set(key) <= {"kid", "jwk", "secret", "created_at", "until"}
        opened = keys_of(published).signing._encryption.decrypt(key["secret"], purpose=PURPOSE, record=key["kid"])
        assert opened not in text
        assert "d" not in key["jwk"]
        assert SigningKey.from_der(opened).public.kid == key["kid"]


def test_a_ciphertext_is_worth_nothing_in_another_place() -> None:
    """Confused deputy: swapped records, purposes, keys, and changed bits."""
    encryption = Encryption([b"key one"], product="p")
    sealed = encryption.encrypt(b"secret", purpose="a", record="1")
    assert encryption.decrypt(sealed, purpose="a", record="1") == b"secret"
    ciphertext = sealed["ciphertext"]
    changed = {**sealed, "ciphertext": bytes([ciphertext[0] ^ 1]) + ciphertext[1:]}
    for stored_as, purpose, record in ((sealed, "b", "1"), (sealed, "a", "2"), (changed, "a", "1")):
        with pytest.raises(UndecipherableSecret, match="changed"):
            encryption.decrypt(stored_as, purpose=purpose, record=record)
    with pytest.raises(UndecipherableSecret, match="not configured"):
        Encryption([b"key two"], product="p").decrypt(sealed, purpose="a", record="1")


def test_a_new_encryption_key_reads_the_old_secrets_and_renews_them(fresh_settings: Config, stored: Stored) -> None:
    with Service(fresh_settings) as service:
        actor = registered(service)
    new = secrets.token_urlsafe(32)
    both = fresh_settings.model_copy(update={"ENCRYPTION_KEY": new, "ENCRYPTION_PREVIOUS_KEYS": [ENCRYPTION_KEY]})
    with Service(both) as service:
        assert Actor(service, actor.username, actor.tokens).secret_status == 200
        assert service.run(keys_of(service).signing.rewrap()) == (2, 0)
        assert registered(service).secret_status == 200
    with Service(fresh_settings.model_copy(update={"ENCRYPTION_KEY": new})) as service:
        assert Actor(service, actor.username, actor.tokens).secret_status == 200
    names = [encryption_key_name(ENCRYPTION_KEY.encode())]
    assert startup_error(stored(fresh_settings), [encryption_key_name(new.encode())]) is None
    reason = startup_error(stored(fresh_settings), names)
    assert reason
    assert encryption_key_name(new.encode()) in reason


# Attacks


def part(content: Any) -> str:
    """Encode a part of a token."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


ATTACKS: dict[str, Callable[[SigningKey, SigningKey, Document], str]] = {
    "the public key in PEM as an HMAC key": lambda key, _, claims: hmac_signed(
        key.public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), key.public.kid, claims
    ),
    "the public key's x as an HMAC key": lambda key, _, claims: hmac_signed(
        key.public.jwk["x"].encode(), key.public.kid, claims
    ),
    "the kid as an HMAC key": lambda key, _, claims: hmac_signed(key.public.kid.encode(), key.public.kid, claims),
    "none": lambda key, _, claims: f"{part({'typ': 'at+jwt', 'alg': 'none', 'kid': key.public.kid})}.{part(claims)}.",
    "another key under this kid": lambda key, other, claims: signed(other, claims, kid=key.public.kid),
    "another key with its own jwk": lambda _, other, claims: signed(other, claims, jwk=other.public.jwk),
    "another key with a jku": lambda _, other, claims: signed(other, claims, jku="https://evil.example/jwks.json"),
    "another key with an x5u": lambda _, other, claims: signed(other, claims, x5u="https://evil.example/x.pem"),
    "a kid that is a file": lambda _, other, claims: signed(other, claims, kid="../../../../dev/null"),
    "a kid that is a query": lambda _, other, claims: signed(other, claims, kid="x' UNION SELECT 'secret"),
    "a kid that is a URL": lambda _, other, claims: signed(other, claims, kid="https://evil.example/key"),
    "a kid that is an operator": lambda _, other, claims: raw(other, claims, kid={"$ne": None}),
    "no kid": lambda key, _, claims: signed(key, claims, kid=None),
    "another type": lambda key, _, claims: signed(key, claims, typ="revocations+jwt"),
    "a critical extension": lambda key, _, claims: signed(key, claims, crit=["b64"], b64=False),
    "expired": lambda key, _, claims: signed(key, claims | {"iat": 1, "exp": 2}),
    "another issuer": lambda key, _, claims: signed(key, claims | {"iss": "https://evil.example"}),
    "no session": lambda key, _, claims: signed(key, {name: claims[name] for name in claims if name != "sid"}),
}


def hmac_signed(secret: bytes, kid: str, claims: Document) -> str:
    signatures = jwt.api_jws.PyJWS(["HS256"])
    algorithm: Any = signatures.get_algorithm_by_name("HS256")
    head = f"{part({'typ': 'at+jwt', 'alg': 'HS256', 'kid': kid})}.{part(claims)}"
    return f"{head}.{base64.urlsafe_b64encode(algorithm.sign(head.encode(), secret)).rstrip(b'=').decode()}"


def signed(key: SigningKey, claims: Document, **headers: Any) -> str:
    """Sign a token with changed headers."""
    given = {"typ": "at+jwt", "kid": key.public.kid, **headers}
    return raw(key, claims, **{name: value for name, value in given.items() if value is not None})


def raw(key: SigningKey, claims: Document, **headers: Any) -> str:
    """Sign any header."""
    algorithm: Any = jwt.api_jws.PyJWS().get_algorithm_by_name(key.public.algorithm)
    head = f"{part({'alg': key.public.algorithm, **headers})}.{part(claims)}"
    return f"{head}.{base64.urlsafe_b64encode(algorithm.sign(head.encode(), key.private)).rstrip(b'=').decode()}"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_forged_tokens_are_refused(published: Service, attack: Callable[..., str]) -> None:
    actor = registered(published)
    key = signing_key(published)
    assert published("GET", "/tests/secret", token=signed(key, actor.claims)).status_code == 200, "the tools are right"
    forged = attack(key, SigningKey.new(published.config.JWT_ALGORITHM), actor.claims)
    refused = published("GET", "/tests/secret", token=forged)
    assert refused.status_code == 401
    assert refused.json()["code"] in ("token_invalid", "token_expired")


def test_a_token_of_another_algorithm_under_a_kid_is_refused(published: Service) -> None:
    """Algorithm confusion: the algorithm is that of the key."""
    actor, key = registered(published), signing_key(published)
    other = SigningKey.new("ES256" if published.config.JWT_ALGORITHM == "EdDSA" else "EdDSA")
    forged = signed(other, actor.claims, kid=key.public.kid)
    assert published("GET", "/tests/secret", token=forged).status_code == 401


def test_no_name_of_an_hmac_key_is_published(published: Service) -> None:
    assert all(len(kid) == 43 for kid in jwks(published))
    assert not set(jwks(published)) & {key_id(published.config.JWT_SECRET_KEY.encode())}


# What goes wrong


def test_an_interrupted_drop_is_told_by_another_worker(fresh_settings: Config, stored: Stored) -> None:
    """Its worker died after it had removed the key, and before it was in the feed."""
    with Service(fresh_settings) as service:
        rotate(service)
        ring = stored(fresh_settings)["keys"].find_one() or {}
        previous = next(key["kid"] for key in ring["keys"] if key["kid"] not in (ring["current"], ring["next"]))
        change = {"$set": {"dropping": [previous]}, "$pull": {"keys": {"kid": previous}}, "$inc": {"version": 1}}
        stored(fresh_settings)["keys"].update_one({}, change)
        service.run(keys_of(service).signing.follow())
        service.run(service.app.ctx.revocations.catch_up())
        assert feed_page(service)["dropped_keys"] == [previous]
        assert (stored(fresh_settings)["keys"].find_one() or {})["dropping"] == []


def test_a_drop_that_is_told_twice_keeps_its_place(fresh_settings: Config, stored: Stored) -> None:
    """Or the feed would tell it again, and remember it for longer."""
    with Service(fresh_settings) as service:
        sessions = service.app.ctx.sessions
        service.run(sessions.end_key("x" * 43))
        before = stored(fresh_settings)["sessions"].find_one({"_id": f"key {'x' * 43}"})
        service.run(sessions.end_key("x" * 43))
        assert stored(fresh_settings)["sessions"].find_one({"_id": f"key {'x' * 43}"}) == before


def test_a_private_key_that_cannot_be_read_stops_no_verification(fresh_settings: Config, stored: Stored) -> None:
    """While ENCRYPTION_KEY is changed on one machine after the other."""
    with Service(fresh_settings) as service:
        actor = registered(service)
        rotate(service)
        young = registered(service)
        stored(fresh_settings)["keys"].update_one({}, {"$set": {"keys.$[].secret.key": "00000000"}})
    unreadable = fresh_settings.model_copy(update={"JWT_ALGORITHM": "HS256"})
    with Service(unreadable) as service:
        for known in (actor, young):
            assert Actor(service, known.username, known.tokens).secret_status == 200
        assert service("GET", "/.well-known/revocations").status_code == 404


def test_the_first_key_of_another_algorithm_signs_once_others_may_know_it(
    fresh_settings: Config, stored: Stored
) -> None:
    lead = fresh_settings.model_copy(update={"SIGNING_KEY_LEAD_SECONDS": 600})
    with Service(lead) as service:
        assert header(registered(service).tokens["access_token"])["alg"] == "EdDSA"
    with Service(lead.model_copy(update={"JWT_ALGORITHM": "ES256"})) as service:
        assert {key["alg"] for key in jwks(service).values()} == {"EdDSA", "ES256"}
        assert header(registered(service).tokens["access_token"])["alg"] == "EdDSA"
        earlier = {"$set": {"keys.$[].created_at": datetime.now(UTC) - timedelta(seconds=601)}}
        stored(lead)["keys"].update_one({"_id": "ES256"}, earlier)
        service.run(keys_of(service).signing.follow())
        assert header(registered(service).tokens["access_token"])["alg"] == "ES256"


def test_no_token_is_issued_while_the_keys_are_not_read(fresh_settings: Config) -> None:
    """Rather than one that other services cannot verify."""
    with Service(fresh_settings) as service:
        actor = registered(service)
        key, keys_of(service).set.signing = keys_of(service).set.signing, None
        body = {"username": actor.username, "password": PASSWORD}
        refused = service("POST", "/auth", json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        keys_of(service).set.signing = key
        assert service("POST", "/auth", json=body).status_code == 200


def test_a_read_that_has_begun_does_not_answer_for_a_later_key(fresh_settings: Config) -> None:
    """Or a valid token would be rejected whose key was made while another request waited for a read."""
    with Service(fresh_settings) as service:
        signing = keys_of(service).signing
        read, begun, gate = signing._keys.all, asyncio.Event(), asyncio.Event()

        async def slow() -> list[Ring]:
            rings = await read()
            begun.set()
            await gate.wait()
            return rings

        async def story() -> None:
            signing._keys.all = slow  # type: ignore[method-assign]
            earlier = asyncio.create_task(signing.read_soon())
            await begun.wait()
            (ring,) = await read()
            assert await signing._turn(ring, timedelta(0)), "as another worker does"
            later = asyncio.create_task(signing.read_soon())
            gate.set()
            await asyncio.gather(earlier, later)

        before = set(jwks(service))
        service.run(story())
        assert len(set(jwks(service)) - before) == 1


def test_the_key_set_is_unavailable_until_it_is_read(fresh_settings: Config) -> None:
    """Clients would remember an empty one for minutes, and reject every token."""
    with Service(fresh_settings) as service:
        keys_of(service).set.read = False
        for path in ("/.well-known/jwks.json", "/.well-known/revocations"):
            response = service("GET", path)
            assert (response.status_code, response.json()["code"]) == (503, "unavailable")
            assert response.headers["cache-control"] == "no-store"
        service.run(keys_of(service).signing.rotate("EdDSA", now=True))
        service.run(keys_of(service).signing.follow())
        assert len(jwks(service)) == 3
