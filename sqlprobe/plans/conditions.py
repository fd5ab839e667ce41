"""
Conditions: what PostgreSQL prints of a filter, an index condition, a sort key or an index's predicate, as a tree.

PostgreSQL writes these texts itself, from its own parse tree, with every operator in parentheses; so a tokenizer and a
small parser read them exactly. What they do not know becomes an expression of kind "other", of which no rule claims
anything. `masked()` replaces constants: everything that leaves the process has gone through it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

MAX_TEXT: Final = 200_000  # characters of one condition that are parsed: an IN list of ten thousand keys
MAX_DEPTH: Final = 120  # of nested parentheses; below Python's own limit, far above what people write
_MAX_KEY: Final = 63  # characters of a JSON key that is shown: as long as a column's name may be
_MAX_KEY_DIGITS: Final = 2  # address_line_2 is a name; a key with more of them is an id or a number

Kind = Literal[
    "column", "constant", "parameter", "call", "cast", "operator", "any", "and", "or", "not", "test", "subscript",
    "collate", "row", "array", "case", "subplan", "other",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """
    A node of a condition.

    `text` is what PostgreSQL printed, constants included: never let it leave the process unmasked. `name` is the
    column's, function's, type's, operator's or test's ("IS NULL"); of an "any" it is the operator, with " ALL" behind
    it where all elements have to match. `qualifier` is a column's table, schema or alias. `parts` are the operands.
    """

    kind: Kind
    text: str = field(repr=False)
    name: str = ""
    qualifier: str = ""
    parts: tuple[Expression, ...] = field(default=(), repr=False)

    def walk(self) -> Iterator[Expression]:
        """This expression and everything in it, outermost first."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def columns(self) -> tuple[Expression, ...]:
        """The columns in it, each once, as `(qualifier, name)` tells them apart."""
        found = {(each.qualifier, each.name): each for each in self.walk() if each.kind == "column"}
        return tuple(found.values())

    @property
    def is_constant(self) -> bool:
        """Whether its value is known when the plan is made: constants, and what is made of nothing else."""
        return self.kind == "constant" or (
            self.kind in {"cast", "array", "row", "operator", "collate"}
            and bool(self.parts)
            and all(part.is_constant for part in self.parts)
        )

    @property
    def is_known(self) -> bool:
        """Whether every part of it was understood."""
        return not any(each.kind in {"other", "subplan", "case"} for each in self.walk())

    def bare(self) -> Expression:
        """The expression below casts and collations."""
        inner = self
        while inner.kind in {"cast", "collate"} and inner.parts:
            inner = inner.parts[0]
        return inner

    @property
    def masked(self) -> str:
        """`text` without its constants."""
        return masked(self.text)


@dataclass(frozen=True, slots=True)
class Predicate:
    """
    One test of one row: `key` is what an index could hold, `operator` what is asked of it, `value` what it is compared
    with (None for tests such as IS NULL).

    A comparison is turned so that the constant, or another table's value, is on the right: `5 < x` is `x > 5`. `turned`
    says that it was. `operator` is SQL's as PostgreSQL prints it (`~~` is LIKE), "= ANY" for IN, "ANY =" for
    `5 = ANY (column)`, "IS NULL", "TRUE" and "FALSE" for a boolean by itself.
    """

    key: Expression
    operator: str
    value: Expression | None
    source: Expression
    turned: bool = False

    @property
    def column(self) -> str:
        """The key's column where the key is that and nothing else (a relabelling cast of text aside), else ""."""
        return self.key.name if self.key.kind == "column" else ""

    @property
    def is_equality(self) -> bool:
        return self.operator in {"=", "= ANY", "IS NULL", "TRUE", "FALSE"}

    @property
    def is_range(self) -> bool:
        return self.operator in {"<", "<=", ">", ">="}


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an ORDER BY. `nulls_first` is what is in force, whether or not it was printed."""

    expression: Expression
    descending: bool
    nulls_first: bool


# --- tokens -----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""\s*+(?:
      (?P<string>[eE]'(?:[^'\\]|\\.|'')*+'|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*+')
    | (?P<number>(?:\d[\d_]*+(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+)
    | (?P<parameter>\$\d++)
    | (?P<word>[^\W\d][\w$]*+|"(?:[^"]|"")*+")
    | (?P<cast>::)
    | (?P<operator>[-+*/<>=~!@\#%^&|`?]++)
    | (?P<mark>[()\[\],.:;{}])
    | (?P<rest>\S)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a condition's text: its kind, the text itself, and where it starts and ends."""

    kind: str
    text: str = field(repr=False)
    start: int
    end: int

    @property
    def word(self) -> str:
        """In capitals, if it is a bare word."""
        return self.text.upper() if self.kind == "word" and self.text[0] != '"' else ""


