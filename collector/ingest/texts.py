"""What is kept of others' texts: short, without secrets, and never a prompt or an answer."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from collector.gpu.attribution import redacted

TEXT_CHARACTERS_MAX = 256
ERROR_CHARACTERS_MAX = 200
ATTRIBUTES_BYTES_MAX = 4096
_ERROR_CHARACTERS_READ = 2000  # enough that a secret cut in two is still seen to be one
_CONTENT = frozenset(
    {"answer", "arguments", "body", "choices", "completion", "completions", "content", "contents", "delta", "document"}
    | {"documents", "input", "inputs", "instructions", "message", "messages", "output", "outputs", "prompt", "prompts"}
    | {"query", "question", "response", "result", "results", "text", "texts"}
)
"""What the last words of attributes are called that hold what was asked or answered: `gen_ai.input.messages`,
`llm.prompts.0.content`, `traceloop.entity.input`."""


def short_text(value: Any) -> str | None:
    """A label, cut; None where it is no text or an empty one."""
    return value[:TEXT_CHARACTERS_MAX] or None if isinstance(value, str) else None


def error_text(value: Any) -> str | None:
    """An error's message without secrets, in one line, cut."""
    if not isinstance(value, str):
        return None
    return redacted(value[:_ERROR_CHARACTERS_READ].split())[:ERROR_CHARACTERS_MAX] or None


def pseudonym(name: Any, ledger_id: str) -> str | None:
    """The same short hash for the same name throughout a ledger, and another one in another ledger."""
    if not name or not isinstance(name, str | int):
        return None
    return blake2b(str(name).encode(), digest_size=8, key=ledger_id.encode()[:64]).hexdigest()


def safe_attributes(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Those attributes that are a short text, a number or a flag, and whose name does not speak of content.

    What would make it more than `ATTRIBUTES_BYTES_MAX` of JSON is left out.
    """
    kept: dict[str, Any] = {}
    size_bytes = 2
    for name, value in values.items():
        if not isinstance(value, str | int | float | bool) or _is_content(name):
            continue
        kept_value = error_text(value) if isinstance(value, str) else value
        size_bytes += len(msgspec.json.encode({name[:TEXT_CHARACTERS_MAX]: kept_value}))
        if size_bytes > ATTRIBUTES_BYTES_MAX:
            break
        kept[name[:TEXT_CHARACTERS_MAX]] = kept_value
    return kept or None


def _is_content(name: str) -> bool:
    words = name.casefold().replace("_", ".").replace("-", ".").split(".")
    return not _CONTENT.isdisjoint(words) and words[-1] not in {"tokens", "count", "id", "length", "size", "type"}
