"""Editing JSON with comments in its own text: what is not touched stays as it is, comments, order and indentation.

Editors and agents read their settings as JSON with `//` and `/* */` comments and commas before a closing bracket. To
load and dump would lose those; so a member is put in, replaced or taken out at its place in the text.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"(?:[ \t\r\n]|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_SCALAR = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null')
_DEPTH_MAX = 200


@dataclass(frozen=True, slots=True)
class Member:
    """`"key": value` in an object; `end` is behind the value."""

    key: str
    start: int
    node: "Node"

    @property
    def end(self) -> int:
        return self.node.end


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands in the text."""

    start: int
    end: int
    value: Any
    members: tuple[Member, ...] | None = None

    def member(self, key: str) -> Member | None:
        return next((one for one in reversed(self.members or ()) if one.key == key), None)


def parse(text: str) -> Node:
    """The document.

    Raises:
        ValueError: It is no JSON, comments and last commas aside; the message has the line.
    """
    try:
        return _document(text)
    except _UnexpectedError as error:
        line = text.count("\n", 0, error.place) + 1
        found = repr(text[error.place]) if error.place < len(text) else "the end"
        raise ValueError(f"line {line}: {found} is not expected there") from None


def with_member(text: str, parent: Node, key: str, value: Any) -> str:
    """The text with that member in the object; one of the same name is replaced, else it comes last."""
    present = parent.member(key)
    if present:
        return text[: present.node.start] + _dumped(value, _indent(text, present.start)) + text[present.node.end :]
    members = parent.members or ()
    outer = _indent(text, parent.start)
    inner = (
        _indent(text, members[0].start) if members and "\n" in text[parent.start : members[0].start] else outer + "  "
    )
    line = f"\n{inner}{json.dumps(key)}: {_dumped(value, inner)}"
    behind = members[-1].end if members else parent.start + 1
    comma = _comma(text, behind) if members else None
    rest = text[behind : parent.end - 1].rstrip()
    between = rest if comma is not None or not members else "," + rest
    return f"{text[:behind]}{between}{line}{',' if comma is not None else ''}\n{outer}{text[parent.end - 1 :]}"


def without_member(text: str, parent: Node, key: str) -> str:
    """The text without that member, which must be there; a comma that stood before it alone goes with it."""
    members = parent.members or ()
    place = max(index for index, one in enumerate(members) if one.key == key)
    gone, comma = members[place], _comma(text, members[place].end)
    behind = gone.end if comma is None else comma + 1
    head, rest = text[: gone.start], text[behind:]
    if len(members) == 1 and not (text[parent.start + 1 : gone.start] + text[behind : parent.end - 1]).strip():
        return text[: parent.start + 1] + text[parent.end - 1 :]
    if place == len(members) - 1 and place and comma is None:
        end = members[place - 1].end
        separating = _comma(text, end)
        head = text[:end] + text[end if separating is None else separating + 1 : gone.start]
    # The line goes with it, unless what follows would then stand in a comment that ends the line before.
    return (head.rstrip() if rest.lstrip(" \t").startswith("\n") else head) + rest


class _UnexpectedError(Exception):
    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


def _document(text: str) -> Node:
    node = _value(text, _skip(text, 0), 0)
    end = _skip(text, node.end)
    if end != len(text):
        raise _UnexpectedError(end)
    return node


def _value(text: str, at: int, depth: int) -> Node:
    opening = text[at : at + 1]
    if depth > _DEPTH_MAX:
        raise _UnexpectedError(at)
    if opening == "{":
        members = tuple(_members(text, at + 1, depth))
        end = _closing(text, members[-1].end if members else at + 1, "}")
        return Node(at, end, {one.key: one.node.value for one in members}, members)
    if opening == "[":
        items = tuple(_items(text, at + 1, depth))
        return Node(at, _closing(text, items[-1].end if items else at + 1, "]"), [one.value for one in items])
    found = _SCALAR.match(text, at)
    if not found:
        raise _UnexpectedError(at)
    return Node(at, found.end(), json.loads(found[0]))


def _members(text: str, at: int, depth: int) -> Iterator[Member]:
    while (at := _skip(text, at)) < len(text) and text[at] == '"':
        key = _value(text, at, depth)
        colon = _skip(text, key.end)
        if text[colon : colon + 1] != ":":
            raise _UnexpectedError(colon)
        node = _value(text, _skip(text, colon + 1), depth + 1)
        yield Member(key.value, at, node)
        comma = _comma(text, node.end)
        if comma is None:
            return
        at = comma + 1


def _items(text: str, at: int, depth: int) -> Iterator[Node]:
    while text[(at := _skip(text, at)) : at + 1] not in ("]", ""):
        node = _value(text, at, depth + 1)
        yield node
        comma = _comma(text, node.end)
        if comma is None:
            return
        at = comma + 1


def _closing(text: str, at: int, bracket: str) -> int:
    comma = _comma(text, at)
    end = _skip(text, at if comma is None or text[at - 1] in "{[" else comma + 1)
    if text[end : end + 1] != bracket:
        raise _UnexpectedError(end)
    return end + 1


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _comma(text: str, at: int) -> int | None:
    place = _skip(text, at)
    return place if text[place : place + 1] == "," else None


def _indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip())]


def _dumped(value: Any, indent: str) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", f"\n{indent}")
