"""Which SQL may run: one SELECT over the published views, judged by DuckDB's own syntax tree.

The type of a statement is no guard: `WITH x AS (COPY (SELECT 1) TO 'file') SELECT 1` is a SELECT to DuckDB 2.0, and
writes the file. So the tree that `json_serialize_sql` gives is walked against allowlists of query nodes, table
references, tables and table functions; whatever is not listed is refused.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import duckdb
import msgspec

from query.errors import SqlRefusedError
from store.errors import did_you_mean
from store.events import KINDS

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_REFERENCES = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "PIVOT"})
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
_REFUSED_FUNCTIONS = frozenset(
    {
        "current_setting",
        "getvariable",
        "nextval",
        "currval",
        "setval",
        "write_log",
        "sleep_ms",
        "pg_sleep",
        "txid_current",
        "getenv",
    }
)
_VIEW_HINT = f"the views are {', '.join(KINDS)}"
_LEADING_COMMENTS = re.compile(r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)


def referenced_kinds(sql: str) -> tuple[str, ...]:
    """The kinds that `sql` reads, if it may run at all.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views, with the reason.
    """
    tree = _tree(sql)
    statements = tree["statements"]
    if len(statements) != 1:
        raise SqlRefusedError(f"This is {len(statements)} statements", "send one SELECT at a time")
    nodes = list(_dictionaries(statements[0]))
    ctes = {entry["key"].lower() for node in nodes for entry in _cte_entries(node)}
    kinds: dict[str, None] = {}
    for node in nodes:
        _check_query_node(node)
        _check_function(node)
        kinds |= dict.fromkeys(_checked_tables(node, ctes))
    return tuple(kinds)


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"enable_external_access": False, "lock_configuration": True})


def _tree(sql: str) -> Any:
    first_word = _LEADING_COMMENTS.sub("", sql).split(None, 1)[:1]
    if not first_word:
        raise SqlRefusedError("There is no SQL to run", "send a SELECT, such as 'select count(*) from gpu_sample'")
    row = _parser().cursor().execute("select json_serialize_sql($1::varchar)", [sql]).fetchone()
    tree = msgspec.json.decode(row[0]) if row else {"error": True}
    if not tree["error"]:
        return tree
    if tree.get("error_type") == "not implemented":
        word = first_word[0].upper().rstrip(";")
        raise SqlRefusedError(
            f"Only SELECT can be run, this is {word}",
            "ask with one SELECT over the views; nothing here writes",
        )
    message = str(tree.get("error_message", "it cannot be parsed")).split("\n", 1)[0]
    raise SqlRefusedError(f"The SQL cannot be parsed ({message})", "correct it at that place")


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _cte_entries(node: dict[str, Any]) -> Iterable[dict[str, Any]]:
    cte_map = node.get("cte_map")
    entries = [entry for entry in cte_map["map"] if "key" in entry] if isinstance(cte_map, dict) else []
    if node.get("type") in ("RECURSIVE_CTE_NODE", "CTE_NODE") and node.get("cte_name"):
        entries.append({"key": node["cte_name"]})
    return entries


def _check_query_node(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERY_NODES:
        word = kind.removesuffix("_NODE").removesuffix("_QUERY")
        raise SqlRefusedError(
            f"Only SELECT can be run, this holds {word}",
            "ask with one SELECT over the views; nothing here writes",
        )


def _check_function(node: dict[str, Any]) -> None:
    name = node.get("function_name")
    if isinstance(name, str) and (name.lower() in _REFUSED_FUNCTIONS or node.get("schema") or node.get("catalog")):
        raise SqlRefusedError(
            f"The function {name} is not available here",
            "use DuckDB's ordinary scalar and aggregate functions",
        )


def _checked_tables(node: dict[str, Any], ctes: set[str]) -> Iterable[str]:
    kind = node.get("type")
    is_reference = "alias" in node and "sample" in node and isinstance(kind, str)
    if is_reference and kind not in _TABLE_REFERENCES:
        raise SqlRefusedError(f"A {kind} cannot be read from here", _VIEW_HINT)
    if kind == "TABLE_FUNCTION":
        name = str(node["function"]["function_name"]).lower()
        if name not in _TABLE_FUNCTIONS:
            raise SqlRefusedError(f"The table function {name} is not available here", _VIEW_HINT)
    if kind != "BASE_TABLE":
        return ()
    name = str(node["table_name"]).lower()
    if node.get("schema_name") or node.get("catalog_name") or name not in {*KINDS, *ctes}:
        raise SqlRefusedError(f"There is no view {node['table_name']!r}", did_you_mean(name, KINDS, _VIEW_HINT))
    return (name,) if name in KINDS else ()
