"""
What a statement is, whatever its values: its fingerprint, its text for people, its operations and tables.

One regular expression cuts a text into tokens, one pass writes the normalised ones. It is no parser: it knows where a
table may stand and which lists fold, and takes any text, valid or not. No repetition in the expression can be undone
to any use, so that no input makes it walk a stretch again and again.
"""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final

from sqlalchemy.sql.compiler import RESERVED_WORDS  # what made SQLAlchemy quote a lower-case name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_TEXT: Final = 4096  # characters: an ORM select of a hundred columns is whole, 5,000 statements are 20 MB at most
MAX_SUMMARY: Final = 255  # characters: OpenTelemetry's limit for db.query.summary
MAX_TOKENS: Final = 16_384  # 10 to 20 ms of work; only a script, or a list that does not fold, has more
_LONG: Final = 4096  # characters from which it pays to look for runs of constants
_MAX_ITEM: Final = 512  # tokens of a row or list item that is compared with others: wide tables have 250 columns


@dataclass(frozen=True, slots=True)
class Shape:
    """
    A statement without its values.

    `fingerprint` is 16 hexadecimal digits, the same in every run and process. `text` is at most `MAX_TEXT` characters,
    "…" at its end if cut; `summary` is OpenTelemetry's `db.query.summary`, at most 255, cut between tokens.
    `operation` is in upper case, of `WITH` the main statement's, "" if there is none. `tables` are distinct, in order
    of appearance, as written less needless quotes; common table expressions and functions are none.
    """

    fingerprint: str
    text: str
    summary: str
    operation: str
    tables: tuple[str, ...]


def shape_of(text: str) -> Shape:
    """
    Reduce *text* to what does not depend on its values, on who wrote it or on the driver that carries it.

    Literals and placeholders become `?`, a placeholder's cast goes (asyncpg writes `$1::INTEGER`, psycopg2 does not;
    a bare `?` keeps its cast, for no driver adds one there). Lists after IN, VALUES and ARRAY fold to what differs in
    them. Double quotes always mean a name, as in standard SQL: MySQL's "strings" stay. Takes about 0.1 us a character,
    in a long list of constants 0.02 to 0.08. What follows the 16,384th token (a long run of constants is one) is not
    looked at: texts that begin alike that far are equal. Never raises.
    """
    if not isinstance(text, str):
        text = bytes(text).decode("utf-8", "replace") if isinstance(text, (bytes, bytearray, memoryview)) else str(text)
    if "#" in text:
        text = "\n" + text  # so that a line begins there, too
    reader = _Reader(text)
    if len(text) <= _LONG and not ("$" in text and _find_tag(text)):
        reader.read(_short.findall(text))
    else:
        reader.read(_tokens(text, long_texts()))
    return reader.shape()


# Ends a repeated group: possessive ones match wrongly before CPython 3.11.5 (gh-106052). Greedy ones tell the same
# here, for what follows each is what it cannot contain, or nothing; they take more memory, and a tenth more time.
_P = "+" if sys.version_info >= (3, 11, 5) else ""

# A comment may hold comments in PostgreSQL, four deep here; elsewhere, and if unbalanced, the first */ ends it.
_COMMENT = rf"/\*(?:[^*/]++|\*(?!/)|/(?!\*))*{_P}\*/"
for _ in range(3):
    _COMMENT = rf"/\*(?:[^*/]++|\*(?!/)|/(?!\*)|{_COMMENT})*{_P}\*/"
_COMMENT += rf"|/\*(?:[^*]++|\*(?!/))*{_P}(?:\*/|\Z)"
_BLANKS = r"[ \t\r\f\v\x1f]*+"
# MySQL's # is a comment for sure only where a line begins: a # b is PostgreSQL's exclusive or.
_SKIP = rf"{_BLANKS}(?:(?:\n++{_BLANKS}(?:\#(?![>\#-])[^\n]*+)?|--[^\n]*+|{_COMMENT}){_BLANKS})*{_P}"

