"""How easily a password is guessed, as zxcvbn estimates it."""

import re
import threading
from collections.abc import Iterable, Iterator

from zxcvbn import zxcvbn

MIN_GUESSES = 10**8  # zxcvbn's score 3, "safely unguessable"
MIN_GUESSES_BESIDES = 10**6  # for what context-specific words leave: where they stand must be guessed, too
# The characters that are looked at, more of them only if the first ones are weak. The time grows with the square of the
# length, and with ambiguous substitutions such as { for c: at 100 characters it would be seconds.
LENGTHS = (16, 32)
SHORTEST_WORD = 3  # of the context
NO_WARNING = "It consists of common words, names, dates or patterns."
CONTEXT_WARNING = "It consists of your username or the name of this service, and little else."
SEPARATORS = re.compile(r"[\W_]+")
lock = threading.Lock()  # zxcvbn keeps the words of a call in a global


def weakness(password: str, words: Iterable[str]) -> str | None:
    """Return why a password is easy to guess, or None.

    Takes up to 30 ms of CPU.

    `words` are the context-specific ones, such as the username (NIST SP 800-63B-4 section 3.1.1.2): an attacker tries
    them first, and what they leave of the password must be hard to guess alone.
    """
    context = sorted({part for word in words for part in _parts(word.casefold())}, key=len, reverse=True)
    left = folded = password.casefold()
    for word in context:
        left = left.replace(word, "")
    if left != folded and _warning(SEPARATORS.sub("", left), context, MIN_GUESSES_BESIDES) is not None:
        return CONTEXT_WARNING
    warning = _warning(password, context, MIN_GUESSES)
    return warning if warning is None else warning or NO_WARNING


def _warning(password: str, context: list[str], min_guesses: int) -> str | None:
    """Return zxcvbn's warning, which may be empty, or None for a strong password."""
    warning = ""
    for length in LENGTHS if password else ():
        with lock:
            estimate = zxcvbn(password[:length], user_inputs=context, max_length=length)
        if estimate["guesses"] >= min_guesses:
            return None
        warning = str(estimate["feedback"]["warning"])
        if length >= len(password):
            break
    return warning


def _parts(word: str) -> Iterator[str]:
    for part in (word, SEPARATORS.sub("", word), *SEPARATORS.split(word)):
        if len(part) >= SHORTEST_WORD:
            yield part
