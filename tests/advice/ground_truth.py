"""
Ground truth: statements on tables made for them, with the index that a person would try for each, of every sort that
sqlprobe knows of. See `judging` for what is done with them.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from judging import Situation

ROWS = 200_000  # of each table but the vectors': an HNSW index on as many takes minutes

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE TYPE urgency AS ENUM ('low', 'normal', 'urgent');
CREATE TABLE t (
    id int PRIMARY KEY, tenant int NOT NULL, status varchar(20) NOT NULL, kind urgency NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz, deleted_at timestamptz, email text NOT NULL,
    name text, code varchar(20), doc jsonb, tags int[], x int, skew int, low int, corr int, flag bool,
    amount numeric(10, 2), uid uuid, body text, words tsvector, during tstzrange,
    CHECK (status IN ('open', 'hold', 'failed', 'done'))
);
INSERT INTO t SELECT g, h % 200,
    CASE WHEN r < 0.90 THEN 'done' WHEN r < 0.96 THEN 'open' WHEN r < 0.99 THEN 'hold' ELSE 'failed' END,
    (CASE WHEN r2 < 0.01 THEN 'urgent' WHEN r2 < 0.4 THEN 'low' ELSE 'normal' END)::urgency,
    timestamptz '2025-01-01' + g * interval '1 minute', timestamptz '2025-01-01' + h2 * interval '1 minute',
    CASE WHEN r3 < 0.02 THEN timestamptz '2025-06-01' END, 'User' || h2 || '@example.org',
    'name ' || md5((h2 % 40000)::text), 'c' || h % 3000,
    jsonb_build_object('k', 'v' || h2 % 1000, 'n', h2 % 10000, 'tags', jsonb_build_array('t' || h % 900, 't' || h2 % 700),
        'a', jsonb_build_object('b', 'w' || h % 800)) || CASE WHEN r < 0.003 THEN '{"promo": 1}' ELSE '{}' END::jsonb,
    array[h % 2000, h2 % 3000, 7], h2 % 5000, CASE WHEN r2 < 0.9 THEN 0 ELSE h % 500 END, h % 5, g / 100, r3 < 0.01,
    (h2 % 1000000) / 100.0, md5(g::text)::uuid, 'some text of number ' || h % 20000 || ' and word' || h2 % 5000,
    to_tsvector('english', 'word' || h2 % 5000 || ' other' || h % 300),
    tstzrange(timestamptz '2025-01-01' + g * interval '1 minute', timestamptz '2025-01-01' + (g + 90) * interval '1 minute')
FROM (SELECT g, (g::bigint * 7919 % 1000003)::int AS h, (g::bigint * 104729 % 999983)::int AS h2,
    (g::bigint * 15485863 % 1000033) / 1000033.0 AS r, (g::bigint * 32452843 % 1000037) / 1000037.0 AS r2,
    (g::bigint * 49979687 % 1000039) / 1000039.0 AS r3 FROM generate_series(1, {rows}) g) s;
CREATE TABLE child (id int PRIMARY KEY, t_id int NOT NULL REFERENCES t, qty int, note text);
INSERT INTO child SELECT g, 1 + (g::bigint * 7919 % {rows})::int, (g::bigint * 104729 % 20011)::int, 'note ' || g
FROM generate_series(1, {rows}) g;
-- What is there already, and all but does.
CREATE TABLE u (
    id int PRIMARY KEY, tenant int NOT NULL, status varchar(20), created_at timestamptz, updated_at timestamptz,
    email text, doc jsonb, x int, y int, z int, uid uuid, tags int[]
);
INSERT INTO u SELECT id, tenant, status, created_at, updated_at, email, doc, x, skew + id % 9000, id % 7000, uid, tags
FROM t;
CREATE INDEX u_tenant_created ON u (tenant, created_at);
CREATE INDEX u_x_broken ON u (x);
CREATE INDEX u_k ON u ((doc -> 'k'));
CREATE INDEX u_email ON u (email);
CREATE INDEX u_lower ON u (lower(email));
CREATE INDEX u_paths ON u USING gin (doc jsonb_path_ops);
CREATE INDEX u_updated ON u (updated_at DESC);
CREATE INDEX u_uid ON u ((uid::varchar));
CREATE INDEX u_y_hold ON u (y) WHERE status = 'hold';
CREATE INDEX u_z ON u (z, status);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'u_x_broken'::regclass;
CREATE TABLE small (id int PRIMARY KEY, name text, x int);
INSERT INTO small SELECT g, 'n' || g, g % 50 FROM generate_series(1, 3000) g;
CREATE TABLE v (
    id int PRIMARY KEY, tenant int NOT NULL, big int NOT NULL, e vector(16) NOT NULL, h halfvec(16) NOT NULL
);
INSERT INTO v SELECT g, g % 400, g % 3, s.a::vector, s.a::vector::halfvec FROM generate_series(1, {rows} / 8) g
    CROSS JOIN LATERAL (SELECT array_agg(sin(g * 0.37 * d) + cos(g * d)) AS a FROM generate_series(1, 16) d) s;
CREATE TABLE v_small (id int PRIMARY KEY, e vector(16) NOT NULL);
INSERT INTO v_small SELECT id, e FROM v WHERE id <= 1500;
CREATE TABLE secret (id int PRIMARY KEY, tenant int NOT NULL, email text, x int);
INSERT INTO secret SELECT id, tenant, email, x FROM t;
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON secret USING (tenant = current_setting('app.tenant')::int);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO truth_app;
VACUUM ANALYZE;
"""

