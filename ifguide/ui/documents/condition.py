"""A reader's own condition on documents, such as `hit_sum > 5 and n_tokens < 400`, made safe to run.

DuckDB's parser reads it. Every node of the tree that it returns must be one that conditions may have, and nothing may
be around the condition. What runs is DuckDB's own text of that tree, never the reader's.
"""

import json
from collections.abc import Collection

import duckdb

from ifguide.errors import InputError

LONGEST, LONGEST_PATTERN, MOST_WILDCARDS = 500, 100, 2
"""Characters of a condition, which the parser may need a quarter of a second for; of a pattern; and % in one of LIKE,
each of which may be tried at every place of a text."""
EXAMPLE = "hit_sum > 5 and n_tokens < 400"
FUNCTIONS = (
    *("abs", "round", "floor", "ceil", "ln", "sqrt", "least", "greatest", "lower", "upper", "length", "trim"),
    *("contains", "starts_with", "ends_with", "regexp_matches", "regexp_full_match"),
)
_LIKE = ("~~", "!~~", "~~*", "!~~*")
_SIGNS = ("+", "-", "*", "/", "//", "%", "^@", *_LIKE)
_OPERATORS = tuple(f"OPERATOR_{name}" for name in ("NOT", "IS_NULL", "IS_NOT_NULL", "COALESCE"))
_PLAIN = ("CONSTANT", "COMPARISON", "CONJUNCTION", "BETWEEN", "CASE", "CAST")
_TYPES = ("BOOLEAN", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR")
_STATEMENT = "SELECT document FROM listed WHERE ({}\n)"


def read_condition(connection: duckdb.DuckDBPyConnection, condition: str, columns: Collection[str]) -> str:
    """The statement that selects the column `document` of the table `listed` where a condition on `columns` is true. An
    InputError: it is none, or too long."""
    if len(condition) > LONGEST or not all(c.isprintable() or c.isspace() for c in condition):
        raise refuse(f"more than {LONGEST} characters, or some that are not printed", columns)
    try:
        asked, plain = (_parse(connection, _STATEMENT.format(text)) for text in (condition, "true"))
        tree, plain["where_clause"] = asked.pop("where_clause", None), plain.pop("where_clause") and None
        if asked | {"where_clause": None} != plain:
            raise InputError("something behind the condition")
        parts = [tree]
        while parts:
            part = parts.pop()
            if isinstance(part, dict):
                _check(part, columns)
            parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        statements = {"error": False, "statements": [{"node": plain | {"where_clause": tree}}]}
        return connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(statements)]).fetchall()[0][0]
    except (InputError, duckdb.Error, ValueError, RecursionError) as error:
        raise refuse(str(error), columns) from error


def _parse(connection: duckdb.DuckDBPyConnection, statement: str) -> dict:
    """The tree of one SELECT."""
    tree = json.loads(connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()[0][0])
    if tree["error"]:
        raise InputError(tree["error_message"])
    if len(tree["statements"]) != 1:
        raise InputError("several statements")
    return tree["statements"][0]["node"]


def _check(part: dict, columns: Collection[str]) -> None:
    """An InputError: this part of the tree is an expression that conditions may not have."""
    match part:
        case {"class": "COLUMN_REF", "column_names": [name]} if name.lower() in map(str.lower, columns):
            pass
        case {"class": "COLUMN_REF", "column_names": names}:
            raise InputError(f"the column {'.'.join(names)!r}, which is not there")
        case {"class": "FUNCTION", "function_name": name, "schema": "", "catalog": ""} if name in (*FUNCTIONS, *_SIGNS):
            if name in _LIKE or name.startswith("regexp"):
                _check_pattern(part)
        case {"class": "FUNCTION", "function_name": name}:
            raise InputError(f"the function {name!r}; there are {', '.join(FUNCTIONS)}")
        case {"class": "OPERATOR", "type": kind} if kind in (*_OPERATORS, "COMPARE_IN", "COMPARE_NOT_IN"):
            pass
        case {"class": "CAST", "cast_type": {"id": kind}} if kind not in _TYPES:  # DuckDB 1
            raise InputError("a type that conditions do not have")
        case {"class": "TYPE", "type_name": kind, "children": []} if kind.upper() in _TYPES:  # DuckDB 2
            pass
        case {"class": kind} if kind not in _PLAIN:
            raise InputError(f"a {kind.lower()} that conditions do not have")


def _check_pattern(function: dict) -> None:
    """The pattern, a function's second argument, must be a short text; in a regular expression without counts such as
    {1000}, and in LIKE with few %, which take long."""
    _, pattern, *_ = [part.get("expression", part) for part in function.get("arguments") or function["children"]]
    constant = pattern.get("literal") or pattern.get("value") or {}  # of DuckDB 2, and 1
    text = str(constant.get("text", constant.get("value")))
    if pattern["class"] != "CONSTANT" or len(text) > LONGEST_PATTERN:
        raise InputError(f"a pattern that is no text of at most {LONGEST_PATTERN} characters")
    if function["function_name"] in _LIKE and text.count("%") > MOST_WILDCARDS:
        raise InputError(f"more than {MOST_WILDCARDS} % in a pattern; use regexp_matches")
    if function["function_name"] not in _LIKE and "{" in text:
        raise InputError("a regular expression with {")


def refuse(reason: str, columns: Collection[str]) -> InputError:
    """The error that names the reason, an example and the columns."""
    reason = reason.partition("\n")[0]
    return InputError(f"expected a condition such as “{EXAMPLE}”, got {reason}; columns: {', '.join(columns)}")
