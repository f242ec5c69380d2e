"""The connection to the mail server: TLS, authentication, time limits."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from app.mail import smtp
from app.mail.errors import MailError, Undeliverable, Unreachable
from app.mail.smtp import Server, Smtp
from tests.processes import eventually
from tools.local_mongo import free_port

USER, SECRET = "service", "s3cret of the mail server"


class Receiving:
    """Takes mails."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail."""
        self.mails.append(envelope.original_content or b"")
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        """Check a login."""
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        right = (data.login, data.password) == (USER.encode(), SECRET.encode())
        return AuthResult(success=right, handled=right)  # not handled: aiosmtpd replies 535


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Make a certificate authority."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust this authority, as an operator would by SSL_CERT_FILE."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


Receive = Callable[..., tuple[Receiving, int]]
# What aiosmtpd says about a server that allows logins without STARTTLS, as these must.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture
def receive() -> Iterator[Receive]:
    """Return a function that runs a mail server with a certificate, and returns its mails and its port."""
    with ExitStack() as running:

        def receive(certificate: trustme.LeafCert | None, *, implicit: bool = False) -> tuple[Receiving, int]:
            receiving, port = Receiving(), free_port()
            context = None
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                certificate.configure_cert(context)
            options: dict[str, Any] = {"authenticator": receiving.authenticate, "auth_required": True}
            if implicit:
                options |= {"ssl_context": context, "auth_require_tls": False}
            elif context:
                options |= {"tls_context": context, "require_starttls": True}
            else:
                options |= {"auth_require_tls": False}
            controller = Controller(receiving, hostname="localhost", port=port, **options)
            controller.start()
            running.callback(controller.stop)
            return receiving, port

        yield receive


def send(port: int, tls: str, *, password: str = SECRET) -> None:
    """Send a mail. Raises MailError."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "no-reply@demo.example", "alice@example.com", "A test"
    mail.set_content("Hello")
    asyncio.run(send_and_close(Server("localhost", port, USER, password, tls), mail))


async def send_and_close(server: Server, mail: EmailMessage) -> None:
    """Send a mail, and wait until its connection is closed, which a worker's event loop does in the background."""
    try:
        await Smtp(server).send(mail)
    finally:
        await eventually(lambda: not is_connected(server.port))


def is_connected(port: int) -> bool:
    """Return whether a socket is connected to a port of this machine (proc_net_tcp(5)); a closed one has no inode."""
    tables = (Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table]
    return any(row[2].endswith(f":{port:04X}") and row[9] != "0" for row in rows)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_a_mail_is_sent_by_tls_and_with_a_login(receive: Receive, authority: trustme.CA, tls: str) -> None:
    receiving, port = receive(authority.issue_cert("localhost"), implicit=tls == "implicit")
    send(port, tls)
    assert len(receiving.mails) == 1
    assert receiving.logins == [(USER.encode(), SECRET.encode())]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize("wrong", ["of nobody", "of another host"])
def test_a_server_with_a_bad_certificate_gets_nothing(
    receive: Receive, authority: trustme.CA, tls: str, wrong: str
) -> None:
    """Machine in the middle."""
    bad = trustme.CA().issue_cert("localhost") if wrong == "of nobody" else authority.issue_cert("mail.example.com")
    receiving, port = receive(bad, implicit=tls == "implicit")
    with pytest.raises(Unreachable, match=r"Certificate|SMTPConnectError|SSL"):
        send(port, tls)
    assert not receiving.mails
    assert not receiving.logins


def test_tls_cannot_be_stripped(receive: Receive) -> None:
    """STARTTLS stripping: without TLS neither a mail nor the password is sent."""
    receiving, port = receive(None)
    with pytest.raises(Unreachable):
        send(port, "starttls")
    assert not receiving.mails
    assert not receiving.logins


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password_is_reported_at_once_and_without_it(receive: Receive, authority: trustme.CA) -> None:
    receiving, port = receive(authority.issue_cert("localhost"))
    with pytest.raises(Unreachable) as raised:
        send(port, "starttls", password="a wrong one")
    assert str(raised.value) == "SMTPAuthenticationError 535"
    assert not receiving.mails


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "SEND_SECONDS", 0.3)
    with socket.create_server(("localhost", 0)) as silent, pytest.raises(Unreachable, match="Timeout"):
        send(silent.getsockname()[1], "starttls")


def test_reasons_contain_nothing_of_the_mail_or_the_server() -> None:
    assert issubclass(Undeliverable, MailError)
    with pytest.raises(Unreachable) as raised:
        send(free_port(), "starttls")
    assert "localhost" not in str(raised.value)
    assert "alice" not in str(raised.value)