AS_APP = (("SET LOCAL ROLE truth_app", None), ("SET LOCAL app.tenant = '7'", None))
Q = "'[1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0]'"
PROMO = {"k": "promo"}

SITUATIONS: list[Situation] = []


def add(heading: str, statement: str, tried: str, *values: dict[str, Any], **more: Any) -> None:
    SITUATIONS.append(Situation(heading, statement, tried, values or ({},), **more))


def each(name: str, *values: Any, **same: Any) -> list[dict[str, Any]]:
    return [{name: value, **same} for value in values]


# --- equality, range, order -------------------------------------------------------------------------------------------
H = "Equality, range, order"
add(H, "SELECT * FROM t WHERE x = %(x)s", "t (x)", {"x": 5})
add(H, "SELECT * FROM t WHERE x IN (%(a)s, %(b)s, %(c)s)", "t (x)", {"a": 5, "b": 77, "c": 990})
add(H, "SELECT * FROM t WHERE x = ANY (%(a)s)", "t (x)", {"a": [5, 6, 7]})
add(H, "SELECT * FROM t WHERE x = %(a)s OR x = %(b)s", "t (x)", {"a": 5, "b": 6})
add(H, "SELECT * FROM t WHERE x BETWEEN %(a)s AND %(b)s", "t (x)", {"a": 10, "b": 20})
add(H, "SELECT * FROM t WHERE x = %(x)s AND amount > %(a)s", "t (x)", {"x": 5, "a": 50})
add(H, "SELECT * FROM t WHERE tenant = %(t)s AND x = %(x)s", "t (tenant, x)", {"t": 5, "x": 1234})
add(H, "SELECT * FROM t WHERE tenant = %(t)s AND low = %(l)s", "t (tenant, low)", {"t": 5, "l": 3})
add(
    H,
    "SELECT * FROM t WHERE tenant = %(t)s AND updated_at > %(u)s",
    "t (tenant, updated_at)",
    {"t": 5, "u": "2026-11-01"},
)
add(H, "SELECT * FROM t WHERE tenant = %(t)s", "t (tenant)", {"t": 5})
add(H, "SELECT * FROM t WHERE skew = %(s)s", "t (skew)", {"s": 17})
add(H, "SELECT * FROM t WHERE corr = %(c)s", "t (corr)", {"c": 1234})
add(H, "SELECT * FROM t WHERE uid = %(u)s::UUID", "t (uid)", {"u": "c4ca4238-a0b9-2382-0dcc-509a6f75849b"})
add(H, "SELECT * FROM t WHERE email = %(e)s::VARCHAR", "t (email)", {"e": "User5000@example.org"})
add(H, "SELECT * FROM t WHERE code = %(c)s::VARCHAR", "t (code)", {"c": "c1234"})
add(H, "SELECT * FROM t WHERE name = %(n)s::VARCHAR", "t (name)", {"n": "name c4ca4238a0b923820dcc509a6f75849b"})
add(H, "SELECT * FROM t WHERE amount > %(a)s", "t (amount)", {"a": 9990})
add(
    H,
    "SELECT * FROM t WHERE created_at >= %(a)s AND created_at < %(b)s",
    "t (created_at)",
    {"a": "2025-03-01", "b": "2025-03-02"},
)
add(
    H,
    "SELECT * FROM t WHERE updated_at >= %(a)s AND updated_at < %(b)s",
    "t (updated_at)",
    {"a": "2025-03-01", "b": "2025-03-02"},
)
add(H, "SELECT * FROM t WHERE created_at > %(a)s", "t (created_at)", {"a": "2025-07-20"})
add(H, "SELECT * FROM t WHERE tenant = %(t)s ORDER BY created_at DESC LIMIT 20", "t (tenant, created_at)", {"t": 5})
add(
    H,
    "SELECT * FROM t WHERE tenant = %(t)s AND status = %(s)s ORDER BY created_at DESC LIMIT 20",
    "t (tenant, status, created_at)",
    {"t": 5, "s": "hold"},
    {"t": 6, "s": "open"},
)
add(
    H,
    "SELECT * FROM t WHERE status IN (%(a)s, %(b)s) AND tenant = %(t)s ORDER BY created_at DESC LIMIT 20",
    "t (tenant, created_at)",
    {"a": "open", "b": "hold", "t": 5},
    {"a": "done", "b": "hold", "t": 5},
)
add(H, "SELECT id, updated_at FROM t ORDER BY updated_at DESC LIMIT 20", "t (updated_at)")
add(H, "SELECT * FROM t ORDER BY updated_at DESC NULLS LAST LIMIT 20", "t (updated_at DESC NULLS LAST)")
add(H, "SELECT * FROM t ORDER BY updated_at DESC, id LIMIT 20", "t (updated_at DESC, id)")
add(H, "SELECT * FROM t ORDER BY name LIMIT 20", "t (name)")
add(
    H,
    "SELECT * FROM t WHERE (updated_at, id) < (%(u)s, %(i)s) ORDER BY updated_at DESC, id DESC LIMIT 20",
    "t (updated_at, id)",
    {"u": "2026-01-01", "i": 5},
)
add(H, "SELECT max(updated_at) FROM t", "t (updated_at)")
add(H, "SELECT min(amount) FROM t WHERE tenant = %(t)s", "t (tenant, amount)", {"t": 5})
add(H, "SELECT max(created_at) FROM t WHERE tenant = %(t)s", "t (tenant, created_at)", {"t": 5})
add(H, "SELECT count(*) FROM t WHERE x = %(x)s", "t (x)", {"x": 5})
add(
    H,
    "SELECT count(*) FROM t WHERE tenant = %(t)s AND created_at >= %(a)s",
    "t (tenant, created_at)",
    {"t": 5, "a": "2025-06-01"},
)
add(H, "SELECT status, count(*) FROM t WHERE tenant = %(t)s GROUP BY status", "t (tenant, status)", {"t": 5})
add(H, "SELECT sum(amount) FROM t WHERE tenant = %(t)s", "t (tenant) INCLUDE (amount)", {"t": 5})
add(
    H,
    "SELECT low, sum(x) FROM t WHERE created_at < %(a)s GROUP BY low",
    "t (created_at) INCLUDE (low, x)",
    {"a": "2025-03-01"},
)
add(H, "SELECT * FROM t WHERE x = %(x)s OR code = %(c)s::VARCHAR", "t (x); t (code)", {"x": 5, "c": "c77"})
add(H, "SELECT * FROM t WHERE email = %(e)s::VARCHAR FOR UPDATE", "t (email)", {"e": "User5000@example.org"})
add(H, "UPDATE t SET low = low WHERE code = %(c)s::VARCHAR", "t (code)", {"c": "c1234"})
add(H, "DELETE FROM child WHERE qty = %(q)s", "child (qty)", {"q": 77})
add(H, "SELECT * FROM child WHERE t_id = %(i)s", "child (t_id)", {"i": 7777})
add(H, "SELECT * FROM child WHERE t_id IN (%(a)s, %(b)s)", "child (t_id)", {"a": 77, "b": 78})
add(
    H,
    "SELECT c.* FROM child c JOIN t ON t.id = c.t_id WHERE t.code = %(c)s::VARCHAR",
    "t (code); child (t_id)",
    {"c": "c1234"},
)
add(H, "SELECT c.note FROM child c JOIN t ON t.id = c.t_id WHERE t.id = %(i)s", "child (t_id)", {"i": 4321})
add(H, "SELECT * FROM t WHERE id IN (SELECT t_id FROM child WHERE qty = %(q)s)", "child (qty)", {"q": 77})
add(
    H,
    "SELECT t.id, (SELECT count(*) FROM child c WHERE c.t_id = t.id) FROM t WHERE t.id BETWEEN %(a)s AND %(b)s",
    "child (t_id)",
    {"a": 50, "b": 60},
)
add(
    H,
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM child c WHERE c.t_id = t.id AND c.qty = %(q)s)",
    "child (qty)",
    {"q": 77},
)
add(H, "SELECT DISTINCT code FROM t WHERE tenant = %(t)s", "t (tenant, code)", {"t": 5})
add(H, "SELECT * FROM u WHERE tenant = %(t)s AND x > %(x)s", "u (tenant, x)", {"t": 5, "x": 4950})

