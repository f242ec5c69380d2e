"""Why a mail was not handed over. No text contains an address, or what the server said."""


class MailError(Exception):
    """The mail was not handed over."""


class NotDelivered(MailError):
    """The server did not take the mail; another try may succeed."""


class Unreachable(NotDelivered):
    """There is no server that takes mails at the moment."""


class Undeliverable(MailError):
    """The server will never take the mail for this address."""


class Later(Exception):
    """The mail is to be sent in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(seconds)
