"""Invisible characters in texts from files, variables and standard input: line ends, spaces, byte order marks."""

import unicodedata

# Fillers and joiners that show nothing, although their category is that of letters, symbols or marks.
BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
# Control, format, lone surrogate, line, paragraph and space characters (Unicode general categories).
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})


def strip(text: str) -> str:
    """Return the text without invisible characters at its ends."""
    visible = [place for place, character in enumerate(text) if not invisible(character) or _undecodable(character)]
    return text[visible[0] : visible[-1] + 1] if visible else ""


def invisible(character: str) -> bool:
    """Return whether a character shows nothing."""
    return unicodedata.category(character) in INVISIBLE or character in BLANK


def fault(text: str) -> str | None:
    """Return what is wrong with the characters of a text, or None.

    A space is right, except at the ends.
    """
    for place, character in enumerate(text, 1):
        if _undecodable(character):
            return f"is not valid UTF-8 at character {place}"
        if invisible(character) and (character != " " or place in (1, len(text))):
            return f"contains an invisible character (U+{ord(character):04X}) at place {place}"
    return None


def clean(text: str) -> str:
    """Return the text without invisible characters at its ends.

    Raises ValueError if there is one inside.
    """
    text = strip(text)
    if reason := fault(text):
        raise ValueError(reason)
    return text


def _undecodable(character: str) -> bool:
    """Return whether a character stands for a byte that is not UTF-8 (PEP 383), or is a lone surrogate."""
    return "\ud800" <= character <= "\udfff"
