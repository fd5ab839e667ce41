from __future__ import annotations

import os
import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle, sqlite
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql import asyncpg, pg8000, psycopg, psycopg2

from sqlprobe.fingerprint import MAX_SUMMARY, MAX_TEXT, MAX_TOKENS, shape_of

EQUAL = {
    "placeholders": (
        "SELECT a FROM t WHERE b = $1",
        "SELECT a FROM t WHERE b = $12",
        "SELECT a FROM t WHERE b = $1::UUID",
        "SELECT a FROM t WHERE b = $1::VARCHAR(20)",
        "SELECT a FROM t WHERE b = $1::INTEGER[]",
        "SELECT a FROM t WHERE b = $1::TIMESTAMP WITHOUT TIME ZONE",
        "SELECT a FROM t WHERE b = $1::TIMESTAMP(3) WITH TIME ZONE",
        "SELECT a FROM t WHERE b = $1::DOUBLE PRECISION",
        "SELECT a FROM t WHERE b = $1::CHARACTER VARYING (5)",
        "SELECT a FROM t WHERE b = $1::NUMERIC(10, 2)",
        'SELECT a FROM t WHERE b = $1::shop."Mood"',
        "SELECT a FROM t WHERE b = $1 :: text",
        "SELECT a FROM t WHERE b = $1::text::uuid",
        "SELECT a FROM t WHERE b = %s",
        "SELECT a FROM t WHERE b = %s::INTEGER",
        "SELECT a FROM t WHERE b = %(name)s",
        "SELECT a FROM t WHERE b = %(name_1)s::VARCHAR",
        "SELECT a FROM t WHERE b = %(we ird%%name)s",
        "SELECT a FROM t WHERE b = :name",
        "SELECT a FROM t WHERE b = :name::int",
        "SELECT a FROM t WHERE b = :1",
        'SELECT a FROM t WHERE b = :"class"',
        "SELECT a FROM t WHERE b = ?",
        "SELECT a FROM t WHERE b = ?1",
        "SELECT a FROM t WHERE b = @p1",
        "SELECT a FROM t WHERE b=@p1",
        "SELECT a FROM t WHERE b=:name",
        "SELECT a FROM t WHERE b = 5",
        "SELECT a FROM t WHERE b = 'five'",
        "SELECT a FROM t WHERE b = __[POSTCOMPILE_b_1]",
        "SELECT a FROM t WHERE b = __[POSTCOMPILE_b_1~~lower(~~REPL~~)~~]",
    ),
    "numbers": tuple(
        f"SELECT a FROM t WHERE x = {number}"
        for number in (
            "5", "-5", "- 5", "+5", "0", "2.5", "-2.5", ".5", "2.", "1e5", "1E-5", "1.5e+10", "0xFF", "0x1f", "1_000", "0b101",
        )
    ),
    "strings": tuple(
        f"SELECT a FROM t WHERE x = {string}"
        for string in (
            "''", "'x'", "'it''s'", "''''", "'two\nlines'", r"E'it\'s'", r"e'\\'", "E'it''s'", "U&'\\0041'", "B'101'", "X'1F'",
            "x'1f'", "N'x'", "$$x$$", "$$it's$$", "$tag$ a $$ b $tag$", "$a_1$$b$$a_1$", "'-- no comment'", "'/* none */'",
            "'?'", "'$1 :name %s'", "'\\'",
        )
    ),
    "typed literals": ("SELECT DATE '2020-01-01'", "SELECT date '1999-12-31'", "SELECT DATE'2020-01-01'"),
    "intervals": ("SELECT now() - INTERVAL '1 day'", "SELECT now() - interval '2 hours'"),
    "comments": (
        "SELECT a FROM t WHERE b = 1",
        "-- why\nSELECT a FROM t WHERE b = 1",
        "SELECT a -- why\nFROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = 1 -- why",
        "SELECT a FROM t WHERE b = 1 /* route='%2Forders',traceparent='00-1-2-01' */;",
        "/*action='it\\'s'*/ SELECT a FROM t WHERE b = 1",
        "SELECT/* one /* two /* three */ */ */ a FROM t WHERE b = 1",
        "SELECT /* not /* nested, in SQLite */ a FROM t WHERE b = 1",
        "SELECT /*+ IndexScan(t) */ a FROM t WHERE b = 1",
        "# MySQL's\nSELECT a FROM t WHERE b = 1",
        "SELECT a\n    # MySQL's: x = 5\nFROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = 1 /* never closed",
        "SELECT a FROM t WHERE b = 1 /***/",
        "SELECT a FROM t WHERE b = $1::int/**/",
    ),
    "case and blanks": (
        "SELECT a, b FROM t WHERE c = 1",
        "select A,B from T where C=1",
        "  SELECT a ,\tb\r\nFROM\n\nt WHERE c=1 ; ",
        "Select a, b From t Where c = 1;;",
    ),
    "quoted names that need no quotes": (
        "SELECT users.id FROM users",
        'SELECT "users"."id" FROM "users"',
        "SELECT `users`.`id` FROM `users`",
        "SELECT [users].[id] FROM [users]",
        'SELECT users."id" FROM users',
        "SELECT users . id FROM users",
    ),
    "quoted names that need them": (
        'SELECT "Order".id FROM shop."Order"',
        "SELECT `Order`.id FROM shop.`Order`",
        "SELECT [Order].id FROM [shop].[Order]",
    ),
    "doubled percent signs": (
        'SELECT "a%b" % 2 FROM t WHERE "a%b" LIKE $1',
        'SELECT "a%%b" %% 2 FROM t WHERE "a%%b" LIKE %(x)s',
    ),
    "IN": tuple(
        f"SELECT a FROM t WHERE b IN {items} AND c = 1"
        for items in (
            "(?)", "(?, ?)", "($1::INTEGER, $2::INTEGER, $3::INTEGER)", "(%(b_1_1)s, %(b_1_2)s)", "(1)", "(1, 2, 3)", "(-1,+2)",
            "('a','b')", "( 1 , 2 )", "(1 /* one */, 2)", "(__[POSTCOMPILE_b_1])", "(SELECT CAST(NULL AS INTEGER) WHERE 1!=1)",
            "(SELECT 1 WHERE 1!=1)", "(SELECT 1 FROM (SELECT 1) WHERE 1!=1)", "(SELECT 1 FROM DUAL WHERE 1!=1)",
            "(SELECT _in_0 FROM (SELECT 1 AS _in_0) as _empty_set WHERE 1!=1)", "(NULL) AND (1 != 1)",
            "(" + ", ".join(["%s"] * 5000) + ")", "(" + ", ".join(map(str, range(20))) + ")",
        )
    ),
    "NOT IN": (
        "SELECT a FROM t WHERE (b NOT IN (?, ?))",
        "SELECT a FROM t WHERE (b NOT IN (__[POSTCOMPILE_b_1]))",
        "SELECT a FROM t WHERE (b NOT IN (NULL) OR (1 = 1))",
        "SELECT a FROM t WHERE (b NOT IN (SELECT 1 FROM (SELECT 1) WHERE 1!=1))",
    ),
    "IN of tuples": tuple(
        f"SELECT a FROM t WHERE (b, c) IN {items}"
        for items in (
            "((?, ?))", "((?, ?), (?, ?))", "(($1, $2), ($3, $4), ($5, $6))", "(VALUES (?, ?), (?, ?))", "(__[POSTCOMPILE_p])",
            "((NULL, NULL)) AND (1 != 1)", "(SELECT 1, 1 FROM (SELECT 1, 1) WHERE 1!=1)",
            "(SELECT CAST(NULL AS INTEGER), CAST(NULL AS VARCHAR(5)) WHERE 1!=1)",
            "(" + ", ".join(f"({n}, 'x{n}')" for n in range(3000)) + ")",
        )
    ),
    "IN of expressions": (
        "SELECT a FROM t WHERE b IN (lower(?))",
        "SELECT a FROM t WHERE b IN (lower(?), lower(?), LOWER(?))",
    ),
    "VALUES": tuple(
        "INSERT INTO t (a, b) VALUES " + rows
        for rows in (
            "(?, ?)", "(?, ?), (?, ?)", "($1::INTEGER, $2::VARCHAR), ($3::INTEGER, $4::VARCHAR)", "(1, 'x'), (-2, 'it''s')",
            "(%(a_m0)s, %(b_m0)s), (%(a_m1)s, %(b_m1)s), (%(a_m2)s, %(b_m2)s)",
            ", ".join(f"(%(a_m{n})s::INTEGER, %(b_m{n})s::VARCHAR)" for n in range(500)),
            ",".join(f"({n},'{n}, ({n})')" for n in range(9000)),
        )
    ),
    "VALUES with expressions": (
        "INSERT INTO t (a, b, c) VALUES (?, DEFAULT, now()) RETURNING id",
        "INSERT INTO t (a, b, c) VALUES (?, DEFAULT, now()), (?, DEFAULT, now()) RETURNING id",
        "INSERT INTO t (a, b, c) VALUES " + ", ".join(["(?, DEFAULT, now())"] * 30) + " RETURNING id",
    ),
    "VALUES of many columns": tuple(
        "INSERT INTO t VALUES " + ", ".join(["(" + ", ".join(["%s"] * 40) + ")"] * rows) for rows in (1, 2, 100)
    ),
    "VALUES of two shapes, many": tuple(
        "INSERT INTO t VALUES " + ", ".join(["(1, 'a')", "(2, NULL)"] * times) + " ON CONFLICT DO NOTHING" for times in (1, 2, 3000)
    ),
    "insertmanyvalues": tuple(
        "INSERT INTO t (a, b) SELECT p0::INTEGER, p1::VARCHAR FROM (VALUES "
        + rows
        + ") AS imp_sen(p0, p1, sen_counter) ORDER BY sen_counter RETURNING t.id, t.id AS id__1"
        for rows in (
            "($1, $2, 0)",
            "($1, $2, 0), ($3, $4, 1)",
            "(%(a__0)s::INTEGER, %(b__0)s::VARCHAR, 0), (%(a__1)s::INTEGER, %(b__1)s::VARCHAR, 1)",
            ", ".join(f"(${2 * n + 1}, ${2 * n + 2}, {n})" for n in range(1000)),
        )
    ),
    "ARRAY": (
        "SELECT a FROM t WHERE b = ANY(ARRAY[?])",
        "SELECT a FROM t WHERE b = ANY (ARRAY[$1::INTEGER, $2::INTEGER])",
        "SELECT a FROM t WHERE b = any(array[1, 2, 3])",
        "SELECT a FROM t WHERE b = any(array[" + ",".join(map(str, range(2000))) + "])",
    ),
    "ARRAY of arrays": ("SELECT ARRAY[[1, 2], [3, 4]]", "SELECT ARRAY[[?, ?, ?]]"),
    "savepoints": ("SAVEPOINT sa_savepoint_1", "SAVEPOINT sa_savepoint_27", "savepoint sa_savepoint_3;"),
    "released savepoints": ("RELEASE SAVEPOINT sa_savepoint_1", "RELEASE SAVEPOINT sa_savepoint_2"),
    "savepoints gone back to": ("ROLLBACK TO SAVEPOINT sa_savepoint_1", "ROLLBACK TO SAVEPOINT sa_savepoint_2"),
    "casts with blanks": ("SELECT x::numeric(10, 2)", "SELECT x :: NUMERIC ( 12,4 )", "SELECT x::numeric (?, ?)"),
}  # fmt: skip