_WORD = r"[^\W\d][\w$]*+"
_PART = rf'{_WORD}|"[^"]*+(?:""[^"]*+)*{_P}"|`[^`]*+`|\[[^\W\d][\w $]*+\]'
_BRACKETED = r"\[[^\[\]\n]*+\]"  # after a dot it is a name for sure, elsewhere it may be a subscript
_NAME = rf"(?:{_PART})(?:\s*+\.\s*+(?:{_PART}|{_BRACKETED}|\*))*{_P}"
_PLAIN_STRING = rf"'[^']*+(?:''[^']*+)*{_P}(?:'|\Z)"
_PREFIXED = rf"[eE]'(?:[^'\\]++|''|\\.?)*{_P}(?:'|\Z)|[bBxXnN]{_PLAIN_STRING}|[uU]&{_PLAIN_STRING}"
_DOLLAR = r"\$\$.*?(?:\$\$|\Z)"
_TAGGED = r"\$(?P<tag>[^\W\d]\w*+)\$.*?(?:\$(?P=tag)\$|\Z)"
_NUMBER = r"(?:0[xX][\da-fA-F_]++|(?:\d[\d_]*+(?:\.[\d_]*+)?|\.\d[\d_]*+)(?:[eE][+-]?\d++)?)\w*+"
_EXPANDING = rf"__\[POSTCOMPILE_[^\]~\s]++(?:~~(?:[^~]|~(?!~))*{_P}~~REPL~~(?:[^~]|~(?!~))*{_P}~~)?\]"
_TYPE = (
    rf'(?i:(?:{_WORD}|"[^"]*+")(?:\.(?:{_WORD}|"[^"]*+"))?(?:\s++(?:precision|varying)\b)?'
    rf"(?:\s*+\([\w\s,?]*+\))?(?:\s++with(?:out)?\s++time\s++zone\b)?(?:\s*+\[[\d?]*+\])*{_P})"
)
# What no operator looks like, with the cast of the driver's dialect.
_PLACEHOLDER = rf"(?:\$\d++|%s\b|%\([^()]*+\)[sbt]\b)(?:\s*+::\s*+{_TYPE})*{_P}"
_SIGIL = rf'{_PLACEHOLDER}|%[bt]\b|%%|\?\d++|\?[|&](?![|&])|:"[^"]*+"|:\w++|@[^\W\d]\w*+'
# A longer operator is several tokens: nothing depends on it.
_OPERATOR = r"->>?|<->|<=>|<\#>|<\+>|<@|<[=>]|>=|!=|!~~?\*?|~~?\*?|\#>>?|\#-|@>|@\?|@@|\|\||&&|:=|=>"
_TOKEN = (
    rf"{_EXPANDING}|{_PREFIXED}|{_NAME}|::\s*+{_TYPE}|{_PLAIN_STRING}|{_OPERATOR}|{_DOLLAR}|{_SIGIL}|{_NUMBER}|.|\Z"
)
_CONSTANT = rf"(?>(?:{_PLACEHOLDER}|:\w++|\?\d*+)(?!\s*+::)|-?{_NUMBER}|[bBxXnN]?{_PLAIN_STRING})"
_FIELD = rf"(?:{_CONSTANT}|(?i:null|true|false|default)\b)"
# Rows or items that follow the first, with the comma or parenthesis on either side.
_RUN = (
    rf"\)(?:\s*+,\s*+\(\s*+{_FIELD}(?:\s*+,\s*+{_FIELD})*{_P}\s*+\)){{8,}}{_P}"
    rf"|,(?:\s*+{_CONSTANT}\s*+,){{8,}}{_P}"
)
_short: Final = re.compile(rf"{_SKIP}({_TOKEN})", re.DOTALL)
_constant_in: Final = re.compile(_CONSTANT).sub
_find_rows: Final = re.compile(r"\([^()]*+\)").findall
_find_tag: Final = re.compile(r"\$[^\W\d]").search
_find_odd: Final = re.compile(r"['\"`\[\s]").search
_ODD: Final = ("'", '"', "`", "[", " .", ". ", "\n.", ".\n")
_find_parts: Final = re.compile(rf"{_PART}|{_BRACKETED}|\*").findall
_is_plain: Final = re.compile(r"[a-z_][a-z0-9_$]*").fullmatch
_is_word_string: Final = re.compile(r"'\w[\w ]*'").fullmatch
_number_in_name: Final = re.compile(r"_?\d+").sub
_type_modifier: Final = re.compile(r"(?<![\w$])\d+").sub
_blanks: Final = re.compile(r" ?([:(),\[\]]) ?").sub
_GAP: Final = "\x1f"  # between normalised tokens: a blank may be within one


