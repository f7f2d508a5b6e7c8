"""Decoding OTLP's messages with opentelemetry-proto."""

from base64 import b64encode
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError, Message

from collector.ingest.reading import Refusal

M = TypeVar("M", bound=Message)
_PLAIN = frozenset({"string_value", "int_value", "double_value", "bool_value"})


def decoded(message: M, body: bytes, *, is_json: bool) -> M:
    """The message that the body holds.

    Raises:
        Refusal: It holds none.
    """
    try:
        if is_json:
            Parse(body, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except (DecodeError, ParseError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"The body is no {type(message).__name__} ({str(error)[:200]})") from None
    return message


def id_text(raw: bytes, length: int) -> str | None:
    """A trace's or span's id in hexadecimal; None where it is none.

    OTLP's JSON writes ids in hexadecimal where protobuf's JSON has base64, so such an id was taken for base64: written
    as that again it is what was sent.
    """
    text = raw.hex() if len(raw) == length else b64encode(raw).decode().lower()
    return text if len(text) == 2 * length and text.strip("0") else None


def attributes_of(pairs: Iterable[Any], wanted: Collection[str]) -> dict[str, Any]:
    """The wanted ones of a list of KeyValue: the others, such as prompts, are not even decoded.

    A value is a text, number or flag, or a list of texts; None for what is more than that. A batch of spans has
    thousands of these, which is why it is one loop.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        if (name := pair.key) in wanted:
            value = pair.value
            kind = value.WhichOneof("value")
            if kind in _PLAIN:
                found[name] = getattr(value, kind)
            else:
                found[name] = _texts(value) if kind == "array_value" else None
    return found


def _texts(value: Any) -> list[str]:
    return [item.string_value for item in value.array_value.values[:8] if item.HasField("string_value")]
