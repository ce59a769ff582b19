r"""The marks in prompts that people type, as the web interfaces read them: weights of words, strengths of concepts.

    (a dog:1.3)  (a dog)  [a dog]    the weights 1.3, 1.1 and 1/1.1; nested ones multiply
    <rex:0.8>                        the concept at this strength
    \( \) \[ \] \\                   these characters themselves

What comes near such a mark and is none is an error that says what was meant, or a warning where it may be plain text.
Nothing else parses prompts: captions and prompts that the program makes are text as it stands.
"""

import difflib
import re
import warnings
from collections.abc import Collection, Sequence

from mnemon.errors import MnemonError
from mnemon.models.weighted_prompt import Strengths, WeightedPrompt, Weights

STEP = 1.1
"""The weight of a pair of parentheses without a number; a pair of brackets has 1 / STEP."""
MOST = 10.0
"""A weight beyond is no weight, but the end of "(at 10:30)"; a strength beyond is a percentage."""
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
CONCEPT = re.compile(r"<[^<>]*>")
_PIECES = re.compile(rf"\\[()\[\]\\]|{CONCEPT.pattern}|:\s*{NUMBER}\s*\)|[()\[\]]")
_SPECIAL = re.compile(r"\|.*\|")  # such as <|endoftext|>
_IN_CONCEPT = re.compile(
    r"(?P<kind>\s*(?:lora|lyco|hypernet|embedding|ti)\s*:)?(?P<name>\s*\w[\w -]*?\s*)(?::(?P<strength>.*))?", re.I
)
_EDITING = re.compile(rf"(?<!\\)\[[^\[\]]*(?:\|[^\[\]]*|:\s*{NUMBER}\s*)\]")
_BAD_WEIGHT = re.compile(r":\s*([+-]?[\d.,]*\d[\d.,]*\s*%?)\s*\)")
_WIDE_COLON, _WIDE_CLOSE = "\N{FULLWIDTH COLON}", "\N{FULLWIDTH RIGHT PARENTHESIS}"
_OTHERS = re.compile(
    r"\b(?:AND|BREAK)\b|\w(?:\+\+|--)+(?!\w)|\)(?:[+-]+|\d*\.\d+)|\{[^{}]*\|[^{}]*\}|\{\{|__\w+__|\bembedding:\S+"
    rf"|[:{_WIDE_COLON}]\s*{NUMBER}\s*{_WIDE_CLOSE}|{_WIDE_COLON}\s*{NUMBER}\s*\)",
    re.ASCII,
)
_OPEN, _CLOSE = "(?:<|&lt;|\N{FULLWIDTH LESS-THAN SIGN})", "(?:>|&gt;|\N{FULLWIDTH GREATER-THAN SIGN})"


def parse_prompt(prompt: str, known: Collection[str]) -> str:
    """Read the marks of a prompt that may name the `known` concepts.

    Returns:
        The text without marks, as a `WeightedPrompt` if a word has a weight or a concept a strength.

    Raises:
        MnemonError: an unknown concept, or a mark that is nearly right; the message says what was meant.

    Warns:
        UserWarning: parentheses without their other half, or marks of other tools: both stay plain text.
    """
    pieces = _pieces(prompt)
    factors = _pairs(prompt, pieces)
    text, strengths = "", dict[str, float]()
    begun, spans = dict[int, int](), list[tuple[int, int, float]]()
    for index, piece in enumerate(pieces):
        if index in factors:
            other, factor = factors[index]
            if other > index:
                begun[index] = len(text)
            else:
                spans.append((begun[other], len(text), factor))
        elif piece[0] == "<" and CONCEPT.fullmatch(piece):
            text += _concept(prompt, piece, known, strengths)
        else:
            text += piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece
    _check_near_misses(prompt, pieces, known)
    weights, kept = _product(prompt, spans), tuple(sorted(strengths.items()))
    return WeightedPrompt(text, weights, kept) if weights or kept else text


def escape(text: str) -> str:
    """A prompt that says `text`, whatever marks are in it."""
    return re.sub(r"[()\[\]\\]", r"\\\g<0>", text)


def without_concepts(prompt: str) -> str:
    """The prompt as typed, without its concepts."""
    return " ".join(CONCEPT.sub("", prompt).split())