# --- partial ----------------------------------------------------------------------------------------------------------
H = "Partial indexes: a constant in all calls"
add(
    H,
    "SELECT * FROM t WHERE status = %(s)s AND tenant = %(t)s ORDER BY updated_at DESC LIMIT 20",
    "t (tenant, updated_at) WHERE status = 'failed'",
    *each("t", 5, 6, 7, s="failed"),
)
add(
    H,
    "SELECT * FROM t WHERE status IN (%(a)s, %(b)s) AND tenant = %(t)s ORDER BY created_at DESC LIMIT 20",
    "t (tenant, created_at) WHERE status IN ('failed', 'hold')",
    *each("t", 5, 6, 7, a="failed", b="hold"),
)
add(
    H,
    "SELECT * FROM t WHERE kind = %(k)s AND low = %(l)s ORDER BY created_at DESC LIMIT 50",
    "t (low, created_at) WHERE kind = 'urgent'",
    *each("l", 1, 2, 3, k="urgent"),
)
add(
    H,
    "SELECT * FROM t WHERE deleted_at IS NOT NULL AND tenant = %(t)s",
    "t (tenant) WHERE deleted_at IS NOT NULL",
    {"t": 5},
)
add(H, "SELECT * FROM t WHERE deleted_at IS NOT NULL", "t (id) WHERE deleted_at IS NOT NULL")
add(H, "SELECT * FROM t WHERE flag", "t (id) WHERE flag")
add(
    H,
    "SELECT * FROM t WHERE flag IS TRUE AND updated_at > %(u)s",
    "t (updated_at) WHERE flag IS TRUE",
    {"u": "2025-06-01"},
)
add(H, "SELECT * FROM t WHERE deleted_at IS NULL AND x = %(x)s", "t (x) WHERE deleted_at IS NULL", {"x": 5})
add(
    H,
    "SELECT * FROM t WHERE status = %(s)s ORDER BY id DESC LIMIT 20 OFFSET %(o)s",
    "t (id) WHERE status = 'failed'",
    *each("o", 0, 100, 200, s="failed"),
)

