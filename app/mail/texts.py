"""The texts of all mails: the only place to change or translate them.

Names in braces are filled in. Text only: no mail contains markup, pictures or anything that is loaded.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Text:
    """A subject and a body."""

    subject: str
    body: str


UNDO = """
If it was not you, open this page within 7 days. It restores this address, ends all
sessions, and lets you choose a new password:

{undo_link}
"""
NOT_YOU = """
If it was not you, another person has access to your account: choose a new password at
once.
"""
REPEATED = """
This has happened {count} times since the last mail of this kind.
"""

TEXTS = {
    "verification": Text(
        "Here is your code for {product}",
        """
{code}

is the code with which you confirm this address for the account {username} at
{product}. It is valid for 10 minutes.

Type it only where you asked for it. The staff of {product} never asks for it. If you did
not ask for it, do nothing.
""",
    ),
    "reset": Text(
        "Choose a new password for {product}",
        """
A new password was asked for, probably by you, for the account {username} at
{product}. Open this page within 30 minutes:

{reset_link}

If you did not ask for it, do nothing: your password stays as it is.
""",
    ),
    "password_changed": Text(
        "Your password for {product} was changed",
        """
The password of the account {username} at {product} was changed, and all other sessions
have ended.
"""
        + NOT_YOU,
    ),
    "password_reset": Text(
        "Your password for {product} was reset",
        """
The password of the account {username} at {product} was reset with a mail to this
address, and all sessions have ended.
"""
        + NOT_YOU,
    ),
    "email_change_requested": Text(
        "The address of your account at {product} is about to change",
        """
Another address was asked for, probably by you, for the account {username} at
{product}. This one stays until the new one is confirmed.
"""
        + UNDO,
    ),
    "email_changed": Text(
        "The address of your account at {product} was changed",
        """
The account {username} at {product} has another address now.
"""
        + UNDO,
    ),
    "email_removed": Text(
        "The address of your account at {product} was removed",
        """
The account {username} at {product} has no address any more.
"""
        + UNDO,
    ),
    "email_restored": Text(
        "The address of your account at {product} was restored",
        """
This is the address of the account {username} at {product} again. All sessions have
ended, and the account has no password: ask for a new one with this address.
""",
    ),
    "refresh_token_reused": Text(
        "A session of your account at {product} was ended",
        """
A token of a session of the account {username} at {product} was used twice, so the
session was ended. This happens if the token was copied, or if a device has lost
a response.
"""
        + NOT_YOU,
    ),
    "account_deleted": Text(
        "Your account at {product} was deleted",
        """
The account {username} at {product} was deleted.
""",
    ),
    "new_network": Text(
        "A new login to your account at {product}",
        """
There was a login, probably yours, to the account {username} at {product} from
{address}, for the first time from there.
"""
        + NOT_YOU,
    ),
    "second_factor_added": Text(
        "A second factor was added to your account at {product}",
        """
The account {username} at {product} has a second factor now, which is asked for at each
login. All other sessions have ended.

If it was not you, open this page within 7 days. It removes the factor, ends all
sessions, and lets you choose a new password:

{undo_link}
""",
    ),
    "passkey_added": Text(
        "A passkey was added to your account at {product}",
        """
The account {username} at {product} has a new passkey, with which you log in.

If it was not you, open this page within 7 days. It removes the passkey, ends all
sessions, and lets you choose a new password:

{undo_link}
""",
    ),
    "passkey_copied": Text(
        "A passkey of your account at {product} may have been copied",
        """
A passkey of the account {username} at {product} was refused, because it counts less than
before: there may be a copy of it. Remove it, and add another one.
"""
        + NOT_YOU,
    ),
    "second_factor_removed": Text(
        "The second factor of your account at {product} was removed",
        """
The account {username} at {product} has no second factor any more. Other sessions have
ended.
"""
        + NOT_YOU,
    ),
    "recovery_codes_replaced": Text(
        "New recovery codes of your account at {product}",
        """
New recovery codes were made for the account {username} at {product}. Those before are
void.
"""
        + NOT_YOU,
    ),
    "recovery_code_used": Text(
        "A recovery code of your account at {product} was used",
        """
A recovery code of the account {username} at {product} was used. {left} are left.
"""
        + NOT_YOU,
    ),
    "second_factor_failed": Text(
        "A wrong code after your password at {product}",
        """
Somebody, maybe you, gave the right password of the account {username} at {product}, and
then a wrong code of the second factor.
"""
        + NOT_YOU,
    ),
    "test": Text(
        "A test mail of {product}",
        """
{product} can send mails.
""",
    ),
}