@pytest.mark.parametrize("group", EQUAL)
def test_one_fingerprint_for_one_statement(group):
    shapes = {shape_of(text).fingerprint: text[:200] for text in EQUAL[group]}

    assert [EQUAL[group][-1][:200]] == list(shapes.values())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t", "SELECT a FROM u"),
        ("SELECT a FROM t", "SELECT b FROM t"),
        ("SELECT a FROM s.t", "SELECT a FROM r.t"),
        ('SELECT a FROM "T"', "SELECT a FROM t"),
        ('SELECT a FROM "T"', 'SELECT a FROM "t"'),
        ('SELECT a FROM "a b"', 'SELECT a FROM "a  b"'),
        ('SELECT a FROM "user"', "SELECT a FROM user"),
        ("SELECT a FROM [Order]", "SELECT a FROM [order]"),
        ("SELECT a FROM `x-y`", "SELECT a FROM `x+y`"),
        ("SELECT a FROM t_1", "SELECT a FROM t_2"),
        ('SELECT "Shop".f(1)', "SELECT shop.f(1)"),
        ("SELECT a FROM 'artists'", "SELECT a FROM 'songs'"),
        ("SELECT a - 5 FROM t", "SELECT a + 5 FROM t"),
        ("SELECT a - 5 FROM t", "SELECT a, 5 FROM t"),
        ("SELECT -a FROM t", "SELECT a FROM t"),
        ("SELECT a FROM t WHERE b IS NULL", "SELECT a FROM t WHERE b IS NOT NULL"),
        ("SELECT a FROM t WHERE b IS TRUE", "SELECT a FROM t WHERE b IS FALSE"),
        ("SELECT a FROM t WHERE b = NULL", "SELECT a FROM t WHERE b = 1"),
        ("SELECT a FROM t WHERE b < 1", "SELECT a FROM t WHERE b <= 1"),
        ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b NOT IN (1)"),
        ("SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b = 1"),
        ("SELECT a FROM t WHERE b IN (c, d)", "SELECT a FROM t WHERE b IN (c)"),
        ("SELECT a FROM t WHERE b IN (1, NULL)", "SELECT a FROM t WHERE b IN (1)"),
        ("SELECT a FROM t WHERE b IN (NULL)", "SELECT a FROM t WHERE b IN (1)"),
        ("SELECT a FROM t WHERE b IN (1) AND (1 != 1)", "SELECT a FROM t WHERE b IN (1)"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE 1!=1)", "SELECT a FROM t WHERE b IN (1)"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM u WHERE d = 1)", "SELECT a FROM t WHERE b IN (1)"),
        ("SELECT a FROM t WHERE b = ANY(?)", "SELECT a FROM t WHERE b IN (?)"),
        ("SELECT f(1)", "SELECT f(1, 2)"),
        ("SELECT " + ", ".join("1" * 20), "SELECT " + ", ".join("1" * 21)),
        ("SELECT f(" + ", ".join(["'x'"] * 3000) + ")", "SELECT f(" + ", ".join(["'x'"] * 3001) + ")"),
        ("INSERT INTO t VALUES (?, ?)", "INSERT INTO t VALUES (?, ?, ?)"),
        ("INSERT INTO t VALUES (?, DEFAULT)", "INSERT INTO t VALUES (?, ?)"),
        ("INSERT INTO t VALUES (?, DEFAULT), (?, now())", "INSERT INTO t VALUES (?, DEFAULT)"),
        ("INSERT INTO t VALUES (?) RETURNING id", "INSERT INTO t VALUES (?)"),
        ("SELECT x::numeric", "SELECT x"),
        ("SELECT x::numeric", "SELECT x::integer"),
        ("SELECT doc->>'k'::text", "SELECT doc->>'k'"),
        ("SELECT doc->'k'", "SELECT doc->>'k'"),
        ("SELECT '5'::integer", "SELECT '5'"),
        ("SELECT doc ? 'k'", "SELECT doc ?| 'k'"),
        ("SELECT doc ?& 'k'", "SELECT doc ?| 'k'"),
        ("SELECT a @> b", "SELECT a <@ b"),
        ("SELECT a #> b", "SELECT a #>> b"),
        ("SELECT a # b", "SELECT a"),
        ("SELECT a <-> b", "SELECT a <=> b"),
        ("SELECT a <#> b", "SELECT a <+> b"),
        ("SELECT a || b", "SELECT a | b"),
        ("SELECT arr[1:2]", "SELECT arr[1]"),
        ("SELECT DATE '2020-01-01'", "SELECT TIME '10:00'"),
        ("SELECT 1; SELECT 2", "SELECT 1"),
        ("SELECT a FROM t UNION SELECT a FROM u", "SELECT a FROM t UNION ALL SELECT a FROM u"),
        ("SAVEPOINT a_1", "SAVEPOINT b_1"),
        ("SAVEPOINT a_1", "RELEASE SAVEPOINT a_1"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"),
        ("SELECT a FROM t FOR UPDATE", "SELECT a FROM t"),
    ],
)
def test_two_fingerprints_for_two_statements(one, other):
    assert shape_of(one).fingerprint != shape_of(other).fingerprint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select  Users.Id\nfrom Users", "select Users.Id from Users"),
        ("SELECT count ( * ) , max(a)FROM t", "SELECT count(*), max(a) FROM t"),
        ("SELECT a FROM t WHERE b IN (1,2)", "SELECT a FROM t WHERE b IN (?)"),
        ("SELECT a FROM t WHERE (b,c) IN ((1,2),(3,4))", "SELECT a FROM t WHERE (b, c) IN ((?, ?))"),
        ("SELECT a FROM t WHERE b = ANY ( $1::INTEGER[] )", "SELECT a FROM t WHERE b = ANY(?)"),
        ("SELECT ARRAY[1,2], ARRAY[[1],[2]]", "SELECT ARRAY[?], ARRAY[[?]]"),
        ("INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y')", "INSERT INTO t (a, b) VALUES (?, ?)"),
        ("INSERT INTO t(a) VALUES(DEFAULT)", "INSERT INTO t (a) VALUES (DEFAULT)"),
        ("SELECT DATE '2020-01-01', INTERVAL '1 day'", "SELECT DATE ?, INTERVAL ?"),
        ("SELECT x::numeric(10,2), 'a'::text, y::Double  Precision", "SELECT x::numeric(?,?), ?::text, y::Double Precision"),
        ("SELECT CAST(x AS VARCHAR(20))", "SELECT CAST(x AS VARCHAR(?))"),
        ("SELECT a[1:2], a[$1::INTEGER:$2::INTEGER], a[i], a[1]", "SELECT a[?:?], a[?:?], a[i], a[?]"),
        ("SELECT doc['k'], doc->'a'->>'b', doc#>>'{a,b}'", "SELECT doc[?], doc -> ? ->> ?, doc #>> ?"),
        ("SELECT a FROM t WHERE doc ? 'k' AND b = ?", "SELECT a FROM t WHERE doc ? ? AND b = ?"),
        ("SELECT a FROM t WHERE doc ?| ARRAY['a','b']", "SELECT a FROM t WHERE doc ?| ARRAY[?]"),
        ("SELECT a FROM t WHERE doc?&$1 AND doc@>$2", "SELECT a FROM t WHERE doc ?& ? AND doc @> ?"),
        ("SELECT a FROM t WHERE tags <@ARRAY['x'] AND p@?'$.a'", "SELECT a FROM t WHERE tags <@ ARRAY[?] AND p @? ?"),
        ("SELECT ?||?, ?|?", "SELECT ? || ?, ? | ?"),
        ("SELECT a FROM t ORDER BY v<->'[1,2]' LIMIT 5", "SELECT a FROM t ORDER BY v <-> ? LIMIT ?"),
        ("SELECT a %% 2, b % %(n)s", "SELECT a % ?, b % ?"),
        ("SELECT a FROM t WHERE x=-5 AND a-5>b", "SELECT a FROM t WHERE x = ? AND a - ? > b"),
        ("SELECT [Order].[x y] FROM [dbo].[Order]", "SELECT [Order].[x y] FROM [dbo].[Order]"),
        ('SELECT "a ( b" FROM "Order"', 'SELECT "a ( b" FROM "Order"'),
        ("SELECT 1 -- it's\n, 2 /* 'x' */;", "SELECT ?, ?"),
        ("SELECT 1;\n\n;SELECT 2;", "SELECT ?; SELECT ?"),
        ("SELECT f('it''s', E'it\\'s', $$it's$$)", "SELECT f(?, ?, ?)"),
        ("SELECT _utf8mb4'x', N'y'", "SELECT _utf8mb4 ?, ?"),
        ("SAVEPOINT sa_savepoint_1", "SAVEPOINT sa_savepoint"),
        ("SELECT * FROM f(a => 1, b := 2)", "SELECT * FROM f(a => ?, b := ?)"),
        ("SELECT a FROM t WHERE b IN (NULL) AND (1 != 1)", "SELECT a FROM t WHERE b IN (?)"),
        ("SELECT a FROM t WHERE b IN (NULL) AND (1 != c)", "SELECT a FROM t WHERE b IN (NULL) AND (? != c)"),
        ("SELECT 'never closed", "SELECT ?"),
        ("SELECT $$never closed", "SELECT ?"),
        ("SELECT $x$never closed $$", "SELECT ?"),
        ("SELECT E'never closed\\", "SELECT ?"),
        ("", ""),
        (" \n;; -- nothing", ""),
        ("\x00", "\x00"),
        ("SELECT '\ud800', \ud800", "SELECT ?, \ud800"),
        ('SELECT "never closed', 'SELECT " never closed'),
        ("SELECT )]( [", "SELECT)] (["),
    ],
)  # fmt: skip
def test_text_for_people(text, expected):
    assert expected == shape_of(text).text