# --- JSONB ------------------------------------------------------------------------------------------------------------
H = "JSONB"
add(H, "SELECT * FROM t WHERE (doc ->> %(k)s::TEXT) = %(v)s::VARCHAR", "t ((doc ->> 'k'))", {"k": "k", "v": "v12"})
add(
    H,
    "SELECT * FROM t WHERE (doc ->> %(k)s::TEXT) IN (%(v)s::VARCHAR, %(w)s::VARCHAR)",
    "t ((doc ->> 'k'))",
    {"k": "k", "v": "v12", "w": "v13"},
)
add(H, "SELECT * FROM t WHERE doc[%(k)s::TEXT] = %(v)s::JSONB", "t ((doc['k']))", {"k": "k", "v": '"v12"'})
add(H, "SELECT * FROM t WHERE (doc -> %(k)s::TEXT) = %(v)s::JSONB", "t ((doc -> 'k'))", {"k": "k", "v": '"v12"'})
add(
    H,
    "SELECT * FROM t WHERE (doc[%(a)s::TEXT] ->> %(b)s::TEXT) = %(v)s::VARCHAR",
    "t ((doc['a'] ->> 'b'))",
    {"a": "a", "b": "b", "v": "w12"},
)
add(
    H,
    "SELECT * FROM t WHERE (doc #>> %(p)s::TEXT[]) = %(v)s::VARCHAR",
    "t ((doc #>> '{a,b}'))",
    {"p": ["a", "b"], "v": "w12"},
)
add(H, "SELECT * FROM t WHERE doc @> %(d)s::JSONB", "t USING gin (doc jsonb_path_ops)", {"d": '{"k": "v12"}'})
add(
    H,
    "SELECT * FROM t WHERE doc @> %(d)s::JSONB AND tenant = %(t)s",
    "t USING gin (doc jsonb_path_ops)",
    {"d": '{"k": "v12"}', "t": 7},
)
add(H, "SELECT * FROM t WHERE doc ? %(k)s::TEXT", "t USING gin (doc)", PROMO)
add(H, "SELECT * FROM t WHERE doc[%(k)s::TEXT] IS NOT NULL", "t ((doc['promo']))", PROMO)
add(H, "SELECT * FROM t WHERE (doc -> %(k)s::TEXT) IS NOT NULL", "t ((doc -> 'promo'))", PROMO)
add(
    H,
    "SELECT * FROM t WHERE doc ? %(k)s::TEXT AND tenant = %(t)s",
    "t (tenant) WHERE doc ? 'promo'",
    *each("t", 5, 6, 7, k="promo"),
)
add(H, "SELECT * FROM t WHERE doc ?& %(k)s::TEXT[]", "t USING gin (doc)", {"k": ["promo", "k"]})
add(H, "SELECT * FROM t WHERE doc @? '$.k ? (@ == \"v12\")'", "t USING gin (doc jsonb_path_ops)")
add(
    H,
    "SELECT * FROM t WHERE CAST((doc ->> %(k)s::TEXT) AS INTEGER) > %(n)s",
    "t (((doc ->> 'n')::int))",
    {"k": "n", "n": 9990},
)
add(
    H,
    "SELECT * FROM t WHERE CAST((doc ->> %(k)s::TEXT) AS INTEGER) = %(n)s",
    "t (((doc ->> 'n')::int))",
    {"k": "n", "n": 77},
)
add(H, "SELECT * FROM t WHERE (doc -> %(k)s::TEXT) > %(n)s::JSONB", "t ((doc -> 'n'))", {"k": "n", "n": "9990"})
add(
    H,
    "SELECT * FROM t WHERE (doc -> %(k)s::TEXT) @> %(v)s::JSONB",
    "t USING gin ((doc -> 'tags'))",
    {"k": "tags", "v": '["t1"]'},
)
add(
    H,
    "SELECT * FROM t WHERE (doc -> %(k)s::TEXT) ? %(v)s::TEXT",
    "t USING gin ((doc -> 'tags'))",
    {"k": "tags", "v": "t1"},
)
add(
    H,
    "SELECT * FROM t WHERE (doc ->> %(k)s::TEXT) LIKE %(v)s::VARCHAR",
    "t ((doc ->> 'k') text_pattern_ops)",
    {"k": "k", "v": "v12%"},
)
add(
    H,
    "SELECT * FROM t WHERE jsonb_extract_path_text(doc, 'k') = %(v)s::VARCHAR",
    "t (jsonb_extract_path_text(doc, 'k'))",
    *each("v", "v12", "v13", "v14"),
)
add(
    H,
    "SELECT * FROM t WHERE tenant = %(t)s AND (doc ->> %(k)s::TEXT) = %(v)s::VARCHAR",
    "t (tenant, (doc ->> 'k'))",
    {"t": 5, "k": "k", "v": "v12"},
)
add(H, "SELECT * FROM t ORDER BY (doc ->> %(k)s::TEXT) LIMIT 10", "t ((doc ->> 'k'))", {"k": "k"})