@functools.cache
def long_texts() -> re.Pattern[str]:
    """What cuts long texts, and those with tagged quotes: compiled when it is first needed, which takes 10 to 20 ms."""
    return re.compile(rf"{_SKIP}({_RUN}|{_TAGGED}|{_TOKEN})", re.DOTALL)


def _tokens(text: str, expression: re.Pattern[str]) -> Iterator[str]:
    return (match[1] for match in islice(expression.finditer(text), MAX_TOKENS))


# What a token's first character tells; any other begins a word.
_WORD_KIND, _OPERATOR_KIND, _COMMA, _LITERAL, _OPEN, _CLOSE, _SIGIL_KIND, _SQUARE, _SEMICOLON = range(9)
_KINDS: Final = {
    **dict.fromkeys("0123456789'", _LITERAL),
    **dict.fromkeys("=<>!-+*/|&^~#", _OPERATOR_KIND),
    **dict.fromkeys("$%?:@.", _SIGIL_KIND),
    **dict.fromkeys("[]", _SQUARE),
    ",": _COMMA,
    "(": _OPEN,
    ")": _CLOSE,
    ";": _SEMICOLON,
}


class _Aim(Enum):
    """What the next name will be."""

    SOURCE = auto()  # a table that is read, or a function if a parenthesis follows
    TABLE = auto()  # a table that is written or altered: a parenthesis opens its columns
    OBJECT = auto()  # what else a summary names: an index, a procedure
    OWNER = auto()  # the table of an index or trigger, which a summary does not name
    SORT = auto()  # of CREATE, ALTER and DROP: the sort of object
    DEFINITION = auto()  # a common table expression
    SAVEPOINT = auto()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The statements that are known, and what the first name in them is.
