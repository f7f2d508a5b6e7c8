"""The words of an expression."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from query.promql.errors import ExpressionError

TokenKind = Literal["duration", "number", "string", "word", "sign", "end"]

_UNITS_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_DURATION_MS_MAX = 2**63 // 10**6  # Prometheus counts nanoseconds
_DURATION = "(?:[0-9]+y)?(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m(?!s))?(?:[0-9]+s)?(?:[0-9]+ms)?"
_TOKENS = re.compile(
    rf"""
    (?P<blank>\s+|\#[^\n]*)
  | (?P<duration>(?=[0-9]+(?:ms|[smhdwy])){_DURATION}(?![A-Za-z0-9_]))
  | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_]))
  | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
  | (?P<word>[A-Za-z_:][A-Za-z0-9_:]*)
  | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){{}}\[\],@:])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Token:
    """A word, and where it begins: the column, from 1."""

    kind: TokenKind
    text: str
    column: int


def tokens(expression: str) -> Iterator[Token]:
    """The words of an expression, and its end.

    Raises:
        ExpressionError: Something in it is no word of PromQL.
    """
    at = 0
    while at < len(expression):
        match = _TOKENS.match(expression, at)
        if match is None or match.end() == at:
            raise ExpressionError(f"1:{at + 1}: parse error: unexpected character {expression[at]!r}")
        if match.lastgroup != "blank":
            yield Token(cast("TokenKind", match.lastgroup), match.group(), at + 1)
        at = match.end()
    yield Token("end", "", len(expression) + 1)


def duration_ms(text: str) -> int:
    """`1h30m` in milliseconds.

    Raises:
        ExpressionError: It is none, or none at all.
    """
    if not text or not re.fullmatch(_DURATION, text):
        raise ExpressionError(f"not a valid duration string: {text!r}", "write 5m, 1h30m or 500ms")
    found = sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"([0-9]+)(ms|[smhdwy])", text))
    if found > _DURATION_MS_MAX:
        raise ExpressionError("duration out of range")
    return found


def number(text: str) -> float:
    return float(int(text, 16)) if text[:2].lower() == "0x" else float(text)


def unquoted(text: str) -> str:
    """The value of a string: of `raw` ones as it stands."""
    return text[1:-1] if text[0] == "`" else _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    escape = match.group(1)
    if len(escape) == 1:
        return _ESCAPES.get(escape, escape)
    return chr(int(escape, 8) if escape[0].isdigit() else int(escape[1:], 16))