# --- text, arrays, ranges ---------------------------------------------------------------------------------------------
H = "Text, arrays, ranges"
add(H, "SELECT * FROM t WHERE lower(email) = %(e)s::VARCHAR", "t (lower(email))", {"e": "user5000@example.org"})
add(
    H,
    "SELECT * FROM t WHERE lower(email) LIKE %(e)s::VARCHAR",
    "t (lower(email) text_pattern_ops)",
    {"e": "user12345%"},
)
add(H, "SELECT * FROM t WHERE upper(code) = upper(%(c)s)", "t (upper(code))", {"c": "c1234"})
add(H, "SELECT * FROM t WHERE email ILIKE %(e)s::VARCHAR", "t USING gin (email gin_trgm_ops)", {"e": "%user12345%"})
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR", "t USING gin (email gin_trgm_ops)", {"e": "%12345@%"})
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR", "t (email text_pattern_ops)", {"e": "User12345%"})
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR || '%%'", "t (email text_pattern_ops)", {"e": "User12345"})
add(H, "SELECT * FROM t WHERE code LIKE %(c)s::VARCHAR", "t (code varchar_pattern_ops)", {"c": "c123%"})
add(
    H, "SELECT * FROM t WHERE email ~ %(e)s::VARCHAR", "t USING gin (email gin_trgm_ops)", {"e": "User99[0-9]8@example"}
)
add(H, "SELECT * FROM t WHERE words @@ to_tsquery('english', %(q)s)", "t USING gin (words)", {"q": "word77"})
add(
    H,
    "SELECT * FROM t WHERE words @@ plainto_tsquery('english', %(q)s) AND tenant = %(t)s",
    "t USING gin (words)",
    {"q": "word77", "t": 5},
)
add(
    H,
    "SELECT * FROM t WHERE to_tsvector('english', body) @@ plainto_tsquery('english', %(q)s)",
    "t USING gin (to_tsvector('english', body))",
    {"q": "word77"},
)
add(H, "SELECT * FROM t WHERE tags @> %(a)s::INTEGER[]", "t USING gin (tags)", {"a": [555]})
add(H, "SELECT * FROM t WHERE tags && %(a)s::INTEGER[]", "t USING gin (tags)", {"a": [555, 556]})
add(H, "SELECT * FROM t WHERE during @> %(a)s::TIMESTAMPTZ", "t USING gist (during)", {"a": "2025-03-01"})
add(
    H,
    "SELECT * FROM t WHERE during && tstzrange(%(a)s, %(b)s)",
    "t USING gist (during)",
    {"a": "2025-03-01", "b": "2025-03-02"},
)
add(
    H,
    "SELECT * FROM t WHERE date_trunc('day', updated_at AT TIME ZONE 'UTC') = %(d)s::TIMESTAMP",
    "t (date_trunc('day', updated_at AT TIME ZONE 'UTC'))",
    *each("d", "2025-03-01", "2025-03-02", "2025-03-03"),
)
add(
    H,
    "SELECT * FROM t WHERE coalesce(name, email) = %(n)s::VARCHAR",
    "t (coalesce(name, email))",
    {"n": "name c4ca4238a0b923820dcc509a6f75849b"},
)
add(H, "SELECT * FROM t WHERE coalesce(x, 0) = %(x)s", "t (coalesce(x, 0))", *each("x", 55, 56, 57))
add(H, "SELECT * FROM t WHERE left(code, 5) = %(c)s", "t (left(code, 5))", *each("c", "c1234", "c1235", "c1236"))