def tokens(text: str) -> list[Token]:
    """*text* cut into tokens; blanks are between them."""
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "rest"
        found.append(Token(kind, match[kind], match.start(kind), match.end(kind)))
    return found


# --- masking ----------------------------------------------------------------------------------------------------------

_JSON_OPERATORS: Final = frozenset({"->", "->>", "#>", "#>>", "?", "?|", "?&"})
_NAMED_OBJECTS: Final = frozenset(
    {"regconfig", "regdictionary", "regclass", "regtype", "regproc", "regprocedure", "regoper", "regcollation"}
)
_MOMENTS: Final = frozenset(
    [
        "microseconds",
        "milliseconds",
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "quarter",
        "year",
        "decade",
        "century",
        "millennium",
        "dow",
        "doy",
        "epoch",
        "isodow",
        "isoyear",
    ]
)
_TAKE_MOMENTS: Final = frozenset({"date_trunc", "date_part"})
_NUMBERED: Final = frozenset({"INITPLAN", "SUBPLAN", "CTE"})
_WORDS_OF_TYPES: Final = frozenset(
    [
        "VARYING",
        "PRECISION",
        "WITH",
        "WITHOUT",
        "TIME",
        "ZONE",
        "YEAR",
        "MONTH",
        "DAY",
        "HOUR",
        "MINUTE",
        "SECOND",
        "TO",
    ]
)
_KEY: Final = re.compile(r"[^\W\d][\w .:/-]*")


def masked(text: str) -> str:
    """
    *text* with every constant replaced by `?`.

    What stays names the schema and not a row: casts and their lengths, the keys of JSON operators and subscripts where
    they look like names, text search configurations, units of time, TRUE, FALSE and NULL.
    """
    found = tokens(text)
    out: list[str] = []
    at = 0
    for index, token in enumerate(found):
        if token.kind in {"string", "number"} and not _stays(found, index):
            out += (text[at : token.start], "?")
            at = token.end
        elif token.kind == "rest":  # a quote that is never closed, or what no expression has
            return "".join(out) + text[at : token.start] + "?"
    out.append(text[at:])
    return "".join(out)


def _stays(found: list[Token], index: int) -> bool:
    """Whether the constant at *index* names something of the schema."""
    token = found[index]
    before = found[index - 1] if index else None
    if token.kind == "number":
        return before is not None and (before.word in _NUMBERED or _in_type(found, index))
    value = token.text[1:-1]
    after = [each.text for each in found[index + 1 : index + 5]]
    if after[:1] == ["::"] and (after[1:2] and after[1] in _NAMED_OBJECTS):
        return True
    if after[:4:2] == ["::", "."] and after[3:4] and after[3] in _NAMED_OBJECTS:  # pg_catalog.regconfig
        return True
    if before is None or token.text[0] != "'":
        return False
    if before.text == "[" and index > 1 and (found[index - 2].text in {")", "]"} or found[index - 2].kind == "word"):
        return found[index - 2].word != "ARRAY" and _is_key(value)
    if before.kind == "operator" and before.text in _JSON_OPERATORS:
        return _is_key(value)
    if before.text == "(" and index > 1 and found[index - 2].text in _TAKE_MOMENTS:
        return value in _MOMENTS
    return False


def _is_key(value: str) -> bool:
    """Whether a JSON key, or a path of them, looks like a name that a programmer wrote."""
    if value.startswith("{") and value.endswith("}"):
        steps = value[1:-1].split(",")
        return all((step.isdecimal() and len(step) <= _MAX_KEY_DIGITS) or _is_key(step) for step in steps)
    digits = sum(character.isdigit() for character in value)
    return len(value) <= _MAX_KEY and digits <= _MAX_KEY_DIGITS and _KEY.fullmatch(value) is not None


