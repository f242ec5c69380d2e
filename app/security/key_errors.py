"""Why keys were not changed, and why there is no feed."""


class NextKeyTooYoung(Exception):
    """The next key has not been published for long enough.

    Others may not know it yet.
    """


class UnknownKid(Exception):
    """There is no such key."""


class ChangedMeanwhile(Exception):
    """Somebody else has changed the keys at the same moment."""


class NoKey(Exception):
    """No key was made that could sign the feed."""


class UnknownCursor(Exception):
    """The cursor is later than everything that the database has, so it may have been restored."""


class StaleFeed(Exception):
    """There are no recent news of ended sessions."""