@pytest.mark.parametrize(
    ("text", "summary", "operation", "tables"),
    [
        # OpenTelemetry's own examples
        ("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table", "SELECT", ["wuser_table"]),
        (
            "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE order_id = ?",
            "INSERT shipping_details SELECT orders", "INSERT", ["shipping_details", "orders"],
        ),
        ("SELECT * FROM songs, artists WHERE songs.artist_id == artists.id", "SELECT songs artists", "SELECT", ["songs", "artists"]),
        (
            "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id)",
            "SELECT SELECT orders customers", "SELECT", ["orders", "customers"],
        ),
        ("SELECT * FROM \"song list\", 'artists'", "SELECT \"song list\" 'artists'", "SELECT", ['"song list"', "'artists'"]),
        ("call some_stored_procedure(1)", "call some_stored_procedure", "CALL", []),
        ("EXECUTE some_stored_procedure @a = 1", "EXECUTE some_stored_procedure", "EXECUTE", []),
        # FROM
        ("select 1", "select", "SELECT", []),
        ("SELECT extract(year FROM ts) FROM t", "SELECT t", "SELECT", ["t"]),
        ("SELECT substring(x FROM 1 FOR 2), trim(both FROM x), overlay(a placing b from 3)", "SELECT", "SELECT", []),
        ("SELECT a IS DISTINCT FROM b, c IS NOT DISTINCT FROM 'd' FROM t", "SELECT t", "SELECT", ["t"]),
        ("SELECT a FROM t WHERE b IS DISTINCT FROM c", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM generate_series(1, 2) AS g, t", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM t JOIN unnest(?) AS u(x) ON true", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM t, t(1)", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM LATERAL f(1) x JOIN ONLY u ON true", "SELECT u", "SELECT", ["u"]),
        ("SELECT * FROM a, LATERAL (SELECT * FROM b LIMIT 1) AS x, c", "SELECT a SELECT b c", "SELECT", ["a", "b", "c"]),
        ("SELECT * FROM ONLY (a), ONLY b", "SELECT a b", "SELECT", ["a", "b"]),
        ("SELECT * FROM (a JOIN b ON a.x = b.x) LEFT JOIN c USING (x), d", "SELECT a b c d", "SELECT", ["a", "b", "c", "d"]),
        ("SELECT * FROM a NATURAL JOIN b CROSS JOIN c", "SELECT a b c", "SELECT", ["a", "b", "c"]),
        ("SELECT * FROM a AS x (p, q), b y", "SELECT a b", "SELECT", ["a", "b"]),
        ("SELECT * FROM t TABLESAMPLE bernoulli(1) WHERE x", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM t WHERE a = 1 GROUP BY b, c ORDER BY d, e LIMIT 1, 2", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM t FOR UPDATE OF t SKIP LOCKED", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM t FOR NO KEY UPDATE NOWAIT", "SELECT t", "SELECT", ["t"]),
        ("SELECT * FROM users JOIN users AS users_1 ON true", "SELECT users users", "SELECT", ["users"]),
        ('SELECT * FROM Users, "users", shop."Order"', 'SELECT Users "users" shop."Order"', "SELECT", ["Users", 'shop."Order"']),
        ('SELECT * FROM "users" JOIN "order" ON true', 'SELECT "users" "order"', "SELECT", ["users", '"order"']),
        ("SELECT * FROM [dbo].[users], `x y`", "SELECT [dbo].[users] `x y`", "SELECT", ["dbo.users", "`x y`"]),
        ("SELECT * FROM comment, match, call, lock", "SELECT comment match call lock", "SELECT", ["comment", "match", "call", "lock"]),
        ("SELECT replace(a, 'x', 'y'), insert(b) FROM t", "SELECT t", "SELECT", ["t"]),
        ("SELECT a FROM t UNION ALL SELECT b FROM u", "SELECT t SELECT u", "SELECT", ["t", "u"]),
        ("(SELECT a FROM t) EXCEPT (SELECT b FROM u)", "SELECT t SELECT u", "SELECT", ["t", "u"]),
        ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)", "SELECT t SELECT u", "SELECT", ["t", "u"]),
        ("SELECT (SELECT max(a) FROM u) FROM t", "SELECT SELECT u t", "SELECT", ["u", "t"]),
        ("SELECT a FROM t WHERE b IN (SELECT 1 FROM (SELECT 1) WHERE 1!=1)", "SELECT t", "SELECT", ["t"]),
        ("SELECT 1 FROM DUAL", "SELECT", "SELECT", []),
        ("SELECT * FROM (VALUES (1, 2), (3, 4)) AS v(a, b), t", "SELECT t", "SELECT", ["t"]),
        ("SELECT a INTO new FROM t", "SELECT new t", "SELECT", ["new", "t"]),
        ("SELECT coalesce((SELECT a FROM t), (SELECT a FROM t)), max(b)", "SELECT SELECT t SELECT t", "SELECT", ["t"]),
        # WITH
        ("WITH x AS (SELECT a FROM t) SELECT * FROM x", "SELECT t SELECT", "SELECT", ["t"]),
        ("WITH x (a, b) AS MATERIALIZED (SELECT 1), y AS (SELECT * FROM x) SELECT * FROM y, t", "SELECT SELECT SELECT t", "SELECT", ["t"]),
        ("WITH users AS (SELECT * FROM users) SELECT * FROM users", "SELECT users SELECT", "SELECT", ["users"]),
        (
            "WITH RECURSIVE tree AS (SELECT * FROM node UNION ALL SELECT * FROM node JOIN tree ON true) SELECT * FROM tree",
            "SELECT node SELECT node SELECT", "SELECT", ["node"],
        ),
        ("WITH RECURSIVE a AS (SELECT 1), b AS (SELECT * FROM b) SELECT * FROM b", "SELECT SELECT SELECT", "SELECT", []),
        ("WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM gone", "DELETE t INSERT u SELECT", "INSERT", ["t", "u"]),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1 FROM x WHERE true", "SELECT UPDATE t", "UPDATE", ["t"]),
        ('WITH "X y" AS (SELECT 1) DELETE FROM t USING "X y"', "SELECT DELETE t", "DELETE", ["t"]),
        ("INSERT INTO t WITH x AS (SELECT * FROM u) SELECT * FROM x", "INSERT t SELECT u SELECT", "INSERT", ["t", "u"]),
        ("SELECT CAST(a AS TIMESTAMP WITH TIME ZONE), b FROM t, u", "SELECT t u", "SELECT", ["t", "u"]),
        # writes
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "INSERT t", "INSERT", ["t"]),
        ("INSERT INTO t DEFAULT VALUES RETURNING id", "INSERT t", "INSERT", ["t"]),
        ("INSERT OR REPLACE INTO t VALUES (1)", "INSERT t", "INSERT", ["t"]),
        ("INSERT IGNORE INTO t SET a = 1", "INSERT t", "INSERT", ["t"]),
        ("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)", "INSERT t", "INSERT", ["t"]),
        ("INSERT INTO t (a) VALUES (:a) RETURNING t.id INTO :ret_0", "INSERT t", "INSERT", ["t"]),
        ("REPLACE INTO t VALUES (1)", "REPLACE t", "REPLACE", ["t"]),
        ("UPDATE t SET a = 1, b = 2 FROM u, v WHERE t.id = u.id", "UPDATE t u v", "UPDATE", ["t", "u", "v"]),
        ("UPDATE ONLY t SET a = 1", "UPDATE t", "UPDATE", ["t"]),
        ("UPDATE a, b SET a.x = b.x", "UPDATE a b", "UPDATE", ["a", "b"]),
        ("DELETE FROM t USING u JOIN v USING (id) WHERE true", "DELETE t u v", "DELETE", ["t", "u", "v"]),
        (
            "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
            "MERGE t u", "MERGE", ["t", "u"],
        ),
        ("MERGE INTO t USING (SELECT * FROM u) AS s ON true WHEN MATCHED THEN DELETE", "MERGE t SELECT u", "MERGE", ["t", "u"]),
        ("TRUNCATE TABLE a, ONLY b RESTART IDENTITY", "TRUNCATE a b", "TRUNCATE", ["a", "b"]),
        ("COPY t (a, b) FROM STDIN", "COPY t", "COPY", ["t"]),
        ("COPY (SELECT a FROM t) TO STDOUT", "COPY SELECT t", "COPY", ["t"]),
        ("LOCK TABLE t IN ACCESS EXCLUSIVE MODE", "LOCK t", "LOCK", ["t"]),
        # definitions
        ("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix ON t (a, b)", "CREATE INDEX ix", "CREATE", ["t"]),
        ("CREATE INDEX ON t (a)", "CREATE INDEX", "CREATE", ["t"]),
        ("CREATE TABLE IF NOT EXISTS u (id INTEGER, CONSTRAINT c CHECK (a > 1))", "CREATE TABLE u", "CREATE", ["u"]),
        ("CREATE TEMP TABLE u ON COMMIT DROP AS SELECT * FROM t", "CREATE TABLE u SELECT t", "CREATE", ["u", "t"]),
        ("CREATE OR REPLACE VIEW v AS WITH x AS (SELECT 1) SELECT * FROM x, t", "CREATE VIEW v SELECT SELECT t", "CREATE", ["v", "t"]),
        ("CREATE USER secret PASSWORD 'x'", "CREATE USER", "CREATE", []),
        ("CREATE TRIGGER tr BEFORE UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()", "CREATE TRIGGER tr", "CREATE", ["t"]),
        ("ALTER TABLE IF EXISTS t ADD COLUMN a INTEGER, ADD b INTEGER", "ALTER TABLE t", "ALTER", ["t"]),
        ("DROP TABLE IF EXISTS a, b CASCADE", "DROP TABLE a b", "DROP", ["a", "b"]),
        ("DROP INDEX a, b", "DROP INDEX a", "DROP", []),
        # the rest
        ("EXPLAIN ANALYZE SELECT * FROM t", "EXPLAIN SELECT t", "EXPLAIN", ["t"]),
        ("EXPLAIN (FORMAT json) UPDATE t SET a = 1", "EXPLAIN UPDATE t", "EXPLAIN", ["t"]),
        ("VACUUM ANALYZE t", "VACUUM t", "VACUUM", ["t"]),
        ("ANALYZE t, u", "ANALYZE t u", "ANALYZE", ["t", "u"]),
        ("VALUES (1), (2)", "VALUES", "VALUES", []),
        ("SET search_path TO a, b", "SET", "SET", []),
        ("SHOW transaction_isolation", "SHOW", "SHOW", []),
        ('PRAGMA main.table_info("users")', "PRAGMA", "PRAGMA", []),
        ("BEGIN", "BEGIN", "BEGIN", []),
        ("ROLLBACK TO SAVEPOINT sa_savepoint_1", "ROLLBACK", "ROLLBACK", []),
        ("GRANT SELECT ON t TO secret", "GRANT", "GRANT", []),
        ("{call proc(?)}", "call proc", "CALL", []),
        ("/* c */ ( -- d\n SELECT a FROM t)", "SELECT t", "SELECT", ["t"]),
        ("SELECT a FROM t; UPDATE u SET b = 1; ", "SELECT t UPDATE u", "SELECT", ["t", "u"]),
        ("WITH t AS (SELECT 1) SELECT * FROM t; SELECT * FROM t", "SELECT SELECT SELECT t", "SELECT", ["t"]),
        ("this is no SQL", "", "", []),
        ("", "", "", []),
        ("42", "", "", []),
    ],
)  # fmt: skip
def test_summary_operation_and_tables(text, summary, operation, tables):
    shape = shape_of(text)

    assert (summary, operation, tuple(tables)) == (shape.summary, shape.operation, shape.tables)


