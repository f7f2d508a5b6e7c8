"""From an expression to its tree: PromQL's grammar by precedence climbing, and its types."""

from dataclasses import replace
from typing import Literal, NoReturn, cast

from query.promql.errors import ExpressionError, unsupported
from query.promql.lexer import Token, duration_ms, number, tokens, unquoted
from query.promql.matching_labels import check_regex, matches
from query.promql.signatures import AGGREGATIONS, FUNCTIONS, PARAMETERS, UNSUPPORTED_FUNCTIONS
from query.promql.tree import (
    Aggregate,
    Binary,
    Call,
    Matcher,
    Matching,
    MatchOperator,
    Negative,
    Node,
    Number,
    Selector,
    Text,
    ValueType,
)

_PRECEDENCE = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", "!=", "<=", "<", ">=", ">"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%"), 5),
    "^": 6,
}
COMPARISONS = frozenset(("==", "!=", "<=", "<", ">=", ">"))
SET_OPERATORS = frozenset(("and", "or", "unless"))
_UNARY = 5.5  # -1^2 is -1, and -1*2 is (-1)*2
_DEPTH_MAX = 100  # far from where Python's own stack ends
_WORDS_MAX = 400  # the same for a + b + c …, of which each is one deeper


def parse(expression: str) -> Node:
    """The tree of an expression.

    Raises:
        ExpressionError: It is no PromQL, or its types do not fit.
        EvaluationError: It is, and uses what is not supported.
    """
    parser = _Parser(expression)
    node = parser.expression(0)
    parser.end()
    return node


def type_of(node: Node) -> ValueType:
    found: ValueType = "instant vector"
    match node:
        case Number():
            found = "scalar"
        case Text():
            found = "string"
        case Selector(range_ms=int()):
            found = "range vector"
        case Call(function=function):
            found = FUNCTIONS[function].result
        case Negative(operand=operand):
            found = type_of(operand)
        case Binary(left=left, right=right) if type_of(left) == type_of(right) == "scalar":
            found = "scalar"
    return found