def _in_type(found: list[Token], index: int) -> bool:
    """Whether the number at *index* is a type's length: `::numeric(10,2)`."""
    at = index - 1
    while at >= 0 and (found[at].text == "," or found[at].kind == "number"):
        at -= 1
    if at < 1 or found[at].text != "(":
        return False
    at -= 1
    words = 0
    while at >= 0 and (found[at].kind == "word" or found[at].text == "."):
        words += 1
        at -= 1
    return words > 0 and at >= 0 and found[at].kind == "cast"


def without_qualifiers(text: str, qualifiers: Iterable[str]) -> str:
    """*text* with `alias.` taken off its columns, for each alias of *qualifiers*: what an index definition holds."""
    names = {_plain(name) for name in qualifiers if name}
    found = tokens(text)
    out: list[str] = []
    at = 0
    for index, token in enumerate(found):
        if (
            token.kind == "word"
            and _plain(token.text) in names
            and index + 1 < len(found)
            and found[index + 1].text == "."
            and (index == 0 or (found[index - 1].text != "." and found[index - 1].kind != "cast"))
        ):
            out.append(text[at : token.start])
            at = found[index + 1].end
    out.append(text[at:])
    return "".join(out)


def _plain(name: str) -> str:
    """The name itself, without the quotes that it may be printed with."""
    return name[1:-1].replace('""', '"') if name[:1] == '"' and name[-1:] == '"' and len(name) > 1 else name


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> Expression:
    """The expression that *text* prints. Of kind "other" where it cannot be read whole."""
    if len(text) > MAX_TEXT:
        return Expression("other", text)
    parser = _Parser(text)
    try:
        expression = parser.expression(0)
    except (_Unreadable, RecursionError):
        return Expression("other", text)
    return expression if parser.at_end else Expression("other", text)


def parse_sort_key(text: str) -> SortKey:
    """What one entry of a plan's "Sort Key" says."""
    found = tokens(text)
    words = [token.word for token in found]
    end = len(found)
    nulls_first: bool | None = None
    if words[-2:] in (["NULLS", "FIRST"], ["NULLS", "LAST"]):
        nulls_first = words[-1] == "FIRST"
        end -= 2
    descending = False
    if end and words[end - 1] in {"DESC", "ASC"}:
        descending = words[end - 1] == "DESC"
        end -= 1
    elif end > 1 and words[end - 2] == "USING" and found[end - 1].kind == "operator":
        descending = found[end - 1].text.startswith((">", "~>"))
        end -= 2
    inner = text[: found[end - 1].end] if end else ""
    return SortKey(parse(inner), descending, descending if nulls_first is None else nulls_first)


def conjuncts(expression: Expression) -> tuple[Expression, ...]:
    """The tests of which each must hold."""
    if expression.kind == "and":
        return tuple(each for part in expression.parts for each in conjuncts(part))
    return (expression,)


_TURNED: Final[Mapping[str, str]] = {
    "=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<=", "@>": "<@", "<@": "@>", "&&": "&&",
    "<->": "<->", "<=>": "<=>", "<#>": "<#>", "<+>": "<+>", "@@": "@@",
}  # fmt: skip


def predicate_of(expression: Expression, own: Collection[str] | None = None) -> Predicate | None:
    """
    What *expression* tests, or None where it is no single test that an index could answer by itself (OR, CASE, two
    columns of one table compared, something unknown).

    *own* are the names of the relation that is asked about: another one's columns are values, as in a join. Without
    it every column is the relation's.
    """

    def has(part: Expression) -> bool:
        return any(own is None or column.qualifier in own for column in part.columns)

    if expression.kind in {"column", "call"}:
        return Predicate(expression, "TRUE", None, expression) if has(expression) else None
    if expression.kind == "not":
        inner = expression.parts[0]
        return Predicate(inner, "FALSE", None, expression) if inner.kind == "column" and has(inner) else None
    if expression.kind == "test" and has(expression):
        return Predicate(expression.parts[0], expression.name, None, expression)
    if expression.kind not in {"any", "operator"} or len(expression.parts) != 2:  # noqa: PLR2004 - two operands
        return None
    left, right = expression.parts
    if has(left) == has(right) or not left.is_known or not (right.is_known or right.kind == "subplan"):
        return None
    if expression.kind == "any":
        operator, _, every = expression.name.partition(" ")
        if has(left):
            return Predicate(left, f"{operator} {every or 'ANY'}", right, expression)
        return Predicate(right, f"{every or 'ANY'} {operator}", left, expression, turned=True)
    if has(left):
        return Predicate(left, expression.name, right, expression)
    if expression.name in _TURNED:
        return Predicate(right, _TURNED[expression.name], left, expression, turned=True)
    return None