METADATA = sa.MetaData()
DOC = pg.JSONB().with_variant(sa.JSON(), "sqlite", "mysql", "mssql", "oracle")
USERS = sa.Table(
    "users",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(50)),
    sa.Column("score", sa.Numeric(10, 2)),
    sa.Column("seen", sa.DateTime),
    sa.Column("we ird%p(x)", sa.String),
    sa.Column("doc", DOC),
    sa.Column("tags", pg.ARRAY(sa.String).with_variant(sa.JSON(), "sqlite", "mysql", "mssql", "oracle")),
)
ORDERS = sa.Table("Order", METADATA, sa.Column("user_id", sa.ForeignKey("users.id")), schema="shop")
U, USER_ID = USERS.c, ORDERS.c.user_id

EVERYWHERE = {
    "comparison": sa.select(U.id).where(U.id == 5, U.name.like("a%"), U.score > 2.5, U.seen.is_(None)),
    "membership": sa.select(U.id).where(U.id.in_([1, 2, 3]), U.name.not_in(["x"])),
    "empty membership": sa.select(U.id).where(U.id.in_([]), U.name.not_in([])),
    "tuples": sa.select(U.id).where(sa.tuple_(U.id, U.name).in_([(1, "a"), (2, "b")])),
    "empty tuples": sa.select(U.id).where(sa.tuple_(U.id, U.name).in_([])),
    "insert": sa.insert(USERS).values(id=3, name="x"),
    "insert of rows": sa.insert(USERS).values([{"id": 3, "name": "x"}, {"id": 4, "name": "y"}]),
    "update": sa.update(USERS).values(name="z").where(U.id == 3),
    "delete": sa.delete(USERS).where(U.id == 3),
    "names": sa.select(U["we ird%p(x)"], USER_ID).where(U["we ird%p(x)"] == "x"),
    "case": sa.select(sa.case((U.id > 3, "x"), else_="y")),
    "arithmetic": sa.select(U.id - 5, U.id + -5, -U.id),
    "text": sa.text("SELECT * FROM users WHERE name = :name AND id IN (:a, :b)"),
    "cte": sa.select(sa.select(U.id).where(U.id > 3).cte("recent")),
    "union": sa.union_all(sa.select(U.id).where(U.id == 1), sa.select(USER_ID)),
}
ON_POSTGRESQL = {
    "json": sa.select(U.doc["k"].as_string(), U.doc["a"]["b"], U.doc[("a", "b")].astext),
    "json operators": sa.select(U.id).where(
        U.doc.op("?")("k"),
        U.doc.op("?|")(pg.array(["a", "b"])),
        U.doc.op("@>")({"a": 1}),
        U.doc.op("@?")("$.a"),
        U.doc.op("@@")("$.a"),
    ),
    "arrays": sa.select(sa.column("tags", pg.ARRAY(sa.String))[1:2], sa.column("tags", pg.ARRAY(sa.String))[1]),
    "any": sa.select(U.id).where(U.id == sa.any_(pg.array([1, 2, 3]))),
    "upsert": pg.insert(USERS).values(id=1, name="x").on_conflict_do_update(index_elements=["id"], set_={"name": "y"}),
    "modulo": sa.select(U.id % 5),
    "distance": sa.select(U.id).order_by(U.name.op("<->")("x")).limit(5).offset(10),
    "values": sa.select(sa.values(sa.column("a", sa.Integer), name="v").data([(1,), (2,)])),
    "bits": sa.select(U.id.bitwise_xor(3)),
    "lateral": sa.select(
        U.id, sa.select(USER_ID).where(USER_ID == U.id).limit(3).lateral("top").c.user_id
    ).with_for_update(skip_locked=True),
}
POSTGRESQL = (psycopg.dialect(), asyncpg.dialect(), psycopg2.dialect(), pg8000.dialect())
OTHERS = (sqlite.dialect(), mysql.dialect(), mssql.dialect(), oracle.dialect())