# --- vectors ----------------------------------------------------------------------------------------------------------
H = "Vectors"
add(H, f"SELECT id FROM v ORDER BY e <=> {Q}::vector LIMIT 10", "v USING hnsw (e vector_cosine_ops)")
add(H, f"SELECT id FROM v ORDER BY e <-> {Q}::vector LIMIT 10", "v USING hnsw (e vector_l2_ops)")
add(H, f"SELECT id FROM v ORDER BY e <#> {Q}::vector LIMIT 10", "v USING hnsw (e vector_ip_ops)")
add(H, f"SELECT id FROM v ORDER BY h <=> {Q}::halfvec LIMIT 10", "v USING hnsw (h halfvec_cosine_ops)")
add(
    H,
    f"SELECT id FROM v ORDER BY e::halfvec(16) <=> {Q}::halfvec(16) LIMIT 10",
    "v USING hnsw ((e::halfvec(16)) halfvec_cosine_ops)",
)
add(
    H,
    f"SELECT id FROM v ORDER BY binary_quantize(e)::bit(16) <~> binary_quantize({Q}::vector) LIMIT 10",
    "v USING hnsw ((binary_quantize(e)::bit(16)) bit_hamming_ops)",
)
add(H, f"SELECT id FROM v WHERE tenant = %(t)s ORDER BY e <=> {Q}::vector LIMIT 10", "v (tenant)", {"t": 5})

# --- row security -----------------------------------------------------------------------------------------------------
H = "Under row security, as the application's role"
add(H, "SELECT * FROM secret WHERE x = %(x)s", "secret (tenant, x)", {"x": 5}, settings=AS_APP, role="truth_app")
add(
    H,
    "SELECT * FROM secret WHERE lower(email) = %(e)s::VARCHAR",
    "secret (tenant)",
    {"e": "user5@example.org"},
    settings=AS_APP,
    role="truth_app",
)
add(
    H,
    "SELECT * FROM secret WHERE email LIKE %(e)s::VARCHAR",
    "secret (tenant)",
    {"e": "User5%"},
    settings=AS_APP,
    role="truth_app",
)

# --- an index is there, and all but does ------------------------------------------------------------------------------
H = "An index is there that all but does"
add(H, "SELECT * FROM u WHERE x = %(x)s", "u (x)", {"x": 5}, says="u_x_broken is invalid")
add(
    H,
    "SELECT * FROM u WHERE doc[%(k)s::TEXT] = %(v)s::JSONB",
    "u ((doc['k']))",
    {"k": "k", "v": '"v12"'},
    says="two different expressions",
)
add(H, "SELECT * FROM u WHERE email LIKE %(e)s::VARCHAR", "u (email text_pattern_ops)", {"e": "User12345%"})
add(H, "SELECT * FROM u WHERE doc ? %(k)s::TEXT", "u USING gin (doc)", PROMO, says="operator class jsonb_path_ops")
add(
    H,
    "SELECT * FROM u ORDER BY updated_at DESC NULLS LAST LIMIT 20",
    "u (updated_at DESC NULLS LAST)",
    says="NULLs at the other end",
)
add(
    H,
    "SELECT * FROM u WHERE y = %(y)s AND status = %(s)s",
    "u (y)",
    {"y": 77, "s": "done"},
    {"y": 78, "s": "open"},
    says="has only the rows of",
)
add(H, "SELECT * FROM u WHERE upper(email) = %(e)s", "u (upper(email))", {"e": "USER5000@EXAMPLE.ORG"})
add(H, "SELECT * FROM u WHERE email ILIKE %(e)s::VARCHAR", "u USING gin (email gin_trgm_ops)", {"e": "%user12345%"})

