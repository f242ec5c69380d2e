"""How briefly a text can be described by what people type: words, repetitions, sequences, walks on a keyboard."""

import base64
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from math import inf, log2

from zxcvbn.matching import RANKED_DICTIONARIES

# What people copy, forwards and backwards: alphabets, rows and columns of keyboards, famous digits.
SEQUENCES = (
    "abcdefghijklmnopqrstuvwxyz0123456789 1234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop"
    " qsdfghjklm 1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/ a1b2c3d4e5f6g7h8i9j0k1l2m3 aabbccddeeffgghhiijjkkllmmnnoopp"
    " !@#$%^&*()_+ !\"#$%&'()*+,-./ 3.14159265358979323846264338327950288 2.71828182845904523536028747135266249"
)
WORD_LISTS = tuple(RANKED_DICTIONARIES[name] for name in ("passwords", "english_wikipedia"))  # the ranks of their words
LEETSPEAK = str.maketrans("013457@$!|", "oieastasil")
LETTERS = "etaoinshrdlucmwfgypbvkjxqz"  # by their frequency in English; other European languages are similar
# The alphabets of generators, the smallest first.
ALPHABETS = (
    (re.compile(r"[0-9a-f]+|[0-9A-F]+"), 16),
    (re.compile(r"[a-z2-7]+=*|[A-Z2-7]+=*"), 32),
    (re.compile(r"[a-z0-9]+|[A-Z0-9]+"), 36),
    (re.compile(r"[A-Za-z0-9+/]+=*|[A-Za-z0-9_-]+=*"), 64),
    (re.compile(r"[!-~]+"), 94),
)
BYTES = 256
SHORTEST, LONGEST = 2, 16  # characters of a piece
LENGTH = log2(LONGEST)
MAX_STEP = 2  # between the codes of two characters of a sequence, forwards or backwards
WORD, OTHER = log2(2), log2(6)  # the kind of a piece: a word is as likely as the three other kinds together


def surplus_bits(text: str) -> float:
    """Return how many bits shorter a description of the text is than one of random characters.

    The description is a prefix code, so at most one of 2**n random texts reaches n bits (Kraft's inequality). A text
    that encodes another one in hexadecimal or Base64 is as predictable as that one.
    """
    return max(_surplus(form, size) for form, size in _forms(text))


def _forms(text: str) -> Iterator[tuple[str, int]]:
    """Yield the text and what it encodes, with the sizes of their alphabets."""
    size = next((size for pattern, size in ALPHABETS if pattern.fullmatch(text)), BYTES)
    text = text.rstrip("=") if size in (32, 64) else text
    yield text, size
    if size == 16 and len(text) % 2 == 0:
        yield bytes.fromhex(text).decode("latin-1"), BYTES
    elif size == 64 and len(text) % 4 != 1:
        yield base64.b64decode(text.replace("-", "+").replace("_", "/") + "==").decode("latin-1"), BYTES


def _surplus(text: str, size: int) -> float:
    pieces = _pieces(text)
    codes = (_uniform, _by_class, _by_frequency)
    return len(text) * log2(size) - min(_shortest(code(text, size), pieces) for code in codes) - log2(len(codes))


def _shortest(characters: list[float], pieces: dict[int, list[tuple[int, float]]]) -> float:
    """Return the bits of the shortest description of a text as single characters and pieces.

    After a character, one of eight is the start of a piece; after a piece, every second one.
    """
    after_character, after_piece = [0.0], [inf]
    for end, price in enumerate(characters, 1):
        one = price + min(after_character[-1] + log2(8 / 7), after_piece[-1] + log2(2))
        several = [
            piece + min(after_character[start] + log2(8), after_piece[start] + log2(2))
            for start, piece in pieces.get(end, ())
        ]
        after_character.append(one)
        after_piece.append(min(several, default=inf))
    return min(after_character[-1], after_piece[-1])


def _uniform(text: str, size: int) -> list[float]:
    """Return the price of each character if all are equally likely."""
    return [log2(size)] * len(text)


def _by_class(text: str, size: int) -> list[float]:
    """Return the price of each character by its class, which is mostly that of others; letters as in a language."""
    seen = dict.fromkeys(("lower", "upper", "digit", "other"), 0.5)
    prices = []
    for character in text:
        kind, inside = _class(character, size)
        prices.append(log2(sum(seen.values()) / seen[kind]) + inside)
        seen[kind] += 1
    return prices


