"""Values of the query layer as JSON values of an answer: three significant digits, no NaN, text made fit for a cell."""

import base64
import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from mcp_server.names import clean
from query.figures import significant


def figure(value: Any) -> Any:
    """A measured value at three significant digits; text cleaned; what is no number is a gap."""
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return finite(significant(value))
    return clean(value)


def finite(value: float | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


def json_value(value: Any) -> Any:
    """Any value of a result of SQL, whole: a query's figures are not rounded."""
    plain: Any
    match value:
        case None | bool() | int():
            plain = value
        case float():
            plain = int(value) if value.is_integer() and abs(value) < 2**53 else finite(value)
        case str():
            plain = clean(value)
        case datetime() | date():
            plain = value.isoformat()
        case Decimal():
            plain = int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            plain = base64.b64encode(value).decode()
        case dict():
            plain = {str(key): json_value(item) for key, item in value.items()}
        case list() | tuple():
            plain = [json_value(item) for item in value]
        case _:
            plain = str(value)
    return plain