# --- what only looks useful -------------------------------------------------------------------------------------------
H = "An index that only looks useful"
add(H, "SELECT * FROM t WHERE status = %(s)s", "t (status)", {"s": "done"})
add(H, "SELECT * FROM t WHERE skew = %(s)s", "t (skew)", {"s": 0})
add(H, "SELECT * FROM t WHERE tenant > %(t)s", "t (tenant)", {"t": 3})
add(H, "SELECT * FROM t WHERE x <> %(x)s", "t (x)", {"x": 5})
add(H, "SELECT * FROM t WHERE x NOT IN (%(a)s, %(b)s)", "t (x)", {"a": 5, "b": 6})
add(H, "SELECT * FROM t WHERE low = %(l)s", "t (low)", {"l": 3})
add(H, "SELECT * FROM t WHERE low IN (%(a)s, %(b)s)", "t (low)", {"a": 1, "b": 3})
add(H, "SELECT * FROM t WHERE x > %(x)s", "t (x)", {"x": 3000})
add(H, "SELECT * FROM t WHERE created_at > %(a)s", "t (created_at)", {"a": "2025-01-20"})
add(H, "SELECT * FROM t WHERE corr BETWEEN %(a)s AND %(b)s", "t (corr)", {"a": 200, "b": 2500})
add(H, "SELECT * FROM t WHERE deleted_at IS NULL", "t (deleted_at)")
add(H, "SELECT * FROM t WHERE flag IS FALSE", "t (flag)")
add(H, "SELECT * FROM t WHERE kind = %(k)s::urgency", "t (kind)", {"k": "normal"})
add(H, "SELECT * FROM t WHERE amount IS NOT NULL", "t (amount)")
add(H, "SELECT * FROM t ORDER BY updated_at", "t (updated_at)")
add(H, "SELECT * FROM t ORDER BY name, code", "t (name, code)")
add(H, "SELECT status, sum(amount), max(body) FROM t GROUP BY status", "t (status)")
add(H, "SELECT sum(amount), max(body) FROM t", "t (amount)")
add(H, "SELECT * FROM t WHERE status = %(s)s LIMIT 10", "t (status)", {"s": "done"})
add(H, "SELECT * FROM t WHERE low = %(l)s LIMIT 20", "t (low)", {"l": 3})
add(H, "SELECT EXISTS (SELECT 1 FROM t WHERE low = %(l)s)", "t (low)", {"l": 2})
add(H, "SELECT * FROM t WHERE id = %(i)s AND status = %(s)s", "t (id, status)", {"i": 77, "s": "done"})
add(H, "SELECT * FROM t WHERE id IN (%(a)s, %(b)s) ORDER BY created_at", "t (id, created_at)", {"a": 77, "b": 78})
add(H, "SELECT * FROM t ORDER BY id DESC LIMIT 20", "t (id DESC)")
add(H, "SELECT * FROM t WHERE id > %(i)s ORDER BY id LIMIT 20", "t (id, created_at)", {"i": 5000})
add(H, "SELECT * FROM small WHERE name = %(n)s::VARCHAR", "small (name)", {"n": "n5"})
add(H, "SELECT * FROM small WHERE x = %(x)s ORDER BY name", "small (x, name)", {"x": 5})
add(H, "SELECT * FROM t JOIN child c ON c.t_id = t.id", "child (t_id)")
add(
    H,
    "SELECT count(*) FROM t JOIN child c ON c.t_id = t.id WHERE t.status = %(s)s AND c.note <> ''",
    "t (status); child (t_id)",
    {"s": "done"},
)
add(H, "SELECT * FROM t WHERE x = %(x)s OR length(body) > %(n)s", "t (x)", {"x": 5, "n": 10})
add(
    H,
    "SELECT * FROM t JOIN child c ON c.t_id = t.id WHERE t.low = %(x)s OR c.qty > %(q)s",
    "t (low); child (qty)",
    {"x": 2, "q": 7},
)
add(H, "SELECT * FROM t WHERE email ILIKE %(e)s::VARCHAR", "t USING gin (email gin_trgm_ops)", {"e": "%r1%"})
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR", "t (email text_pattern_ops)", {"e": "User%"})
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR", "t USING gin (email gin_trgm_ops)", {"e": "%example%"})
add(H, "SELECT * FROM t WHERE tags @> %(a)s::INTEGER[]", "t USING gin (tags)", {"a": [7]})
add(H, "SELECT * FROM t WHERE doc ? %(k)s::TEXT", "t USING gin (doc)", {"k": "k"})
add(H, "SELECT * FROM t WHERE (doc ->> %(k)s::TEXT) IS NOT NULL", "t ((doc ->> 'k'))", {"k": "k"})
add(
    H,
    "SELECT * FROM t WHERE CAST((doc ->> %(k)s::TEXT) AS INTEGER) > %(n)s",
    "t (((doc ->> 'n')::int))",
    {"k": "n", "n": 900},
)
add(H, "SELECT * FROM t WHERE coalesce(name, email) <> %(n)s::VARCHAR", "t (coalesce(name, email))", {"n": "a"})
add(H, "SELECT * FROM u WHERE tenant = %(t)s", "u (tenant)", {"t": 5})
add(
    H, "SELECT * FROM u WHERE tenant = %(t)s ORDER BY created_at DESC LIMIT 20", "u (tenant, created_at DESC)", {"t": 5}
)
add(H, "SELECT * FROM u WHERE z = %(z)s", "u (z)", {"z": 77})
add(
    H,
    "SELECT * FROM u WHERE lower(email) = %(e)s::VARCHAR AND tenant = %(t)s",
    "u (lower(email), tenant)",
    {"e": "user5000@example.org", "t": 5},
)
add(H, "SELECT * FROM u WHERE doc @> %(d)s::JSONB", "u USING gin (doc)", {"d": '{"k": "v12"}'})
add(H, "SELECT * FROM v_small ORDER BY e <=> " + Q + "::vector LIMIT 10", "v_small USING hnsw (e vector_cosine_ops)")
add(H, f"SELECT id FROM v WHERE big = %(b)s ORDER BY e <=> {Q}::vector", "v (big)", {"b": 1})