class _Parser:
    """Reads one expression from left to right, one word ahead."""

    def __init__(self, expression: str) -> None:
        self._tokens = list(tokens(expression))
        if len(self._tokens) > _WORDS_MAX:
            raise ExpressionError(f"the expression has more than {_WORDS_MAX} words")
        self._at = 0
        self._depth = 0

    def expression(self, least: float) -> Node:
        """What follows, as long as its operators bind at least that tightly."""
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise ExpressionError("the expression is nested too deeply")
        left = self._operand()
        while (precedence := _PRECEDENCE.get(self._operator(), 0)) and precedence >= least:
            left = self._binary(left, precedence)
        self._depth -= 1
        return left

    def end(self) -> None:
        if self._operator() == "atan2":
            raise unsupported("the operator atan2")
        if self._next.kind != "end":
            self._unexpected("end of input")

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _operator(self) -> str:
        """What stands next, if it may be an operator."""
        is_one = self._next.kind in ("sign", "word")
        return self._next.text.lower() if is_one else ""

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _takes(self, *texts: str) -> bool:
        """Whether the next is one of these, which is then taken."""
        is_it = self._next.kind in ("sign", "word") and self._next.text.lower() in texts
        self._at += is_it
        return is_it

    def _must(self, text: str) -> None:
        if not self._takes(text):
            self._unexpected(repr(text))

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._next
        what = repr(token.text) if token.kind != "end" else "end of input"
        raise ExpressionError(f"1:{token.column}: parse error: unexpected {what}, expected {expected}")

    def _binary(self, left: Node, precedence: int) -> Binary:
        operator = self._take().text.lower()
        is_bool = self._takes("bool")
        matching = self._matching(operator)
        right = self.expression(precedence if operator == "^" else precedence + 1)  # only ^ binds to the right
        if is_bool and operator not in COMPARISONS:
            raise ExpressionError("bool modifier can only be used on comparison operators")
        types = {type_of(left), type_of(right)}
        if types - {"scalar", "instant vector"}:
            raise ExpressionError("binary expression must contain only scalar and instant vector types")
        if operator in SET_OPERATORS and "scalar" in types:
            raise ExpressionError(f"set operator {operator!r} not allowed in binary scalar expression")
        if operator in COMPARISONS and types == {"scalar"} and not is_bool:
            raise ExpressionError("comparisons between scalars must use BOOL modifier")
        if matching != Matching() and "scalar" in types:
            raise ExpressionError("vector matching only allowed between instant vectors")
        return Binary(operator, left, right, is_bool, matching)

    def _matching(self, operator: str) -> Matching:
        matching = Matching()
        if self._operator() in ("on", "ignoring"):
            matching = Matching(self._take().text.lower() == "on", self._label_list())
            if self._operator() in ("group_left", "group_right"):
                if operator in SET_OPERATORS:
                    raise ExpressionError(f"no grouping allowed for {operator!r} operation")
                many: Literal["left", "right"] = "left" if self._take().text.lower() == "group_left" else "right"
                include = self._label_list() if self._operator() == "(" else ()
                matching = replace(matching, many=many, include=include)
        return matching

    def _label_list(self) -> tuple[str, ...]:
        self._must("(")
        labels = []
        while not self._takes(")"):
            labels.append(self._label())
            if not self._takes(","):
                self._must(")")
                break
        return tuple(labels)

    def _label(self) -> str:
        if self._next.kind != "word" or ":" in self._next.text:
            self._unexpected("a label's name")
        return self._take().text

    def _operand(self) -> Node:
        if self._operator() in ("-", "+"):
            is_negative = self._take().text == "-"
            operand = self.expression(_UNARY)
            if type_of(operand) not in ("scalar", "instant vector"):
                raise ExpressionError("unary expression only allowed on expressions of type scalar or instant vector")
            return Negative(operand) if is_negative else operand
        is_bare = self._next.text != "("
        return self._with_range(self._primary(), is_bare=is_bare)

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "number":
            return Number(number(self._take().text))
        if token.kind == "string":
            return Text(unquoted(self._take().text))
        if self._takes("("):
            inner = self.expression(0)
            self._must(")")
            return inner
        if token.text != "{" and token.kind != "word":
            self._unexpected("an expression")
        return self._named()

    def _named(self) -> Node:
        token, after = self._next, self._tokens[min(self._at + 1, len(self._tokens) - 1)].text.lower()
        word = token.text.lower()
        if word in ("inf", "nan") and after not in ("{", "("):
            return Number(float(self._take().text))
        if word in AGGREGATIONS and after in ("(", "by", "without"):
            return self._aggregate(self._take().text.lower())
        if token.kind == "word" and after == "(":
            return self._call(self._take())
        return self._selector()

    def _selector(self) -> Selector:
        matchers = []
        if self._next.kind == "word":
            matchers.append(Matcher("__name__", "=", self._take().text))
        if self._takes("{"):
            while not self._takes("}"):
                matchers.append(self._matcher())
                if not self._takes(","):
                    self._must("}")
                    break
        if all(_matches_empty(matcher) for matcher in matchers):
            raise ExpressionError("vector selector must contain at least one non-empty matcher")
        if sum(matcher.label == "__name__" and matcher.operator == "=" for matcher in matchers) > 1:
            raise ExpressionError("metric name must not be set twice")
        return Selector(tuple(matchers))

    def _matcher(self) -> Matcher:
        label = self._label()
        operator = self._next.text
        if operator not in ("=", "!=", "=~", "!~"):
            self._unexpected("=, !=, =~ or !~")
        self._take()
        if self._next.kind != "string":
            self._unexpected("a string")
        value = unquoted(self._take().text)
        if operator in ("=~", "!~"):
            check_regex(value)
        return Matcher(label, cast("MatchOperator", operator), value)

    def _with_range(self, node: Node, *, is_bare: bool) -> Node:
        """A selector with the range and the offset that follow it; one in parentheses has none."""
        if self._takes("["):
            range_ms = self._duration()
            if self._next.text.startswith(":"):
                raise unsupported("a subquery, [range:step],")
            self._must("]")
            if not isinstance(node, Selector) or not is_bare or node.range_ms is not None:
                raise ExpressionError("ranges only allowed for vector selectors")
            if not range_ms:
                raise ExpressionError("duration must be greater than 0")
            node = replace(node, range_ms=range_ms)
        if self._takes("offset"):
            sign = -1 if self._takes("-") else 1
            if not isinstance(node, Selector) or not is_bare:
                raise ExpressionError("offset modifier must be preceded by an instant or range selector")
            node = replace(node, offset_ms=sign * self._duration())
        if self._next.text == "@":
            raise unsupported("the modifier @")
        return node

    def _duration(self) -> int:
        if self._next.kind != "duration":
            self._unexpected("a duration")
        return duration_ms(self._take().text)

    def _aggregate(self, operation: str) -> Aggregate:
        grouping = self._grouping()
        arguments = self._arguments()
        grouping = grouping or self._grouping() or ((), False)
        wanted = 2 if operation in PARAMETERS else 1
        if len(arguments) != wanted:
            raise ExpressionError(f"{operation} wants {wanted} argument(s), got {len(arguments)}")
        *parameter, argument = arguments
        _check_type(argument, "instant vector", f"aggregation {operation}")
        if parameter:
            _check_type(parameter[0], "scalar", f"the parameter of {operation}")
        return Aggregate(operation, argument, parameter[0] if parameter else None, *grouping)

    def _grouping(self) -> tuple[tuple[str, ...], bool] | None:
        if self._operator() not in ("by", "without"):
            return None
        is_without = self._take().text.lower() == "without"
        return self._label_list(), is_without

    def _arguments(self) -> tuple[Node, ...]:
        self._must("(")
        arguments: list[Node] = []
        while not self._takes(")"):
            arguments.append(self.expression(0))
            if not self._takes(","):
                self._must(")")
                break
        return tuple(arguments)

    def _call(self, token: Token) -> Call:
        name = token.text
        if name in UNSUPPORTED_FUNCTIONS:
            raise unsupported(f"the function {name}")
        if name not in FUNCTIONS:
            raise ExpressionError(f"1:{token.column}: parse error: unknown function with name {name!r}")
        signature, arguments = FUNCTIONS[name], self._arguments()
        if not signature.least <= len(arguments) <= len(signature.arguments):
            raise ExpressionError(f"wrong number of arguments in call to {name}: {len(arguments)}")
        for argument, wanted in zip(arguments, signature.arguments, strict=False):
            _check_type(argument, wanted, f"call to function {name!r}")
        return Call(name, arguments)


def _check_type(node: Node, wanted: ValueType, where: str) -> None:
    if type_of(node) != wanted:
        raise ExpressionError(f"expected type {wanted} in {where}, got {type_of(node)}")


def _matches_empty(matcher: Matcher) -> bool:
    return matches(matcher, [""])[0]