class _Unreadable(Exception):  # noqa: N818 - never leaves this module
    """The text is not what PostgreSQL prints, or something that this parser does not know."""


# How tight an operator binds: PostgreSQL's own order. What it prints is in parentheses; definitions by hand are not.
_OR, _AND, _NOT, _IS, _COMPARE, _OTHER, _SUM, _PRODUCT, _POWER, _AT, _COLLATE = range(1, 12)
_COMPARISONS: Final = frozenset({"=", "<", ">", "<=", ">=", "<>", "!="})
_SEPARATORS: Final = frozenset({"FROM", "FOR", "IN", "PLACING", "BOTH", "LEADING", "TRAILING", "SIMILAR", "ESCAPE"})
_VALUES: Final = frozenset(
    [
        "CURRENT_DATE",
        "CURRENT_TIME",
        "CURRENT_TIMESTAMP",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "CURRENT_USER",
        "CURRENT_ROLE",
        "SESSION_USER",
        "USER",
        "CURRENT_CATALOG",
        "CURRENT_SCHEMA",
    ]
)
_TESTS: Final = frozenset({"NULL", "TRUE", "FALSE", "UNKNOWN"})


class _Parser:
    """Reads one text from left to right; each method leaves `at` behind what it has read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0

    @property
    def at_end(self) -> bool:
        return self.at >= len(self.tokens)

    def peek(self, ahead: int = 0) -> Token | None:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def word(self, ahead: int = 0) -> str:
        token = self.peek(ahead)
        return token.word if token is not None else ""

    def is_mark(self, mark: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.text == mark and token.kind in {"mark", "operator", "cast"}

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise _Unreadable
        self.at += 1
        return token

    def expect(self, mark: str) -> Token:
        if not self.is_mark(mark):
            raise _Unreadable
        return self.take()

    def span(self, first: int) -> str:
        """The text from token *first* up to here."""
        return self.text[self.tokens[first].start : self.tokens[self.at - 1].end]

    def expression(self, tightness: int) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unreadable
        first = self.at
        left = self.suffixes(self.operand(), first)
        while True:
            more = self.infix(left, first, tightness)
            if more is None:
                break
            left = more
        self.depth -= 1
        return left

    # An operand and what hangs on it

    def operand(self) -> Expression:
        first = self.at
        token = self.take()
        if token.kind in {"string", "number"}:
            return Expression("constant", token.text)
        if token.kind == "parameter":
            return Expression("parameter", token.text)
        if token.kind == "operator":
            inner = self.expression(_POWER)
            return Expression("operator", self.span(first), token.text, parts=(inner,))
        if token.text == "(":
            return self.parenthesised(first)
        if token.kind != "word":
            raise _Unreadable
        return self.worded(token, first)

    def suffixes(self, left: Expression, first: int) -> Expression:
        while True:
            if self.is_mark("::"):
                self.take()
                name = self.type_name()
                kind: Kind = "constant" if left.kind == "constant" else "cast"
                parts = () if kind == "constant" else (left,)
                left = Expression(kind, self.span(first), name, parts=parts)
            elif self.is_mark("["):
                self.take()
                keys = [] if self.is_mark("]") else self.list_until("]", {":"})
                self.expect("]")
                left = Expression("subscript", self.span(first), parts=(left, *keys))
            elif self.is_mark(".") and left.kind in {"subplan", "row", "column", "call", "cast"}:
                self.take()  # (InitPlan 1).col1, or a field of a composite value
                token = self.take()
                if token.kind != "word" and token.text != "*":
                    raise _Unreadable
                if left.kind == "subplan":
                    left = replace(left, text=self.span(first))
                else:
                    left = Expression("call", self.span(first), f".{token.text}", parts=(left,))
            else:
                return left

    def parenthesised(self, first: int) -> Expression:
        if self.word() in {"INITPLAN", "SUBPLAN", "HASHED", "ALTERNATIVES", "RESCAN"}:
            self.skip_to_close()
            return Expression("subplan", self.span(first), parts=())
        inner = self.expression(0)
        if self.is_mark(","):
            self.take()
            items = (inner, *self.list_until(")"))
            self.expect(")")
            return Expression("row", self.span(first), parts=items)
        self.expect(")")
        return replace(inner, text=self.span(first))

    def worded(self, token: Token, first: int) -> Expression:
        word = token.word
        if word == "NOT":
            inner = self.expression(_NOT)
            return Expression("not", self.span(first), parts=(inner,))
        if word in {"TRUE", "FALSE", "NULL"}:
            return Expression("constant", token.text, "boolean" if word != "NULL" else "")
        if word == "CASE":
            return self.case(first)
        if word == "ARRAY" and self.is_mark("["):
            self.take()
            items = [] if self.is_mark("]") else self.list_until("]")
            self.expect("]")
            return Expression("array", self.span(first), parts=tuple(items))
        if word == "ROW" and self.is_mark("("):
            self.take()
            items = [] if self.is_mark(")") else self.list_until(")")
            self.expect(")")
            return Expression("row", self.span(first), parts=tuple(items))
        if word in {"EXISTS", "ANY", "ALL", "ARRAY"} and self.is_mark("("):
            self.take()
            self.skip_to_close()
            return Expression("subplan", self.span(first))
        if word in {"PARTIAL", "FINALIZE"} and self.peek() is not None and self.take().kind == "word":
            self.at -= 1
            return replace(self.worded(self.take(), self.at - 1), text=self.text[token.start : token.end])
        if word in _VALUES and not self.is_mark("."):
            if self.is_mark("("):
                self.take()
                self.skip_to_close()
            return Expression("call", self.span(first), word.lower())
        return self.named(token, first)

    def named(self, token: Token, first: int) -> Expression:
        chain = [token.text]
        while self.is_mark("."):
            after = self.peek(1)
            if after is None or (after.kind != "word" and after.text != "*"):
                raise _Unreadable
            self.take()
            chain.append(self.take().text)
        if self.is_mark("("):
            return self.call(_plain(chain[-1]), first)
        return Expression("column", self.span(first), _plain(chain[-1]), ".".join(map(_plain, chain[:-1])))

    def call(self, name: str, first: int) -> Expression:
        self.expect("(")
        parts: list[Expression] = []
        if name.lower() == "extract" and self.word(1) == "FROM":
            field_token = self.take()
            parts.append(Expression("constant", f"'{field_token.text.lower()}'"))
            self.take()
        if not self.is_mark(")"):
            parts += self.list_until(")", _SEPARATORS)
        self.expect(")")
        while self.word() in {"FILTER", "OVER", "WITHIN", "IGNORE", "RESPECT"}:
            word = self.take().word
            if word in {"IGNORE", "RESPECT"} or (word == "WITHIN" and self.word() == "GROUP"):
                self.take()
            if self.is_mark("("):
                self.take()
                self.skip_to_close()
            elif word == "OVER":
                self.take()
        return Expression("call", self.span(first), name.lower(), parts=tuple(parts))

    def case(self, first: int) -> Expression:
        parts: list[Expression] = []
        while self.word() != "END":
            if self.word() in {"WHEN", "THEN", "ELSE"}:
                self.take()
                continue
            parts.append(self.expression(0))
        self.take()
        return Expression("case", self.span(first), parts=tuple(parts))

    def list_until(self, mark: str, separators: Iterable[str] = ()) -> list[Expression]:
        """Expressions with commas between them, or words as in SUBSTRING(x FROM 1 FOR 3)."""
        items: list[Expression] = []
        while not self.is_mark(mark):
            token = self.peek()
            if token is None:
                raise _Unreadable
            if (
                token.text == ","
                or token.text in separators
                or token.word in separators
                or token.word in {"DISTINCT", "VARIADIC"}
            ):
                self.take()
            elif token.word == "ORDER" and self.word(1) == "BY":
                # Of an aggregate: what it sorts by is no argument.
                while not self.is_mark(mark):
                    if self.take().text == "(":
                        self.skip_to_close()
            elif token.text == "*" and self.is_mark(mark, 1):
                self.take()
            else:
                if token.kind == "word" and self.is_mark("=>", 1):  # a named argument
                    self.at += 2
                items.append(self.expression(0))
        return items

    def skip_to_close(self) -> None:
        """Past the parenthesis that closes the one just read."""
        open_ones = 1
        while open_ones:
            text = self.take().text
            open_ones += (text == "(") - (text == ")")

    def type_name(self) -> str:
        first = self.at
        if self.take().kind != "word":
            raise _Unreadable
        if self.is_mark("."):
            self.take()
            if self.take().kind != "word":
                raise _Unreadable
        while True:
            if self.word() in _WORDS_OF_TYPES and not (self.word() == "TIME" and self.word(1) not in {"ZONE", ""}):
                self.take()
            elif self.is_mark("(") and self.peek(1) is not None and self._is_number(1):
                while self.take().text != ")":
                    pass
            elif self.is_mark("[") and self.is_mark("]", 1):
                self.at += 2
            else:
                return self.span(first)

    def _is_number(self, ahead: int) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind == "number"

    # What stands between two operands

    def infix(self, left: Expression, first: int, tightness: int) -> Expression | None:
        token = self.peek()
        if token is None:
            return None
        word = token.word
        if word in {"AND", "OR"}:
            bound = _AND if word == "AND" else _OR
            if tightness >= bound:
                return None
            self.take()
            right = self.expression(bound)
            kind: Kind = "and" if word == "AND" else "or"
            mine = left.parts if left.kind == kind and not left.text.startswith("(") else (left,)
            return Expression(kind, self.span(first), parts=(*mine, right))
        if word == "IS" and tightness < _IS:
            return self.test(left, first)
        if word == "COLLATE" and tightness < _COLLATE:
            self.take()
            chain = [self.take().text]
            while self.is_mark("."):
                self.take()
                chain.append(self.take().text)
            return Expression("collate", self.span(first), _plain(chain[-1]), parts=(left,))
        if word == "AT" and self.word(1) == "TIME" and self.word(2) == "ZONE" and tightness < _AT:
            self.at += 3
            right = self.expression(_AT)
            return Expression("call", self.span(first), "timezone", parts=(right, left))
        if word == "AT" and self.word(1) == "LOCAL" and tightness < _AT:
            self.at += 2
            return Expression("call", self.span(first), "timezone", parts=(left,))
        return self.operator(left, first, tightness, token)

    def operator(self, left: Expression, first: int, tightness: int, token: Token) -> Expression | None:
        start = self.at
        if token.word == "OPERATOR" and self.is_mark("(", 1):
            self.at += 2
            name = self.take()
            while self.is_mark("."):
                self.take()
                name = self.take()
            self.expect(")")
            symbol, bound = name.text, _OTHER
        elif token.kind == "operator":
            self.take()
            symbol, bound = token.text, _tightness(token.text)
        else:
            return None
        if tightness >= bound:
            self.at = start
            return None
        if self.word() in {"ANY", "ALL", "SOME"} and self.is_mark("(", 1):
            every = self.take().word == "ALL"
            self.take()
            if self.word() in {"SUBPLAN", "HASHED"}:
                self.skip_to_close()
                return Expression("subplan", self.span(first), parts=(left,))
            right = self.expression(0)
            self.expect(")")
            return Expression("any", self.span(first), f"{symbol} ALL" if every else symbol, parts=(left, right))
        right = self.expression(bound)
        return Expression("operator", self.span(first), symbol, parts=(left, right))

    def test(self, left: Expression, first: int) -> Expression:
        self.take()
        negated = self.word() == "NOT"
        if negated:
            self.take()
        start = "IS NOT" if negated else "IS"
        word = self.take().word
        if word in _TESTS:
            return Expression("test", self.span(first), f"{start} {word}", parts=(left,))
        if word == "DISTINCT" and self.take().word == "FROM":
            right = self.expression(_COMPARE)
            return Expression("operator", self.span(first), f"{start} DISTINCT FROM", parts=(left, right))
        raise _Unreadable


def _tightness(operator: str) -> int:
    if operator in _COMPARISONS:
        return _COMPARE
    return {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT, "^": _POWER}.get(operator, _OTHER)
