"""Notices: mails that tell users of what was done with their accounts, so that an attack does not go unseen."""

from typing import Any

from app.models.outbox import Outbox
from app.models.users import Email, User


class Notices:
    """Puts notices into the outbox, as part of the transaction of what they tell of.

    Does nothing without an outbox (mail is off), and for users without a verified address.
    """

    def __init__(self, outbox: Outbox | None) -> None:
        self._outbox = outbox

    @property
    def on(self) -> bool:
        """Whether mails are sent at all."""
        return self._outbox is not None

    async def tell(self, message: str | None, user: User, **facts: Any) -> None:
        """Tell a user of an event, at the verified address."""
        if message and user.address:
            await self.tell_at(user.address, message, user, **facts)

    async def tell_at(self, email: Email, message: str, user: User, **facts: Any) -> None:
        """Tell a user of an event, at a given address.

        It may not be the user's any more.
        """
        if self._outbox:
            await self._outbox.add_notice(message, user, email, {"username": user.username, **facts})