_VERBS: Final[dict[str, _Aim | None]] = {
    **dict.fromkeys(_words("insert update merge replace truncate copy lock analyze vacuum"), _Aim.TABLE),
    **dict.fromkeys(_words("call exec execute"), _Aim.OBJECT),
    **dict.fromkeys(_words("create alter drop"), _Aim.SORT),
    **dict.fromkeys(_words("savepoint release"), _Aim.SAVEPOINT),
    **dict.fromkeys(
        _words(
            "abort attach begin checkpoint close cluster comment commit deallocate declare delete describe detach"
            " discard do end explain fetch flush grant import kill listen load move notify optimize pragma prepare"
            " reassign refresh reindex reset revoke rollback security set show start unlisten use values",
        ),
    ),
}
_TAKING_LISTS: Final = _words("update truncate lock analyze vacuum")  # of tables
_READING: Final = _words("select delete update")  # their FROM is a clause
_SORTS: Final[dict[str, _Aim | None]] = {
    **dict.fromkeys(_words("table view"), _Aim.TABLE),
    **dict.fromkeys(
        _words(
            "database domain extension function index policy procedure publication rule schema sequence server"
            " statistics subscription tablespace trigger type",
        ),
        _Aim.OBJECT,
    ),
    **dict.fromkeys(_words("user role login group system")),  # a person's name stays out of summaries
}
_OWNED: Final = _words("index policy rule trigger")  # ON a table
# Words that may stand between a verb and its name.
_PASSED: Final = _words(
    "abort analyze concurrently delayed exists freeze from full high_priority if ignore into lateral low_priority"
    " materialized not only or overwrite quick recursive replace rollback savepoint table to transaction verbose work",
)
_NO_NAMES: Final = _PASSED | _words("as default delete insert on select set update using values where with")
# What is before the first word of a statement.
_STARTS: Final = frozenset(("", ";", "(", ")", "{", "as", "explain", "analyze", "verbose"))
# Words that an operand follows: no binary operator does, and a parenthesis stands apart.
_OPENERS: Final = _words(
    "against all and array as at between both by case check conflict copy cross default distinct do else escape except"
    " exists explain fetch filter for from full glob group having ilike in inner intersect interval into is join key"
    " lateral leading like limit match materialized natural not of offset on or order outer over partition primary"
    " regexp returning rlike select set similar some then to top trailing union unique update using values when where"
    " window with within zone",
)
_OPERANDS: Final = frozenset("$?'")
_OPERAND_ENDS: Final = frozenset(')]_"`')
_QUOTES: Final = frozenset('"`[')
_ALWAYS: Final = (["?", "!=", "?"], ["?", "=", "?"])  # 1 != 1 and 1 = 1
_JOINTS: Final = (
    (f"?{_GAP}:{_GAP}?", "?:?"),
    (f"{_GAP}[{_GAP}", "["),
    (f"({_GAP}", "("),
    (f"[{_GAP}", "["),
    *((_GAP + mark, mark) for mark in (",", ")", "]", ";", "::")),
)


class _Frame:
    """A pair of parentheses or brackets, or a whole statement. The class holds what each begins with."""

    aim: _Aim | None = None
    operation = ""  # of the statement in this frame, in lower case
    sources = False  # the name after a comma is a table
    defines = False  # in the list of a WITH
    definition = ""  # the common table expression that is being written: others see it from its end on
    is_recursive = False
    is_definition = False
    is_owned = False  # CREATE INDEX … ON
    is_membership = False  # IN (…)
    is_row = False  # of VALUES
    is_bracket = False
    rows: set[str] | None = None  # after VALUES: the rows so far
    items: set[str] | None = None  # of a list that folds: the items so far
    item = 0  # index of the current item's first token

    def __init__(self, start: int, named: int) -> None:
        self.start = start  # index of the first token inside
        self.named = named  # length of the summary before