def compiled(statement, dialects):
    for dialect in dialects:
        if dialect.name == "oracle" and isinstance(statement, sa.Insert) and statement._multi_values:
            continue  # it cannot
        for expanded in (False, True):
            yield str(statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": expanded}))


@pytest.mark.parametrize("case", [*EVERYWHERE, *ON_POSTGRESQL])
def test_one_fingerprint_for_every_driver(case):
    dialects = (*POSTGRESQL, *OTHERS) if case in EVERYWHERE else POSTGRESQL
    texts = list(compiled((EVERYWHERE | ON_POSTGRESQL)[case], dialects))
    shapes = [shape_of(text) for text in texts]

    assert len({shape.fingerprint for shape in shapes}) == 1, sorted({shape.text for shape in shapes})
    assert {shape.fingerprint for shape in shapes} == {shape_of(shape.text).fingerprint for shape in shapes}


@pytest.mark.long
def test_fingerprint_is_the_same_in_every_process_and_release():
    # Dashboards and baselines keep these: a change here is a change of the report's format.
    expected = {
        "SELECT users.id FROM users WHERE users.id = %(id_1)s::INTEGER": "36a91e50c5c68bbe",
        'INSERT INTO shop."Order" (a) VALUES ($1), ($2)': "ce67363f7d27f79d",
    }
    program = "import sys; from sqlprobe.fingerprint import shape_of; print(shape_of(sys.argv[1]).fingerprint)"

    for text, fingerprint in expected.items():
        printed = subprocess.run(
            [sys.executable, "-c", program, text],
            env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        )
        assert [fingerprint] * 2 == [shape_of(text).fingerprint, printed.stdout.strip()]


def test_long_text_is_cut_between_tokens():
    shape = shape_of("SELECT " + ", ".join(f"column_{n}" for n in range(2000)) + " FROM t")

    assert MAX_TEXT * 0.9 < len(shape.text) <= MAX_TEXT
    assert shape.text.endswith(" …")
    assert shape.text.removesuffix(" …").rstrip(",").rsplit(" ", 1)[1] in {f"column_{n}" for n in range(2000)}


def test_end_of_a_long_text_counts():
    text = "SELECT " + ", ".join(f"column_{n}" for n in range(2000)) + " FROM t"

    assert shape_of(text).fingerprint != shape_of(text + " WHERE a = 1").fingerprint
    assert shape_of(text).tables == ("t",)


def test_summary_is_cut_between_names():
    names = ["SELECT", *(f'"table {n}"' for n in range(100))]
    shape = shape_of("SELECT * FROM " + ", ".join(names[1:]))

    assert len(shape.summary) <= MAX_SUMMARY
    assert shape.summary == " ".join(names[: shape.summary.count('"') // 2 + 1])
    assert len(shape.tables) == 100


def test_list_counts_once_however_long():
    ids = ", ".join(f"${n}::INTEGER" for n in range(1, 5 * MAX_TOKENS))
    shape = shape_of(f"SELECT a FROM t WHERE id IN ({ids}) AND b = $9 ORDER BY c")

    assert "SELECT a FROM t WHERE id IN (?) AND b = ? ORDER BY c" == shape.text


def test_long_list_of_arguments_is_no_list():
    shape = shape_of("SELECT f(" + ", ".join(["?"] * 2000) + ")")

    assert "SELECT f(" + ", ".join(["?"] * 1000) in shape.text


def test_what_follows_too_many_tokens_is_not_looked_at():
    text = "SELECT " + "a + " * MAX_TOKENS

    assert shape_of(text + "a FROM t") == shape_of(text + "b FROM u")


@pytest.mark.parametrize("text", [b"SELECT 1", bytearray(b"SELECT 2"), memoryview(b"SELECT 3"), b"SELECT '\xff'"])
def test_takes_bytes(text):
    assert "SELECT ?" == shape_of(text).text


@pytest.mark.parametrize("text", [None, 5, object()])
def test_takes_anything(text):
    assert 16 == len(shape_of(text).fingerprint)


@pytest.mark.parametrize(
    "unit",
    [
        "(", ")", "[", "]", "'", '"', "`", "$", "$a$", "$$", "/*", "*/", "/* /**/", "--", "\n#", "\n", " ", ",", "(,", 'a."',
        "a.", "%(a", ':"', "::", "::a", "::a(", "::a (1", "::a  ", "__[POSTCOMPILE_a~~", "__[POSTCOMPILE_a", "E'\\", "''", "1", "1e",
        "x IN (", "IN (1,", "IN ((1,", "VALUES (", "VALUES (1),", "(1,2),", "(1,x),", ",1", "ARRAY[", "WITH a AS (", "SELECT ",
        "FROM (", "[a ", "?", ":a", "- ", ";", "NULL,", "IN (NULL) AND (1 != 1) ", "\x00", "\ud800", "f(1,2,3,4,5,6,7,8,9,10,11,",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "before",
    ["", *(pytest.param(it, marks=pytest.mark.exhaustive) for it in ("SELECT a IN (", "INSERT INTO t VALUES (1), "))],
)
def test_a_million_characters_of_anything_end(before, unit, size):
    """Work that grew with the square of the length would take hours: pytest's faulthandler_timeout would tell."""
    shape = shape_of(before + unit * (size(1_000_000, 30_000) // len(unit)))

    assert len(shape.text) <= MAX_TEXT
    assert len(shape.summary) <= MAX_SUMMARY