def _class(character: str, size: int) -> tuple[str, float]:
    """Return the class of a character, and its price inside of the class."""
    if character.isascii() and character.isalpha():
        return "lower" if character.islower() else "upper", letter_prices()[character.lower()]
    if character.isascii() and character.isdigit():
        return "digit", log2(10)
    return "other", log2(max(2, size - 62))


@cache
def letter_prices() -> dict[str, float]:
    """Return the price of each letter.

    The n-th is 1/(n + 3) as frequent (law of Zipf and Mandelbrot).
    """
    weights = {letter: 1 / (place + 3) for place, letter in enumerate(LETTERS, 1)}
    return {letter: log2(sum(weights.values()) / weight) for letter, weight in weights.items()}


def _by_frequency(text: str, size: int) -> list[float]:
    """Return the price of each character by how often it came before (estimator of Krichevsky and Trofimov)."""
    seen: Counter[str] = Counter()
    prices = []
    for place, character in enumerate(text):
        prices.append(log2((place + size / 2) / (seen[character] + 0.5)))
        seen[character] += 1
    return prices


def _pieces(text: str) -> dict[int, list[tuple[int, float]]]:
    """Return the starts and prices of all known pieces, by their ends."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for start in range(len(text)):
        ends = range(start + SHORTEST, min(len(text), start + LONGEST) + 1)
        for kind in (_words, _copies, _repetitions, _sequences):
            for end, price in kind(text, start, ends):
                found[end].append((start, price))
    return found


def _words(text: str, start: int, ends: range) -> Iterator[tuple[int, float]]:
    """Yield the ends and prices of common words and passwords, also in leetspeak."""
    low = text.lower()
    plain = low.translate(LEETSPEAK)
    for end in ends:
        if rank := _rank(low[start:end]):
            yield end, WORD + log2(8 / 7) + _word_price(rank) + _case(text[start:end])
        elif rank := _rank(plain[start:end]):
            changed = sum(one != other for one, other in zip(low[start:end], plain[start:end], strict=True))
            yield end, WORD + log2(8) + 2 * changed + _word_price(rank) + _case(text[start:end])


def _rank(word: str) -> int | None:
    """Return the best rank of a word, or None."""
    return min((ranks[word] for ranks in WORD_LISTS if word in ranks), default=None)


def _word_price(rank: int) -> float:
    """Return the price of a word: the n-th of a list is 1/n as frequent as the first (Zipf's law)."""
    return log2(rank) + _price_of_first_word()


@cache
def _price_of_first_word() -> float:
    words = set().union(*WORD_LISTS)
    return log2(sum(1 / rank for word in words if (rank := _rank(word))))


def _case(piece: str) -> float:
    """Return the price of the case of a piece: lower, capitalised, upper, or mixed."""
    if piece == piece.lower():
        return log2(2)
    if piece in (piece.capitalize(), piece.upper()):
        return log2(6)
    return log2(6) + len(piece)


def _copies(text: str, start: int, ends: range) -> Iterator[tuple[int, float]]:
    """Yield the ends and prices of parts of known sequences."""
    for end in ends:
        piece = text[start:end].lower()
        if piece not in SEQUENCES and piece[::-1] not in SEQUENCES:
            return
        yield end, OTHER + log2(2 * len(SEQUENCES)) + LENGTH + _case(text[start:end])


def _repetitions(text: str, start: int, ends: range) -> Iterator[tuple[int, float]]:
    """Yield the ends and prices of pieces that came before, in the same or in another case."""
    low = text.lower()
    for end in ends:
        if low.find(low[start:end], 0, end - 1) < 0:
            return
        same = text.find(text[start:end], 0, end - 1) >= 0
        yield end, OTHER + log2(start + 1) + LENGTH + log2(2) + (0 if same else _case(text[start:end]))


def _sequences(text: str, start: int, ends: range) -> Iterator[tuple[int, float]]:
    """Yield the ends and prices of characters whose codes continue in equal steps from the one before them."""
    step = ord(text[start]) - ord(text[start - 1]) if start else inf
    for end in ends:
        if abs(step) > MAX_STEP or ord(text[end - 1]) - ord(text[end - 2]) != step:
            return
        yield end, OTHER + log2(2 * MAX_STEP + 1) + LENGTH
