"""
Write docs/plan-accuracy.md: predicates and indexes, tried on a real server, and what the plan rules say of each.

`--check` only compares which index was used and which rules spoke.
"""

# ruff: noqa: E501, S608 - a case of a table is one line, and its SQL is written here
from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from sqlprobe.demo.server import serve
from sqlprobe.plans.examine import Examiner, Question
from sqlprobe.plans.sampling import Sample
from sqlprobe.settings import Settings

if TYPE_CHECKING:
    from sqlprobe.demo.server import Server

PAGE = Path(__file__).resolve().parent.parent / "docs" / "plan-accuracy.md"

SCHEMA = """
CREATE EXTENSION vector;
CREATE EXTENSION pg_trgm;
CREATE TABLE t (
    id int PRIMARY KEY, tenant int NOT NULL, status varchar(20), created_at timestamptz, tsn timestamp, email text,
    doc jsonb, arr int[], x int, flag bool, uid uuid, code char(8), body tsvector, pad text
);
INSERT INTO t SELECT g, g % 300, CASE WHEN g % 100 = 0 THEN 'hold' WHEN g % 3 = 0 THEN 'open' ELSE 'done' END,
    timestamptz '2025-01-01' + g * interval '10 minutes', timestamp '2025-01-01' + g * interval '10 minutes',
    'user' || g || '@example.org',
    jsonb_build_object('k', 'v' || g % 1000, 'n', g, 'tags', jsonb_build_array('t' || g % 900),
        'a', jsonb_build_object('b', 'w' || g % 800)) || CASE g % 300 WHEN 0 THEN '{"promo": 1}' ELSE '{}' END::jsonb,
    array[g % 2000, 7], g % 8000, g % 900 = 0, md5(g::text)::uuid, 'c' || g % 3000,
    to_tsvector('english', 'word' || g % 2000), repeat('n', 60)
FROM generate_series(1, 60000) g;
CREATE TABLE u (id int PRIMARY KEY, t_id int, y int);
INSERT INTO u SELECT g, g % 60000, g % 8000 FROM generate_series(1, 60000) g;
CREATE TABLE v (id int PRIMARY KEY, tenant int, e vector(16), h halfvec(16));
INSERT INTO v SELECT g, g % 50, s.a::vector, s.a::vector::halfvec FROM generate_series(1, 20000) g
    CROSS JOIN LATERAL (SELECT array_agg(sin(g * 0.37 * d)) AS a FROM generate_series(1, 16) d) s;
VACUUM ANALYZE;
"""

Q = "'[1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0]'"