class _Reader:
    """Writes the normalised tokens of one text and notes the operations and tables that go by."""

    __slots__ = (
        "before", "called", "columns", "ctes", "frame", "fresh", "identities", "nulls", "odd", "operation", "out",
        "prev", "stack", "summary", "tables",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self.out: list[str] = []
        self.identities: dict[str, str] = {}  # of the tokens whose identity is not their lower case
        self.prev = ""  # the token before, in lower case; "'" for a literal, "$" for a placeholder other than ?
        self.before = ""  # of an operator: the token before that
        self.frame = _Frame(0, 0)
        self.stack: list[_Frame] = []
        self.operation = ""
        self.summary: list[str] = []
        self.tables: dict[str, str] = {}  # by identity
        self.ctes = {"dual"}  # names that are no tables
        self.called = self.columns = self.nulls = -1  # where the last source, other table, list of NULLs ended
        self.fresh = ""  # identity of the last source, if it was not among the tables before
        # Most texts have none of these, and their words need no second look.
        self.odd = any([sign in text for sign in _ODD])  # noqa: C419 - a generator costs three times as much

    def read(self, tokens: Iterable[str]) -> None:
        emit = self.out.append
        for token in tokens:
            if not token:
                break
            kind = _KINDS.get(token[0], _WORD_KIND)
            if kind == _WORD_KIND:
                word = token.lower()
                if (self.odd and self.read_odd(token)) or (self.frame.aim and self.read_aimed(token, word)):
                    continue
                handle = _WORDS.get(word)
                if handle:
                    handle(self, token, word)
                emit(token)
                self.prev = word
            elif kind == _OPERATOR_KIND:
                emit(token)
                self.before, self.prev = self.prev, token
            else:
                _MARKS[kind](self, token)

    def shape(self) -> Shape:
        out = self.out
        if out and out[-1] == ";":
            out.pop()
        text = _GAP.join(out)
        known = self.identities
        identity = _GAP.join([known.get(token) or token.lower() for token in out]) if known else text.lower()
        digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8)
        return Shape(
            fingerprint=digest.hexdigest(),
            text=_readable(text),
            summary=_summary(self.summary),
            operation=self.operation or (self.summary[0].upper() if self.summary else ""),
            tables=tuple(self.tables.values()),
        )

    # Words

    def read_odd(self, token: str) -> bool:
        """Read a word of a text with quotes, brackets or free dots; False if it is a plain one after all."""
        if token[1:2] == "'" or token[1:3] == "&'":
            self.read_literal(token)
        elif token.startswith("__["):
            self.place("$")
        elif token[0] == "[" and (self.frame.is_bracket or self.prev == "array" or _is_operand(self.prev)):
            subscript, _, rest = token[1:].partition("]")
            self.out += ("[", subscript, "]" + rest)
            self.prev = "]"
        elif token.isidentifier() or len(token) == 1 or not _find_odd(token):
            return False
        else:
            self.read_quoted(token)
        return True

    def read_quoted(self, token: str) -> None:
        parts = [part.replace("%%", "%") for part in _find_parts(token)]  # drivers with pyformat placeholders double it
        token = ".".join(parts)
        self.identities[token] = identity = ".".join(map(_identity, parts))
        if self.frame.aim and self.frame.aim is not _Aim.SORT:
            self.take(token, identity, ".".join(map(_bare, parts)))
        else:
            self.out.append(token)
        self.prev = token

    def read_aimed(self, token: str, word: str) -> bool:
        """Read the word where a name was announced; False if it is none."""
        frame = self.frame
        if frame.aim is _Aim.SORT:
            if word in _SORTS:
                self.summary.append(token)
                frame.aim = _SORTS[word]
                frame.sources = frame.operation == "drop" and frame.aim is _Aim.TABLE
                frame.is_owned = word in _OWNED
            return False
        if word in _NO_NAMES:
            return False
        self.take(token, word, token)
        self.prev = word
        return True

    def take(self, token: str, identity: str, bare: str) -> None:
        """Take the name *token* for what was announced."""
        frame, out = self.frame, self.out
        aim, frame.aim = frame.aim, None
        if aim is _Aim.SAVEPOINT:
            token = _number_in_name("", token)
            self.identities[token] = token.lower()
        out.append(token)
        if aim is _Aim.DEFINITION:
            frame.definition = identity
            frame.is_recursive = frame.is_recursive or self.prev == "recursive"
            if frame.is_recursive:
                self.ctes.add(identity)
        elif aim is _Aim.OBJECT:
            self.summary.append(token)
        elif aim is not _Aim.SAVEPOINT and identity not in self.ctes:
            if aim is not _Aim.OWNER:
                self.summary.append(token)
            if aim is _Aim.SOURCE:
                self.called = len(out)
                self.fresh = "" if identity in self.tables else identity
            else:
                self.columns = len(out)
            self.tables.setdefault(identity, bare)

    # Keywords: each is told of its token before that is written.

    def begin(self, token: str, word: str) -> None:
        frame = self.frame
        self.end_clause(token, word)
        if frame.defines:
            frame.defines = False
            self.ctes.add(frame.definition)
        frame.operation = word
        frame.aim = None
        self.summary.append(token)
        if not self.stack and not self.operation:
            self.operation = token.upper()

    def select(self, token: str, word: str) -> None:
        if self.frame.operation not in {"grant", "revoke"}:
            self.begin(token, word)

    def verb(self, token: str, word: str) -> None:
        frame = self.frame
        nested = self.stack and not frame.is_definition  # a function such as replace(), insert(), truncate()
        if frame.operation or nested or self.prev not in _STARTS or (word == "analyze" and self.prev == "explain"):
            if word in {"set", "fetch"}:
                self.end_clause(token, word)
            return
        self.begin(token, word)
        frame.aim = _VERBS[word]
        frame.sources = word in _TAKING_LISTS
        if word == "explain":
            frame.operation = ""

    def values(self, token: str, word: str) -> None:
        self.verb(token, word)
        self.frame.aim = None
        self.frame.rows = set()

    def with_(self, _token: str, _word: str) -> None:
        frame = self.frame
        if frame.operation == "insert" or self.prev == "as" or (not frame.operation and self.prev in _STARTS):
            frame.defines = True
            frame.aim = _Aim.DEFINITION

    def from_(self, _token: str, _word: str) -> None:
        frame = self.frame
        if frame.operation in _READING and self.prev != "distinct":  # IS DISTINCT FROM
            frame.aim = _Aim.SOURCE
            frame.sources = True

    def join(self, _token: str, _word: str) -> None:
        self.frame.aim = _Aim.SOURCE

    def using(self, _token: str, _word: str) -> None:
        frame = self.frame
        if frame.operation in {"delete", "merge"}:
            frame.aim = _Aim.SOURCE
            frame.sources = True

    def into(self, _token: str, _word: str) -> None:
        if self.frame.operation in {"insert", "merge", "replace", "select"}:
            self.frame.aim = _Aim.TABLE

    def on(self, _token: str, _word: str) -> None:
        self.frame.rows = None
        if self.frame.is_owned:
            self.frame.aim = _Aim.OWNER

    def to(self, _token: str, _word: str) -> None:
        if self.frame.operation == "rollback":
            self.frame.aim = _Aim.SAVEPOINT

    def end_clause(self, _token: str, _word: str) -> None:
        self.frame.sources = False
        self.frame.rows = None

    # Literals and placeholders

    def place(self, mark: str) -> None:
        self.out.append("?")
        self.prev = mark

    def read_literal(self, token: str) -> None:
        out = self.out
        if token[0] == "'" and self.frame.aim is _Aim.SOURCE and _is_word_string(token):  # SQLite takes it for a name
            self.identities[token] = identity = _identity(f'"{token[1:-1]}"')
            self.take(token, identity, token)
            self.prev = token
            return
        if self.prev in {"-", "+"} and not _is_operand(self.before):
            out.pop()
        self.place("'")

    def read_sigil(self, mark: str) -> None:
        first, second = mark[0], mark[1:2]
        if (first == "%" and second in {"(", "s"}) or (first == "$" and second.isdigit()):
            self.place("$")
        elif second == ":" and mark != "::":
            if self.prev != "$":
                self.out.append(_blanks(r"\1", _type_modifier("?", " ".join(mark.split()))))
                self.prev = ")"
        elif first == "?" or (first in ":@%" and (second.isalnum() or second in {"_", '"'})):
            self.read_ambiguous(mark)
        elif second and first in "$.":
            self.read_literal(mark)
        else:
            self.out.append("%" if mark == "%%" else mark)
            self.prev = mark

    def read_ambiguous(self, token: str) -> None:
        """Read what is a placeholder where an operand belongs, an operator (and its operand) after one."""
        first, rest = token[0], token[1:]
        is_slice = self.prev == "[" and first == ":" and rest.isdigit() and self.frame.items is None
        if is_slice or _is_operand(self.prev):
            self.out.append(token if first == "?" and not rest.isdigit() else first)
            self.prev = first if first != "?" else "="
            if rest.isdigit():
                self.place("'")
            elif first != "?":
                self.out.append(rest)
                self.prev = rest.lower()
        else:
            self.place("?" if first == "?" else "$")
            if rest in {"|", "&"}:
                self.out.append(rest)
                self.prev = rest

    # Lists and parentheses

    def separate(self, token: str) -> None:
        if len(token) > 1:
            self.read_run(token)
            return
        frame = self.frame
        if frame.items is not None:
            self.fold(frame)
        self.out.append(",")
        self.prev = ","
        frame.item = len(self.out)
        if frame.sources:
            frame.aim = _Aim.SOURCE
        elif frame.defines:
            self.ctes.add(frame.definition)
            frame.aim = _Aim.DEFINITION

    def open(self, _token: str) -> None:
        out, outer, prev = self.out, self.frame, self.prev
        if self.called == len(out):
            self.summary.pop()
            self.tables.pop(self.fresh, None)
        is_call = prev not in _OPENERS and (prev[-1:].isalnum() or prev[-1:] == "_") and self.columns != len(out)
        if is_call:
            if out[-1] in self.identities:
                self.identities[out[-1] + "("] = self.identities[out[-1]] + "("
            out[-1] += "("
        else:
            out.append("(")
        self.stack.append(outer)
        self.frame = frame = _Frame(len(out), len(self.summary))
        if prev == "in":
            frame.is_membership = True
            frame.items = set()
            frame.item = len(out)
        elif prev == "values" or (prev == "," and outer.rows is not None):
            frame.is_row = True
        elif outer.defines and prev in {"as", "materialized"}:
            frame.is_definition = True
        elif outer.aim is _Aim.SOURCE and prev != "using":
            frame.aim = _Aim.SOURCE
            frame.sources = True
        outer.aim = None
        self.prev = "("

    def close(self, token: str) -> None:
        if len(token) > 1:
            self.read_run(token)
            return
        out, frame = self.out, self.frame
        self.prev = ")"
        if not self.stack or frame.is_bracket:
            out.append(")")
            return
        self.frame = outer = self.stack.pop()
        if frame.items is not None:
            self.fold(frame)
        if frame.is_membership:
            self.close_membership(frame)
        elif frame.start == self.nulls + 2 and out[frame.start :] in _ALWAYS:
            del out[self.nulls :]
            out[self.nulls - 2] = "?"
            return
        out.append(")")
        if frame.is_row and outer.rows is not None and len(out) - frame.start < _MAX_ITEM:
            row = _GAP.join(out[frame.start :]).lower()
            if row in outer.rows and out[frame.start - 2] == ",":
                self.cut(frame.start - 2)
            outer.rows.add(row)

    def fold(self, frame: _Frame) -> None:
        """Drop the item just read, and its comma, from a list that has its like."""
        out, items = self.out, frame.items
        if items is None or not 0 < len(out) - frame.item < _MAX_ITEM:
            return
        item = _GAP.join(out[frame.item :]).lower()
        if item in items:
            self.cut(frame.item - 1)
        items.add(item)

    def cut(self, index: int) -> None:
        del self.out[index:]
        self.called = self.columns = -1

    def close_membership(self, frame: _Frame) -> None:
        """Make one form of what the same IN is written as: of no value, of tuples, before its expansion."""
        out, start = self.out, frame.start
        if frame.operation == "select":
            # SQLAlchemy's empty set: SELECT … WHERE 1!=1, of no table.
            is_empty = out[-4].lower() == "where" and out[-3:] in _ALWAYS
            if is_empty and all(name.lower() == "select" for name in self.summary[frame.named :]):
                out[start:] = ["?"]
                del self.summary[frame.named :]
        elif len(out) - start < _MAX_ITEM:
            body = out[start:]
            words = {token.lower() for token in body}
            if words <= {"(", ")", ",", "?", "null", "values"} and words & {"(", "values"}:
                out[start:] = [_readable(_GAP.join(body))]
                self.identities[out[start]] = "?"
            if words <= {"(", ")", ",", "null"}:
                self.nulls = len(out) + 1  # SQLAlchemy may go on: AND (1 != 1)

    def read_square(self, mark: str) -> None:
        out, frame = self.out, self.frame
        if len(mark) > 1:
            self.read_odd(mark)
            return
        if mark == "[":
            self.stack.append(frame)
            self.frame = inner = _Frame(len(out) + 1, len(self.summary))
            inner.is_bracket = True
            if self.prev == "array" or (frame.is_bracket and frame.items is not None):
                inner.items = set()
                inner.item = inner.start
        elif frame.is_bracket:
            self.fold(frame)
            self.frame = self.stack.pop()
        out.append(mark)
        self.prev = mark

    def read_run(self, run: str) -> None:
        """Read constants, or rows of them, that follow their like: in a list the distinct ones, elsewhere each."""
        frame = self.frame
        if run[0] == ",":
            self.read(iter((",", "?", ",")) if frame.items is not None else _tokens(run, _short))
        elif frame.is_row or (self.stack and self.stack[-1].items is not None):
            rows = dict.fromkeys(_find_rows(_constant_in("?", run)))
            self.read(_tokens(f"),{','.join(rows)}", _short))
        else:
            self.read(_tokens(run, _short))

    def end_statement(self, _token: str) -> None:
        out = self.out
        if not self.stack:
            self.frame = _Frame(len(out), len(self.summary))
            self.ctes = {"dual"}
        if out and out[-1] != ";":
            out.append(";")
        self.prev = ";"


