"""What holds for every statement, tried on statements made at random."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from sqlprobe.fingerprint import MAX_SUMMARY, MAX_TEXT, shape_of

HOLE: Final = object()  # where a value belongs
CANARY: Final = "canary"
SCRAPS: Final = (
    *("'", '"', "`", "$$", "$a$", "/*", "*/", "--", "#", "[", "]", "(", ")", ",", ";", ".", "::", ":", "?", "?|", "%"),
    *("%(", "@", "E'", "U&'", "IN", "VALUES", "ARRAY", "SELECT", "FROM", "WITH", "AS", "SAVEPOINT", "CREATE", "NULL"),
)


def words(text):
    return text.split()


names = st.sampled_from(
    ["users", "orders", "Users", '"Order"', 'shop."Order"', "shop.orders", "`a b`", "_t1", "données"]
)
columns = st.sampled_from(["id", "users.name", '"we ird, (x"', "o.doc", "b", "data", "excluded.n", "end_1", "e", "x"])
operators = st.sampled_from(
    words("= != <> < >= + - * / % || -> ->> #>> @> <@ @? @@ <-> <=> ? ?| ?& ~ !~* LIKE ilike AND or")
)
functions = st.sampled_from(["count", "lower", "coalesce", "f", "shop.g", "replace", "left"])
types = st.sampled_from(["::text", "::Double Precision", "::numeric", '::shop."Mood"', "::int[]"])
separators = st.sampled_from(
    [
        " ",
        "\n",
        "\t  ",
        " -- it's\n",
        "/* 5 */",
        " /* /* '? */ */ ",
        "\r\n",
        " --\n",
        "/**/",
        "\n  # MySQL's\n",
        "/*+ hint */ ",
    ]
)


def joined(lists, separator=","):
    tokens = []
    for tokens_of_one in lists:
        tokens += [*([separator] if tokens else []), *tokens_of_one]
    return tokens


def deeper(inner):
    items = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
        inner.map(lambda tokens: ["(", *tokens, ")"]),
        inner.map(lambda tokens: ["-", "(", *tokens, ")"]),
        st.tuples(functions, items).map(lambda parts: [parts[0], "(", *joined(parts[1]), ")"]),
        st.tuples(columns, types).map(lambda parts: [*parts]),
        st.tuples(inner, items).map(lambda parts: ["(", *parts[0], ")", "IN", "(", *joined(parts[1]), ")"]),
        items.map(lambda lists: ["ARRAY", "[", *joined(lists), "]"]),
        st.tuples(columns, inner).map(lambda parts: [parts[0], "[", *parts[1], "]"]),
        inner.map(lambda tokens: ["CASE", "WHEN", *tokens, "THEN", HOLE, "ELSE", "NULL", "END"]),
        inner.map(lambda tokens: [*tokens, "IS", "DISTINCT", "FROM", HOLE]),
        inner.map(lambda tokens: ["extract", "(", "year", "FROM", *tokens, ")"]),
    )


expressions = st.recursive(
    st.one_of(st.just([HOLE]), st.just([HOLE]), columns.map(lambda name: [name])),
    deeper,
    max_leaves=8,
)


@st.composite
def selects(draw):
    tokens = ["SELECT", *joined(draw(st.lists(expressions, min_size=1, max_size=4)))]
    tokens += ["FROM", *joined([[name] for name in draw(st.lists(names, min_size=1, max_size=3))])]
    if draw(st.booleans()):
        tokens += ["LEFT", "JOIN", draw(names), "AS", "o", "ON", *draw(expressions)]
    if draw(st.booleans()):
        tokens += ["WHERE", *draw(expressions)]
    return tokens + draw(
        st.sampled_from([[], ["LIMIT", HOLE], words("FOR UPDATE"), ["ORDER", "BY", "id", "LIMIT", HOLE]])
    )


@st.composite
def inserts(draw):
    row = [[HOLE]] * draw(st.integers(1, 12))
    rows = [["(", *joined(row), ")"]] * draw(st.integers(1, 12))
    return [
        "INSERT",
        "INTO",
        draw(names),
        "(",
        "a",
        ",",
        "b",
        ")",
        "VALUES",
        *joined(rows),
        *words("ON CONFLICT DO NOTHING"),
    ]


statements = st.one_of(
    selects(),
    inserts(),
    st.tuples(names, expressions, expressions).map(
        lambda parts: ["UPDATE", parts[0], "SET", "a", "=", *parts[1], "WHERE", *parts[2]]
    ),
    st.tuples(names, expressions).map(lambda parts: ["DELETE", "FROM", parts[0], "WHERE", *parts[1]]),
    st.tuples(selects(), selects()).map(lambda parts: ["WITH", "x", "AS", "(", *parts[0], ")", *parts[1]]),
    st.tuples(selects(), selects()).map(lambda parts: [*parts[0], "UNION", "ALL", *parts[1]]),
)

strings = st.text(max_size=20).map(lambda text: CANARY + text.replace("\x00", ""))
values = st.one_of(
    st.integers(10**6, 10**12).map(str),
    st.integers(-(10**12), -(10**6)).map(str),
    st.floats(1e6, 1e300).map(repr),
    st.floats(1e-300, 1e-6).map(repr),
    strings.map(lambda text: "'" + text.replace("'", "''") + "'"),
    strings.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    strings.map(lambda text: "$$" + text.replace("$", "") + "$$"),
    strings.map(lambda text: "$a$" + text.replace("$", "") + "$a$"),
)
placeholders = st.sampled_from(
    [
        "$1",
        "$2::INTEGER",
        "%s",
        "%(id_1)s::VARCHAR",
        "%(x)s",
        ":name",
        "?",
        "@p1",
        "__[POSTCOMPILE_x_1]",
        "$3::NUMERIC(10, 2)[]",
    ]
)


def written(tokens, fill, separate=lambda: " "):
    return "".join([separate() + (fill() if token is HOLE else token) for token in tokens])


@given(st.data(), statements)
def test_values_do_not_matter_and_do_not_show(data, tokens):
    filled = [data.draw(values) for token in tokens if token is HOLE]
    shape = shape_of(written(tokens, iter(filled).__next__))
    other = shape_of(written(tokens, lambda: "5"))

    assert other == shape
    for shown in (shape.text, shape.summary, *shape.tables):
        assert CANARY not in shown
        assert not any(value.strip("-") in shown for value in filled)


@given(st.data(), statements)
def test_placeholders_are_values(data, tokens):
    shape = shape_of(written(tokens, lambda: data.draw(placeholders)))

    assert shape_of(written(tokens, lambda: "'x'")) == shape


@given(st.data(), statements)
def test_blanks_and_comments_do_not_matter(data, tokens):
    shape = shape_of(written(tokens, lambda: "?", lambda: data.draw(separators)))

    assert shape_of(written(tokens, lambda: "?")) == shape


@given(statements)
def test_case_does_not_matter(tokens):
    lowered = [token if token is HOLE or '"' in token or "`" in token else token.swapcase() for token in tokens]

    assert shape_of(written(tokens, lambda: "?")).fingerprint == shape_of(written(lowered, lambda: "?")).fingerprint


@given(statements)
def test_shape_of_a_text_of_a_shape_is_that_shape(tokens):
    shape = shape_of(written(tokens, lambda: "5"))

    assert shape.text.endswith(" …") or shape_of(shape.text) == shape


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=())),
        st.lists(
            st.one_of(
                st.text(st.characters(exclude_categories=()), max_size=3),
                st.sampled_from(SCRAPS),
            ),
        ).map(" ".join),
    )
)
def test_takes_any_text(text):
    shape = shape_of(text)

    assert len(shape.text) <= MAX_TEXT
    assert len(shape.summary) <= MAX_SUMMARY
    assert 16 == len(shape.fingerprint)
    assert len(set(shape.tables)) == len(shape.tables)
    assert shape_of(text) == shape