# Heading, then what is asked of t (or a whole statement), and the index beside it.
CASES: dict[str, list[tuple[str, str]]] = {
    "JSONB": [
        ("doc->'promo' IS NOT NULL", "((doc->'promo'))"),
        ("doc->'promo' IS NOT NULL", "USING gin (doc)"),
        ("doc->'promo' IS NOT NULL", "(id) WHERE doc->'promo' IS NOT NULL"),
        ("doc->'promo' IS NOT NULL", "(id) WHERE doc ? 'promo'"),
        ("doc ? 'promo'", "(id) WHERE doc ? 'promo'"),
        ("doc ? 'promo'", "((doc ? 'promo'))"),
        ("doc ? 'promo'", "USING gin (doc)"),
        ("doc ? 'promo'", "USING gin (doc jsonb_path_ops)"),
        ("doc->>'k' = 'v12'", "((doc->>'k'))"),
        ("doc->>'k' = 'v12'", "USING gin (doc)"),
        ("doc->>'k' = 'v12'", "USING hash ((doc->>'k'))"),
        ("doc->>'k' = 'v12'", "((doc->'k'))"),
        ("jsonb_extract_path_text(doc, 'k') = 'v12'", "((doc->>'k'))"),
        ("jsonb_extract_path_text(doc, 'k') = 'v12'", "(jsonb_extract_path_text(doc, 'k'))"),
        ("doc->>'k' IN ('v12', 'v13')", "((doc->>'k'))"),
        ("""doc @> '{"k": "v12"}'""", "USING gin (doc)"),
        ("""doc @> '{"k": "v12"}'""", "USING gin (doc jsonb_path_ops)"),
        ("""doc @> '{"k": "v12"}'""", "((doc->>'k'))"),
        ("doc @@ '$.n > 59990'", "USING gin (doc)"),
        ("doc @? '$.promo'", "USING gin (doc)"),
        ("""doc @? '$.k ? (@ == "v12")'""", "USING gin (doc jsonb_path_ops)"),
        ("(doc->>'n')::int > 59950", "(((doc->>'n')::int))"),
        ("(doc->>'n')::int > 59950", "((doc->>'n'))"),
        ("(doc->>'n')::int > 59950", "USING gin (doc)"),
        ("(doc->>'n')::int = 59950", "((doc->>'n'))"),
        ("(doc->>'n')::int = 59950", "(((doc->>'n')::int))"),
        ("doc->'n' > '59950'::jsonb", "((doc->'n'))"),
        ("doc['k'] = '\"v12\"'", "((doc['k']))"),
        ("doc['k'] = '\"v12\"'", "((doc->'k'))"),
        ("doc->'k' = '\"v12\"'", "((doc['k']))"),
        ("doc->'a'->>'b' = 'w5'", "((doc->'a'->>'b'))"),
        ("doc->'a'->>'b' = 'w5'", "((doc#>>'{a,b}'))"),
        ("doc#>>'{a,b}' = 'w5'", "((doc#>>'{a,b}'))"),
        ("doc#>>'{a,b}' = 'w5'", "((doc->'a'->>'b'))"),
        ("doc->'tags' @> '[\"t1\"]'", "USING gin ((doc->'tags'))"),
        ("doc->'tags' ? 't1'", "USING gin ((doc->'tags'))"),
        ("doc->'tags' ? 't1'", "USING gin (doc)"),
        ("doc->>'k' LIKE 'v12%'", "((doc->>'k') text_pattern_ops)"),
        ("doc->>'k' LIKE 'v123%'", "USING gin ((doc->>'k') gin_trgm_ops)"),
        ("jsonb_path_exists(doc, '$.promo')", "USING gin (doc)"),
    ],
    "Composites, order, paging": [
        ("status = 'hold' AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(tenant, created_at DESC) WHERE status = 'hold'"),
        ("status = 'hold' AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(tenant, status, created_at DESC)"),
        ("status = 'hold' AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(created_at)"),
        ("status = 'hold' AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(status)"),
        ("x = 5", "(tenant, x)"),
        ("x = 5", "(email, x)"),
        ("x = 5", "(flag, x)"),
        ("status IN ('hold', 'lost') AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(tenant, created_at DESC) WHERE status IN ('hold', 'lost')"),
        ("status IN ('hold', 'lost') AND tenant = 100 ORDER BY created_at DESC LIMIT 20", "(tenant, status, created_at DESC)"),
        ("status = 'hold' AND tenant = 100", "(tenant) WHERE status IN ('hold', 'lost')"),
        ("true ORDER BY created_at DESC NULLS LAST LIMIT 20", "(created_at DESC NULLS LAST)"),
        ("true ORDER BY created_at DESC NULLS LAST LIMIT 20", "(created_at DESC)"),
        ("true ORDER BY created_at DESC, id LIMIT 20", "(created_at DESC)"),
        ("SELECT max(created_at) FROM t WHERE tenant = 5", "(tenant, created_at)"),
        ("SELECT count(*) FROM t WHERE status = 'hold'", "(status)"),
        ("SELECT DISTINCT tenant FROM t", "(tenant)"),
        ("(created_at, id) > ('2026-02-15', 5) ORDER BY created_at, id LIMIT 20", "(created_at, id)"),
        ("created_at > '2026-02-01' OR (created_at = '2026-02-01' AND id > 5) ORDER BY created_at, id LIMIT 20", "(created_at, id)"),
        ("true ORDER BY email LIMIT 20 OFFSET 40000", "(email)"),
        ("true ORDER BY email LIMIT 20", "(email)"),
    ],
    "Text": [
        ("email ILIKE '%user12345%'", "USING gin (email gin_trgm_ops)"),
        ("email ILIKE '%user12345%'", "(email)"),
        ("email LIKE '%5432%'", "(email)"),
        ("email LIKE 'user1234%'", "(email text_pattern_ops)"),
        ("email LIKE 'user1234%'", '(email COLLATE "C")'),
        ("email LIKE 'user1234%'", "USING gist (email gist_trgm_ops)"),
        ("email ILIKE 'user12345@example.org'", "USING gin (email gin_trgm_ops)"),
        ("email ILIKE 'user12345@example.org'", "(lower(email))"),
        ("email = 'user7@example.org' COLLATE \"C\"", '(email COLLATE "C")'),
        ("email = 'user7@example.org' COLLATE \"C\"", "(email)"),
        ("lower(email) = 'user7@example.org'", "(lower(email))"),
        ("lower(email) = 'user7@example.org'", "(email)"),
        ("lower(email) = 'user7@example.org'", "USING gin (email gin_trgm_ops)"),
        ("body @@ to_tsquery('english', 'word5')", "USING gin (body)"),
        ("to_tsvector('english', email) @@ to_tsquery('english', 'user5')", "USING gin (to_tsvector('english', email))"),
        ("to_tsvector('english', email) @@ to_tsquery('english', 'user5')", "USING gin (to_tsvector('simple', email))"),
    ],
    "Functions, casts, arrays, OR": [
        ("date(created_at) = '2025-01-05'", "(created_at)"),
        ("created_at::date = '2025-01-05'", "(created_at)"),
        ("created_at >= '2025-01-05' AND created_at < '2025-01-06'", "(created_at)"),
        ("date(tsn) = '2025-01-05'", "(date(tsn))"),
        ("tsn::date = '2025-01-05'", "(date(tsn))"),
        ("extract(year FROM created_at) = 2024", "(created_at)"),
        ("date_trunc('day', created_at) = '2025-01-05'", "(created_at)"),
        ("date_trunc('day', tsn) = '2025-01-05'", "(date_trunc('day', tsn))"),
        ("created_at >= date '2025-01-05' AND created_at < date '2025-01-06'", "(created_at)"),
        ("x::text = '5'", "(x)"),
        ("x::text = '5'", "((x::text))"),
        ("x + 1 = 6", "(x)"),
        ("coalesce(x, 0) = 5", "(x)"),
        ("coalesce(x, 0) = 5", "(coalesce(x, 0))"),
        ("x + 1 = 6", "((x + 1))"),
        ("coalesce(flag, false)", "(flag)"),
        ("x = 5::numeric", "(x)"),
        ("x = 5::float8", "(x)"),
        ("x = 5::bigint", "(x)"),
        ("uid::text = 'a'", "(uid)"),
        ("uid::text = 'a'", "((uid::text))"),
        ("uid::text = 'a'", "((uid::varchar))"),
        ("status = 'hold'::text AND tenant = 100", "(tenant, status)"),
        ("code = 'c5'::text", "(code)"),
        ("code = 'c5'::varchar", "(code)"),
        ("flag IS TRUE", "(flag)"),
        ("flag IS TRUE", "(id) WHERE flag IS TRUE"),
        ("flag", "(id) WHERE flag"),
        ("flag = true", "(id) WHERE flag"),
        ("flag", "(id) WHERE flag IS TRUE"),
        ("x = ANY ('{5,6,7}')", "(x)"),
        ("x NOT IN (5, 6)", "(x)"),
        ("x <> 5", "(x)"),
        ("status <> 'done' AND status <> 'open'", "(id) WHERE status NOT IN ('done', 'open')"),
        ("arr @> ARRAY[555]", "USING gin (arr)"),
        ("arr && ARRAY[555]", "USING gin (arr)"),
        ("555 = ANY (arr)", "USING gin (arr)"),
        ("x = 5 OR tenant = 7", "(x); CREATE INDEX i2 ON t (tenant)"),
        ("x = 5 OR tenant = 7", "(x)"),
        ("x = 5 OR x = 6 OR pad = 'q'", "(x)"),
        ("x = 5 OR x = 6", "(x)"),
        ("SELECT t.id FROM t JOIN u ON u.t_id = t.id WHERE t.x = 5 OR u.y = 7", "(x); CREATE INDEX i2 ON u (y)"),
    ],
    "Vectors": [
        (f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 10", "ON v USING hnsw (e vector_l2_ops)"),
        (f"SELECT id FROM v ORDER BY e <#> {Q} LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY 1 - (e <=> {Q}) DESC LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} DESC LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY (e <#> {Q}) * -1 DESC LIMIT 10", "ON v USING hnsw (e vector_ip_ops)"),
        (f"SELECT id FROM v ORDER BY cosine_distance(e, {Q}) LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id, row_number() OVER (ORDER BY e <=> {Q}) FROM v LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        ("SELECT a.id, b.id FROM v a JOIN v b ON a.id < b.id AND b.tenant = 3 WHERE a.id = 5 ORDER BY a.e <=> b.e LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        ("SELECT id FROM v ORDER BY e <=> (SELECT e FROM v WHERE id = 5) LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q}, id LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q}", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <+> {Q} LIMIT 10", "ON v USING hnsw (e vector_l1_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 10", "ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 20)"),
        (f"SELECT id FROM v ORDER BY binary_quantize(e)::bit(16) <~> binary_quantize({Q}::vector) LIMIT 10", "ON v USING hnsw ((binary_quantize(e)::bit(16)) bit_hamming_ops)"),
        (f"SELECT id FROM v WHERE e <=> {Q} < 0.3", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v WHERE e <=> {Q} < 0.3 ORDER BY e <=> {Q} LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 1000", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v WHERE tenant = 7 ORDER BY e <=> {Q} LIMIT 10", "ON v USING hnsw (e vector_cosine_ops)"),
        (f"SELECT id FROM v WHERE tenant = 7 ORDER BY e <=> {Q} LIMIT 10", "ON v (tenant)"),
        (f"SELECT id FROM v ORDER BY h <=> {Q} LIMIT 10", "ON v USING hnsw (h halfvec_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 10", "ON v USING hnsw ((e::halfvec(16)) halfvec_cosine_ops)"),
        (f"SELECT id FROM v ORDER BY e::halfvec(16) <=> {Q} LIMIT 10", "ON v USING hnsw ((e::halfvec(16)) halfvec_cosine_ops)"),
    ],
}  # fmt: skip
# Silent on purpose: no index could help.
HELPLESS = {"x NOT IN (5, 6)", "x <> 5"}

HEAD = """\
# What plan rules say, and when they are right

Each predicate below was planned twice on PostgreSQL 18 with pgvector: on a table of 60,000 rows (20,000 vectors)
without the index of its line, and with it. *used* says whether PostgreSQL then used that index. Written by
`python tools/accuracy.py`; the test suite compares.

Right is: silence where the index is used, a finding where it is not, and silence where no index could help. A finding
beside an index that is used is right where it tells of something else: rows that are skipped, or that an approximate
search does not find. The server sorts by bytes (C.UTF-8), as `COLLATE "C"` does: there a plain B-tree serves `LIKE 'x%'`.
"""


def examine(server: Server) -> list[tuple[str, str, str, bool, list[str], list[str]]]:
    """Of each case: heading, predicate, index, whether it was used, what is said without it, and with it."""
    server.psql("CREATE DATABASE accuracy")
    server.psql(SCHEMA, "accuracy")
    engine = sa.create_engine(server.url_for("psycopg", "accuracy"))
    examiner = Examiner(Settings())
    rows = []

    def ask(predicate: str) -> tuple[set[str], list[str]]:
        statement = predicate if predicate.startswith("SELECT") else f"SELECT * FROM t WHERE {predicate}"
        (answer,) = examiner.examine(engine, [Question("", "", Sample(statement))])
        if answer.plan is None:
            raise SystemExit(f"{predicate}: {answer.refused}")
        return {node.index for node in answer.plan.nodes}, [finding.rule for finding in answer.findings]

    alone: dict[str, list[str]] = {}
    for heading, cases in CASES.items():
        for predicate, index in cases:
            before = alone.get(predicate)
            if before is None:
                before = alone[predicate] = ask(predicate)[1]
            on = index if index.startswith("ON ") else f"ON t {index}"
            computed = any(sign in index for sign in ("((", "lower", "date", "to_tsvector", "coalesce", "jsonb_"))
            server.psql(
                f"CREATE INDEX i {on}" + ("; ANALYZE t" if computed and not index.startswith("ON") else ""), "accuracy"
            )
            indexes, after = ask(predicate)
            server.psql("DROP INDEX i; DROP INDEX IF EXISTS i2", "accuracy")
            rows.append((heading, predicate, index.removeprefix("ON v "), "i" in indexes, before, after))
    engine.dispose()
    return rows


def page(rows: list[tuple[str, str, str, bool, list[str], list[str]]]) -> str:
    """The page that tells of *rows*, as `examine` gives them."""
    lines = [HEAD]
    heading = ""
    right = 0
    for group, predicate, index, used, before, after in rows:
        if group != heading:
            heading = group
            lines += [
                f"\n## {group}",
                "| predicate | index | used | said without it | said with it |",
                "|---|---|---|---|---|",
            ]
        right += bool(after) != used or predicate in HELPLESS
        shown = predicate.replace(Q, "q").replace("|", "\\|")
        said = [", ".join(rules) or "-" for rules in (before, after)]
        lines.append(f"| `{shown}` | `{index}` | {'yes' if used else 'no'} | {said[0]} | {said[1]} |")
    lines.append(f"\n{len(rows)} lines: silent where the index is used and told where it is not in {right} of them.")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or compare it; 1 where it differs."""
    with serve() as server:
        text = page(examine(server))
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
