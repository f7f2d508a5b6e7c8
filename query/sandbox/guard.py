"""Which SQL may run: one SELECT over the published views, judged by DuckDB's own syntax tree.

The type of a statement is no guard: `WITH x AS (COPY (SELECT 1) TO 'file') SELECT 1` is a SELECT to DuckDB 2.0, and
writes the file. So the tree that `json_serialize_sql` gives is walked against allowlists of its parts, tables, table
functions and functions; whatever is not listed is refused.

The functions are DuckDB's own, as it lists them itself, less those that are more than a function of their arguments:
what it declares volatile or bound to the query (settings, variables, sequences, sleep, the log; the clock, chance and
`error` are let through), its catalogue's pg_ macros, and the few of `_NOT_PURE`. A list written here would go stale
with every DuckDB and refuse what an analyst knows; a list of only the refused would let through what is new.

What this does not bound is time and memory: see `query.sandbox.process`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb
import msgspec

from query.errors import SqlRefusedError, first_words
from store.errors import did_you_mean
from store.events import KINDS

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_REFERENCES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "PIVOT", "SHOW_REF"}
)
_MODIFIERS = frozenset(
    {
        "ORDER_MODIFIER",
        "DISTINCT_MODIFIER",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
    }
)
_SHOWN = frozenset({"DESCRIBE", "SUMMARY"})  # of a query; SHOW TABLES and the like tell of the catalogue
_PIVOTING = frozenset({"SELECT", "WITH", "FROM", "PIVOT"})  # a PIVOT in it would first write a type of its columns
_UNNAMED_READERS = frozenset({"STAR", "POSITIONAL_REFERENCE", "PIVOT", "SHOW_REF"})
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})
_CLOCK_AND_CHANCE = frozenset(
    {
        "now",
        "today",
        "current_date",
        "get_current_time",
        "get_current_timestamp",
        "transaction_timestamp",
        "random",
        "uuid",
        "uuidv4",
        "uuidv7",
        "gen_random_uuid",
        "error",
    }
)
_NOT_PURE = frozenset(
    {
        "json_serialize_plan",  # binds a query of its own, against the catalogue and the files
        "get_block_size",  # asks pragma_database_size
        "to_aggregate_state",  # takes any bytes for the memory of an aggregate, as the next three do
        "finalize",
        "combine",
        "combine_aggr",
    }
)
_FUNCTIONS_SQL = """
select lower(function_name), bool_and(
    schema_name = 'main' and not starts_with(function_name, '__internal')
    and (stability = 'CONSISTENT' or function_type = 'macro')
) filter (function_type in ('scalar', 'aggregate', 'window', 'macro'))
from duckdb_functions() group by all
"""
# Without a schema these are found from any query: nobody's CTE may make their names look like its own.
_CATALOGUE_SQL = "select lower(view_name) from duckdb_views() where internal and schema_name <> 'information_schema'"
_VIEW_HINT = f"the views are {', '.join(KINDS)}"
_SELECT_HINT = "ask with one SELECT over the views; nothing here writes"

_Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """What SQL that may run reads.

    Args:
        kinds: The views.
        names: Every word of it, in small letters, among them all columns that it reads; None where it may read any.
    """

    kinds: tuple[str, ...]
    names: frozenset[str] | None


def referenced_kinds(sql: str) -> tuple[str, ...]:
    """The kinds that `sql` reads, if it may run at all. Raises as `judged`."""
    return judged(sql).kinds


def judged(sql: str) -> Judged:
    """What `sql` reads, if it may run at all.

    Raises:
        SqlRefusedError: It is not one SELECT over the published views, with the reason.
    """
    nodes = list(_nodes(_tree(sql)))
    ctes = {str(node["key"]).lower() for node in nodes if "key" in node}
    kinds: dict[str, None] = {}
    for node in nodes:
        _check_part(node)
        _check_function(node)
        if node.get("type") == "BASE_TABLE":
            name = _checked_table(node, ctes)
            kinds |= {name: None} if name in KINDS else {}
    return Judged(tuple(kinds), None if _may_read_any_column(nodes) else frozenset(_words(nodes)))


def _may_read_any_column(nodes: Iterable[_Node]) -> bool:
    """Whether columns are read that it does not name: by a star, by their place, as a whole row."""
    nodes = list(nodes)
    tables = {
        str(node[key]).lower() for node in nodes if node.get("type") == "BASE_TABLE" for key in ("table_name", "alias")
    }
    by_all = {id(one["expression"]) for node in nodes if node.get("type") == "ORDER_MODIFIER" for one in node["orders"]}
    return any(
        (str(node.get("type")) in _UNNAMED_READERS and not (id(node) in by_all and node.get("expr") is None))
        or node.get("ref_type") == "NATURAL"
        or bool(node.get("column_name_alias"))
        or str(node.get("schema", "")).lower() in tables - {""}  # x.f() is f(x)
        or (node.get("type") == "COLUMN_REF" and str(node["column_names"][-1]).lower() in tables)
        for node in nodes
    )


def _words(nodes: Iterable[_Node]) -> Iterator[str]:
    for node in nodes:
        for value in node.values():
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str):
                    yield word.lower()


def _tree(sql: str) -> _Node:
    """The syntax tree of the one SELECT that `sql` is."""
    parser = _empty_database().cursor()
    try:
        sql.encode()
        statements = parser.extract_statements(sql)
        text = parser.execute("select json_serialize_sql($1::varchar)", [sql]).fetchall()[0][0]
        tree: _Node = msgspec.json.decode(text)
    except duckdb.Error as error:
        raise _unparsed(str(error)) from None
    except UnicodeEncodeError:
        raise SqlRefusedError("The SQL holds half a character", "send it as UTF-8") from None
    except RecursionError:
        raise SqlRefusedError("The SQL is nested too deeply to be judged", "nest it less, with WITH") from None
    if not statements:
        raise SqlRefusedError("There is no SQL to run", "send a SELECT, such as 'select count(*) from gpu_sample'")
    if len(statements) > 1:
        raise SqlRefusedError(f"This is {len(statements)} statements", "send one SELECT at a time")
    if not tree["error"]:
        return tree
    if tree["error_type"] != "not implemented":
        raise _unparsed(str(tree["error_message"]))
    word = statements[0].query.split(None, 1)[0].upper()
    if word in _PIVOTING:
        raise SqlRefusedError("A PIVOT must name its columns", "write it as in PIVOT … ON gpu_index IN (0, 1) …")
    raise SqlRefusedError(f"Only SELECT can be run, this is {word}", _SELECT_HINT)


def _unparsed(message: str) -> SqlRefusedError:
    return SqlRefusedError(f"The SQL cannot be parsed ({first_words(message)})", "correct it at that place")


@cache
def _empty_database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config={"enable_external_access": False, "lock_configuration": True})


def _nodes(tree: Any) -> Iterator[_Node]:
    stack = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_part(node: _Node) -> None:
    """Refuse what is neither an expression (they have a class, and only functions among them act) nor listed."""
    kind = node.get("type")
    if "class" in node or not isinstance(kind, str) or kind in _QUERY_NODES | _MODIFIERS:
        return
    if kind.endswith("_NODE"):
        word = kind.removesuffix("_NODE").removesuffix("_QUERY")
        raise SqlRefusedError(f"Only SELECT can be run, this holds {word}", _SELECT_HINT)
    if kind not in _TABLE_REFERENCES:
        raise SqlRefusedError(f"A {kind} cannot be read from here", _VIEW_HINT)
    if kind == "SHOW_REF" and (node["show_type"] not in _SHOWN or not node["query"]):
        raise SqlRefusedError("Only SELECT, DESCRIBE and SUMMARIZE can be run", _VIEW_HINT)
    if kind == "TABLE_FUNCTION" and (name := node["function"]["function_name"].lower()) not in _TABLE_FUNCTIONS:
        raise SqlRefusedError(f"The table function {name} is not available here", _VIEW_HINT)


def _check_function(node: _Node) -> None:
    name = node.get("function_name")
    if isinstance(name, str) and name.lower() not in _pure_functions():
        hint = "it is more than a function of its arguments"
        if name.lower() not in _functions():
            hint = did_you_mean(name.lower(), _pure_functions(), "use DuckDB's scalar and aggregate functions")
        raise SqlRefusedError(f"The function {name} is not available here", hint)


@cache
def _pure_functions() -> frozenset[str]:
    own = frozenset(name for name, is_pure in _functions().items() if is_pure)
    return own - _NOT_PURE | _CLOCK_AND_CHANCE | _TABLE_FUNCTIONS


@cache
def _functions() -> Mapping[str, bool]:
    return dict(_empty_database().cursor().execute(_FUNCTIONS_SQL).fetchall())


def _checked_table(node: _Node, ctes: set[str]) -> str:
    name = str(node["table_name"]).lower()
    is_cte = name in ctes and name not in _catalogue() and not re.search(r"[./\\]", name)
    if not (name in KINDS or is_cte):
        raise SqlRefusedError(f"There is no view {node['table_name']!r}", did_you_mean(name, KINDS, _VIEW_HINT))
    if len(node["qualified_name"]["path"]) > 1:
        raise SqlRefusedError("The views are in no schema", f"write {name} alone")
    return name


@cache
def _catalogue() -> frozenset[str]:
    return frozenset(name for (name,) in _empty_database().cursor().execute(_CATALOGUE_SQL).fetchall())