def _pieces(prompt: str) -> list[str]:
    """The prompt cut into marks and the text between them."""
    pieces, end = [], 0
    for match in _PIECES.finditer(prompt):
        pieces += [prompt[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in [*pieces, prompt[end:]] if piece]


def _pairs(prompt: str, pieces: Sequence[str]) -> dict[int, tuple[int, float]]:
    """For each parenthesis or bracket of a pair the index of the other one, and the pair's weight."""
    pairs: dict[int, tuple[int, float]] = {}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    lone = []
    for index, piece in enumerate(pieces):
        kind = "[" if piece in "[]" else "("
        if piece in ("(", "["):
            opened[kind].append(index)
        elif piece in (")", "]") or re.fullmatch(rf":\s*{NUMBER}\s*\)", piece):
            if not opened[kind]:
                lone.append(piece[-1])
                continue
            first = opened[kind].pop()
            factor = _within(prompt, float(piece[1:-1])) if piece[0] == ":" else STEP if kind == "(" else 1 / STEP
            pairs[first], pairs[index] = (index, factor), (first, factor)
    lone += [pieces[index] for indices in opened.values() for index in indices]
    if lone:
        warnings.warn(
            f"The prompt '{prompt}' has a '{lone[0]}' without its other half, which is read as it stands: for a weight "
            f"write (word:1.3), for the character \\{lone[0]}.",
            UserWarning,
            stacklevel=4,
        )
    return pairs


def _within(prompt: str, weight: float) -> float:
    if abs(weight) > MOST:
        raise MnemonError(
            f"The prompt '{prompt}' gives words the weight {weight:g}, where 0.5 to 1.5 is usual: write \\( and \\) "
            "for parentheses that are text."
        )
    return weight


def _product(prompt: str, spans: Sequence[tuple[int, int, float]]) -> Weights:
    """Spans that may overlap as spans one after another, with the product of their weights."""
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    weights = []
    for start, end in zip(edges, edges[1:], strict=False):
        weight = 1.0
        for first, last, factor in spans:
            weight *= factor if first <= start and end <= last else 1.0
        if weight != 1:
            weights.append((start, end, _within(prompt, weight)))
    return tuple(weights)


def _concept(prompt: str, piece: str, known: Collection[str], strengths: dict[str, float]) -> str:
    """The text of a concept's mark; its strength, if it says one, goes into `strengths`."""
    match = _IN_CONCEPT.fullmatch(piece[1:-1])
    if match is None or _SPECIAL.fullmatch(piece[1:-1]):
        _check_garbled(prompt, piece, known)
        return piece
    name, strength = match["name"].strip().lower(), match["strength"]
    if name not in known:
        raise _unknown(prompt, piece, name, known)
    plain = f"<{name}>" if strength is None else f"<{name}:{strength.strip()}>"
    if match["kind"] or match["name"] != match["name"].strip():
        raise MnemonError(f"The prompt '{prompt}' has '{piece}', which is no concept's token: did you mean {plain}?")
    if strength is None:
        return piece
    if not re.fullmatch(NUMBER, strength.strip()):
        better = strength.strip().replace(",", ".")
        meant = f"did you mean <{name}:{better}>?" if re.fullmatch(NUMBER, better) else f"write <{name}:0.8>."
        raise MnemonError(f"The prompt '{prompt}' has '{piece}', whose strength is no number: {meant}")
    if abs(float(strength)) > MOST:
        raise MnemonError(
            f"The prompt '{prompt}' gives <{name}> the strength {float(strength):g}, where 0 to 1.5 is usual: "
            "1 is the concept as it was learned, not 100."
        )
    if strengths.setdefault(name, float(strength)) != float(strength):
        raise MnemonError(f"The prompt '{prompt}' gives <{name}> two strengths: give it one.")
    return f"<{match['name']}>"


def _check_garbled(prompt: str, piece: str, known: Collection[str]) -> None:
    """Raises:
    MnemonError: the piece begins with a concept's name.
    """
    begins = [name for name in known if re.match(rf"<\s*{re.escape(name)}(?!\w)", piece, re.I)]
    if begins:
        name = max(begins, key=len)
        raise MnemonError(
            f"The prompt '{prompt}' has '{piece}', which is no concept's token: write <{name}>, or <{name}:0.8> for a "
            "strength."
        )


def _unknown(prompt: str, piece: str, name: str, known: Collection[str]) -> MnemonError:
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean <{near[0]}>?" if near else ""
    listed = ", ".join(f"<{one}>" for one in sorted(known)) or "none yet"
    return MnemonError(f"The prompt '{prompt}' names {piece}, which is not known.{meant} Known concepts: {listed}.")


def _check_near_misses(prompt: str, pieces: Sequence[str], known: Collection[str]) -> None:
    plain = "".join(" " if CONCEPT.fullmatch(piece) else piece for piece in pieces)
    for name in known:
        word = re.escape(name)
        if match := re.search(rf"{_OPEN}\s*{word}\b|\b{word}\s*{_CLOSE}|\bembedding:\s*{word}\b", plain, re.I):
            raise MnemonError(
                f"The prompt '{prompt}' has '{match.group()}', which is no concept's token: did you mean <{name}>?"
            )
    if match := _EDITING.search(plain):
        raise MnemonError(
            f"The prompt '{prompt}' has '{match.group()}': words that change while an image is sampled are not "
            r"supported. Write \[ and \] for brackets that are text."
        )
    for match in _BAD_WEIGHT.finditer(plain):
        if re.fullmatch(NUMBER, match[1].strip()):
            continue
        better = match[1].strip().replace(",", ".")
        meant = f"did you mean '(...:{better})'?" if re.fullmatch(NUMBER, better) else "write (word:1.3)."
        raise MnemonError(f"The prompt '{prompt}' has '{match.group()}', whose weight is no number: {meant}")
    if (match := _OTHERS.search(plain)) and not (match.group().isalpha() and plain.isupper()):
        warnings.warn(
            f"The prompt '{prompt}' has '{match.group()}', a mark of other tools, which is read as it stands: weights "
            "are written (word:1.3), concepts <name> or <name:0.8>.",
            UserWarning,
            stacklevel=3,
        )


__all__ = ["Strengths", "WeightedPrompt", "escape", "parse_prompt", "without_concepts"]