_WORDS: Final[dict[str, Callable[[_Reader, str, str], None]]] = {
    **dict.fromkeys(_VERBS, _Reader.verb),
    **dict.fromkeys(
        _words("where group order having limit offset returning window union except intersect for"), _Reader.end_clause
    ),
    **dict.fromkeys(_words("join straight_join apply"), _Reader.join),
    "select": _Reader.select,
    "values": _Reader.values,
    "with": _Reader.with_,
    "from": _Reader.from_,
    "using": _Reader.using,
    "into": _Reader.into,
    "on": _Reader.on,
    "to": _Reader.to,
}
_MARKS: Final[dict[int, Callable[[_Reader, str], None]]] = {
    _COMMA: _Reader.separate,
    _LITERAL: _Reader.read_literal,
    _OPEN: _Reader.open,
    _CLOSE: _Reader.close,
    _SIGIL_KIND: _Reader.read_sigil,
    _SQUARE: _Reader.read_square,
    _SEMICOLON: _Reader.end_statement,
}


def _is_operand(word: str) -> bool:
    """Whether an operator comes after *word*."""
    return word not in _OPENERS and (word[-1:].isalnum() or word[-1:] in _OPERAND_ENDS or word in _OPERANDS)


def _bare(part: str) -> str:
    """The name *part* without quotes that it does not need."""
    inner = part[1:-1]
    return inner if part[0] in _QUOTES and _is_plain(inner) and inner not in RESERVED_WORDS else part


def _identity(part: str) -> str:
    bare = _bare(part)
    return f'"{bare[1:-1]}"' if bare[0] in _QUOTES else bare.lower()


def _readable(tokens: str) -> str:
    """*tokens*, joined by gaps, as a person writes them; cut to `MAX_TEXT` characters."""
    if len(tokens) > MAX_TEXT:
        # Joining only shortens: what fits with its gaps fits without.
        tokens = tokens[: max(tokens.rfind(_GAP, 0, MAX_TEXT - 1), 0)] + _GAP + "…"
    for apart, together in _JOINTS:
        tokens = tokens.replace(apart, together)
    return tokens.replace(_GAP, " ")


def _summary(names: list[str]) -> str:
    length = -1
    for count, name in enumerate(names):
        length += 1 + len(name)
        if length > MAX_SUMMARY:
            return " ".join(names[:count])
    return " ".join(names)