# --- the statement has to change --------------------------------------------------------------------------------------
H = "Only another statement helps"
R = {"kind": "rewrite"}
add(H, "SELECT * FROM t WHERE date(created_at) = %(d)s", "t (created_at)", {"d": "2025-03-01"}, **R)
add(H, "SELECT * FROM t WHERE extract(year FROM created_at) = %(y)s", "t (created_at)", {"y": 2024}, **R)
add(H, "SELECT * FROM t WHERE %(a)s = ANY (tags)", "t USING gin (tags)", {"a": 555}, **R)
add(H, "SELECT * FROM t WHERE x = %(x)s::NUMERIC", "t (x)", {"x": 5}, **R)
add(H, "SELECT * FROM t WHERE x = %(x)s::FLOAT8", "t (x)", {"x": 5.0}, **R)
add(H, "SELECT * FROM t WHERE x::VARCHAR = %(x)s::VARCHAR", "t (x)", {"x": "5"}, **R)
add(H, "SELECT * FROM t WHERE uid::TEXT = %(u)s", "t (uid)", {"u": "c4ca4238-a0b9-2382-0dcc-509a6f75849b"}, **R)
add(H, "SELECT * FROM t WHERE x + 1 = %(x)s", "t (x)", {"x": 6}, **R)
add(H, "SELECT * FROM t WHERE email LIKE %(e)s::VARCHAR", "t (email text_pattern_ops)", {"e": "%1"}, **R)
add(H, f"SELECT id FROM v ORDER BY 1 - (e <=> {Q}::vector) DESC LIMIT 10", "v USING hnsw (e vector_cosine_ops)", **R)
add(H, f"SELECT id FROM v ORDER BY cosine_distance(e, {Q}::vector) LIMIT 10", "v USING hnsw (e vector_cosine_ops)", **R)
add(H, f"SELECT id FROM v WHERE e <=> {Q}::vector < 0.3", "v USING hnsw (e vector_cosine_ops)", **R)
add(H, f"SELECT id FROM v ORDER BY e <=> {Q}::vector", "v USING hnsw (e vector_cosine_ops)", **R)
add(
    H,
    "SELECT * FROM t WHERE updated_at < %(u)s OR (updated_at = %(u)s AND id < %(i)s) ORDER BY created_at DESC LIMIT 20 OFFSET 50000",
    "t (updated_at, id)",
    {"u": "2026-01-01", "i": 5},
    **R,
)
add(H, "SELECT * FROM t ORDER BY random() LIMIT 5", "", **R)
add(
    H,
    "SELECT * FROM t WHERE md5(body || %(s)s) = %(m)s",
    "t (body)",
    {"s": "salt", "m": "c4ca4238a0b923820dcc509a6f75849b"},
    **R,
)

# In the default run: of each sort, quick to build, and all decided by a table of a tenth of the size.
SLICE = [
    "SELECT * FROM t WHERE x = %(x)s",
    "SELECT * FROM t WHERE tenant = %(t)s ORDER BY created_at DESC LIMIT 20",
    "SELECT * FROM t WHERE x = %(x)s OR code = %(c)s::VARCHAR",
    "SELECT * FROM t WHERE status = %(s)s AND tenant = %(t)s ORDER BY updated_at DESC LIMIT 20",
    "SELECT * FROM t WHERE CAST((doc ->> %(k)s::TEXT) AS INTEGER) > %(n)s",
    "SELECT * FROM t WHERE doc ? %(k)s::TEXT",
    "SELECT * FROM u ORDER BY updated_at DESC NULLS LAST LIMIT 20",
    "SELECT * FROM t WHERE status = %(s)s",
    "SELECT * FROM t WHERE low = %(l)s LIMIT 20",
    "SELECT * FROM t WHERE x + 1 = %(x)s",
]


def fill(psql: Any, rows: int = ROWS) -> None:
    """Make the tables, with *rows* in t; the role `truth_app` has to be there. *psql* runs a script."""
    psql(SCHEMA.replace("{rows}", str(rows)))


def some(statements: list[str]) -> list[Situation]:
    """The first situation of each of *statements*."""
    found = {}
    for situation in SITUATIONS:
        found.setdefault(situation.statement, situation)
    return [found[statement] for statement in statements]


def mixed(number: int, seed: int = 7) -> list[Situation]:
    """*number* situations for a benchmark, the same ones each time."""
    chosen = random.Random(seed).choices(SITUATIONS, k=number)
    return [dataclasses.replace(situation) for situation in chosen]
