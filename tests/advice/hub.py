"""
JupyterHub: the tables of its own models, and statements that its own code sent, taken down by bench/record_jupyterhub.py.

The tables have the indexes that the models declare: of their primary and unique keys, and of two prefixes. The rows
are made up: a large installation with many idle users, a few who have most of the tokens, and some hundred groups. See
`judging` for what is done with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from judging import Situation

ROWS = 200_000  # tokens; the other tables as fits
RECORDED = Path(__file__).resolve().parent.parent / "data" / "applications" / "jupyterhub-6.1.1.json"

ROWS_OF = """
CREATE FUNCTION of(salt int, key bigint, n bigint) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql
    AS 'SELECT (hashint8extended(key, salt) & 9223372036854775807) % n';
-- Of n, the first ones most often: half of all are among the first eighth.
CREATE FUNCTION skewed(salt int, key bigint, n bigint) RETURNS bigint IMMUTABLE PARALLEL SAFE LANGUAGE sql
    AS 'SELECT (power(of(salt, key, 1000000) / 1000000.0, 3) * n)::bigint % n';
INSERT INTO roles (name, description, scopes, managed_by_auth) SELECT name, name || 's', '["self"]', false
FROM unnest(array['user', 'admin', 'server', 'token', 'teacher', 'grader', 'observer', 'support']) name;
INSERT INTO groups (name, properties) SELECT 'course-' || g, '{}' FROM generate_series(1, 500) g;
INSERT INTO users (name, admin, created, last_activity, cookie_id) SELECT 'user-' || g, g % 500 = 0,
    timestamp '2022-01-01' + g * interval '30 minutes',
    CASE WHEN of(1, g, 10) > 0 THEN timestamp '2026-10-01' - skewed(2, g, 1500 * 1440) * interval '1 minute' END,
    md5('cookie' || g)
FROM generate_series(1, {rows} / 4) g;
INSERT INTO user_role_map SELECT id, 1, false FROM users WHERE id % 200 > 0;
INSERT INTO user_role_map SELECT id, 2 + of(3, id, 7), true FROM users WHERE id % 50 = 0;
INSERT INTO group_role_map SELECT id, 5 + id % 3, false FROM groups;
INSERT INTO user_group_map SELECT DISTINCT u, 1 + skewed(4, u * 4 + i, 500)
FROM generate_series(1, {rows} / 4) u, generate_series(1, 3) i WHERE of(5, u * 4 + i, 3) < 2;
INSERT INTO oauth_clients (identifier, description, redirect_uri, allowed_scopes) VALUES
    ('jupyterhub', 'JupyterHub', '/hub/oauth_callback', '[]');
INSERT INTO oauth_clients (identifier, description, secret, redirect_uri, allowed_scopes)
SELECT 'jupyterhub-user-user-' || g, 'Server of user-' || g, md5('secret' || g), '/user/user-' || g || '/oauth_callback',
    '["access:servers!server=user-' || g || '/"]' FROM generate_series(1, {rows} / 4, 2) g;
INSERT INTO oauth_clients (identifier, description, secret, redirect_uri, allowed_scopes)
SELECT 'service-' || g, 'Service ' || g, md5('service' || g), '/services/' || g || '/oauth_callback', '[]'
FROM generate_series(1, 20) g;
INSERT INTO servers (proto, ip, port, base_url, cookie_name) SELECT 'http', '10.' || g / 62500 || '.' || g / 250 % 250 ||
    '.' || g % 250, 8888, '/user/user-' || g * 11 || '/', 'jupyterhub-user' FROM generate_series(1, {rows} / 50) g;
INSERT INTO services (name, admin, url, oauth_client_allowed_scopes, info, display, oauth_no_confirm, timeout,
    from_config, oauth_client_id)
SELECT 'service-' || g, g < 3, 'http://10.250.0.' || g || ':10101', '[]', '{}', true, false, 30, true, 'service-' || g
FROM generate_series(1, 20) g;
INSERT INTO service_role_map SELECT id, 3 + id % 5, false FROM services;
INSERT INTO spawners (user_id, server_id, state, name, started, last_activity, user_options, oauth_client_id)
SELECT g, CASE WHEN g % 11 = 0 AND g / 11 <= {rows} / 50 THEN g / 11 END, '{}', '',
    CASE WHEN g % 11 = 0 THEN timestamp '2026-09-30' + g % 1440 * interval '1 minute' END,
    timestamp '2026-10-01' - skewed(6, g, 1500 * 1440) * interval '1 minute', '{}',
    CASE WHEN g % 2 = 1 THEN 'jupyterhub-user-user-' || g END
FROM generate_series(1, {rows} / 4) g;
INSERT INTO spawners (user_id, state, name, last_activity, user_options)
SELECT 1 + skewed(7, g, {rows} / 4), '{}', 'named-' || g, timestamp '2026-10-01' - of(8, g, 900000) * interval '1 minute',
    '{}' FROM generate_series(1, {rows} / 10) g;
INSERT INTO api_tokens (user_id, service_id, hashed, prefix, client_id, session_id, created, expires_at, last_activity,
    note, scopes)
SELECT CASE WHEN g % 100 > 0 THEN u END, CASE WHEN g % 100 = 0 THEN 1 + g / 100 % 20 END,
    'sha512:1:' || md5('salt' || g) || ':' || md5('hash' || g) || md5(g::text), left(md5('token' || g), 4),
    CASE WHEN of(11, g, 10) < 4 THEN 'jupyterhub' WHEN of(11, g, 10) < 8 AND u % 2 = 1 THEN 'jupyterhub-user-user-' || u
        WHEN of(11, g, 10) = 8 THEN 'service-' || 1 + of(12, g, 20) END,
    CASE WHEN of(11, g, 10) < 8 THEN md5('session' || g / 3) END,
    timestamp '2026-10-01' - g * interval '2 minutes',
    CASE WHEN of(13, g, 3) > 0 THEN timestamp '2026-10-01' + of(14, g, 20160) * interval '1 minute' END,
    CASE WHEN of(15, g, 3) > 0 THEN timestamp '2026-10-01' - of(16, g, 43200) * interval '1 minute' END,
    'Server at /user/user-' || u || '/', '["access:servers!server=user-' || u || '/", "read:users:name"]'
FROM (SELECT g, 1 + skewed(10, g, {rows} / 4) AS u FROM generate_series(1, {rows}) g) s;
INSERT INTO oauth_codes (client_id, code, expires_at, redirect_uri, session_id, user_id, scopes)
SELECT 'jupyterhub-user-user-' || 1 + 2 * of(20, g, {rows} / 8), md5('code' || g), 1790000000 + g, '/oauth_callback',
    md5('s' || g), 1 + of(21, g, {rows} / 4), '[]' FROM generate_series(1, {rows} / 20) g;
INSERT INTO shares (user_id, group_id, created_at, scopes, expires_at, owner_id, spawner_id)
SELECT CASE WHEN g % 10 > 0 THEN 1 + of(30, g, {rows} / 4) END, CASE WHEN g % 10 = 0 THEN 1 + skewed(31, g, 500) END,
    timestamp '2026-10-01' - g * interval '3 minutes', '["access:servers!server=user-' || o || '/"]',
    CASE WHEN g % 3 = 0 THEN timestamp '2026-10-01' + of(32, g, 90000) * interval '1 minute' END, o, o
FROM (SELECT g, 1 + skewed(33, g, {rows} / 4) AS o FROM generate_series(1, {rows} / 2) g) s;
INSERT INTO share_codes (hashed, prefix, exchange_count, created_at, scopes, expires_at, owner_id, spawner_id)
SELECT 'sha512:1:' || md5('s' || g) || ':' || md5('share' || g), left(md5('code' || g), 4), of(40, g, 9),
    timestamp '2026-10-01' - g * interval '9 minutes', '["access:servers!server=user-' || o || '/"]',
    timestamp '2026-10-01' + of(41, g, 1440) * interval '1 minute', o, o
FROM (SELECT g, 1 + skewed(42, g, {rows} / 4) AS o FROM generate_series(1, {rows} / 4) g) s;
DROP FUNCTION skewed;
DROP FUNCTION of;
VACUUM ANALYZE;
"""

# What a person would try, by what a statement holds; the first that it holds is meant.
TRIED = [
    ("WHERE oauth_codes.code =", "oauth_codes (code)"),
    ("api_tokens.session_id =", "api_tokens (user_id) | api_tokens (session_id) | api_tokens (user_id, session_id)"),
    ("api_tokens.client_id = %(client_id_1)", "api_tokens (user_id) | api_tokens (user_id, client_id)"),
    ("WHERE api_tokens.prefix =", "api_tokens (prefix, expires_at)"),
    ("WHERE share_codes.prefix =", "share_codes (prefix, expires_at)"),
    ("= api_tokens.user_id", "api_tokens (user_id)"),
    ("= oauth_codes.user_id", "oauth_codes (user_id)"),
    ("= api_tokens.client_id", "api_tokens (client_id)"),
    ("= oauth_codes.client_id", "oauth_codes (client_id)"),
    ("shares.spawner_id = %(spawner_id_1)s::INTEGER AND shares.owner_id", "shares (spawner_id) | shares (user_id)"),
    ("shares.owner_id =", "shares (owner_id) | shares (owner_id, id)"),
    ("= shares.owner_id", "shares (owner_id)"),
    ("shares.spawner_id =", "shares (spawner_id) | shares (spawner_id, id)"),
    ("= shares.spawner_id", "shares (spawner_id)"),
    ("= shares.user_id", "shares (user_id) | shares (user_id, id)"),
    ("shares.user_id IN", "shares (user_id)"),
    ("= shares.group_id", "shares (group_id) | shares (group_id) WHERE group_id IS NOT NULL"),
    ("shares.group_id IN", "shares (group_id)"),
    ("share_codes.owner_id =", "share_codes (owner_id) | share_codes (owner_id, id)"),
    ("= share_codes.owner_id", "share_codes (owner_id)"),
    ("share_codes.spawner_id =", "share_codes (spawner_id) | share_codes (spawner_id, id)"),
    ("= share_codes.spawner_id", "share_codes (spawner_id)"),
    ("= spawners.user_id", "spawners (user_id)"),
    ("= spawners.server_id", "spawners (server_id)"),
    (
        "spawners.server_id IS NOT NULL GROUP BY",
        "spawners (server_id) | spawners (user_id) WHERE server_id IS NOT NULL",
    ),
    ("spawners.server_id IS NOT NULL", "spawners (server_id) | spawners (id) WHERE server_id IS NOT NULL"),
    (
        "count(servers.id) =",
        "spawners (user_id) | spawners (user_id, server_id) | spawners (user_id) INCLUDE (server_id)",
    ),
    ("= user_group_map.group_id", "user_group_map (group_id) | user_group_map (group_id, user_id)"),
    ("user_group_map.group_id", "user_group_map (group_id) | user_group_map (group_id, user_id)"),
    ("= user_role_map.role_id", "user_role_map (role_id) | user_role_map (role_id, user_id)"),
    ("count(roles.id) =", "user_role_map (role_id) | user_role_map (user_id) INCLUDE (role_id)"),
    ("users.name ILIKE", "users (name text_pattern_ops) | users (lower(name))"),
    (
        "ORDER BY users.last_activity IS NULL, users.last_activity DESC",
        "users ((last_activity IS NULL), last_activity DESC)",
    ),
    ("ORDER BY users.last_activity IS NOT NULL", "users ((last_activity IS NOT NULL), last_activity)"),
    ("ORDER BY users.id IS NULL", "users ((id IS NULL), id DESC)"),
    ("ORDER BY users.id IS NOT NULL", "users ((id IS NOT NULL), id)"),
    ("users.last_activity >=", "users (last_activity)"),
    ("api_tokens.expires_at <", "api_tokens (expires_at)"),
    ("oauth_codes.expires_at <", "oauth_codes (expires_at)"),
    ("share_codes.expires_at <", "share_codes (expires_at)"),
    ("shares.expires_at <", "shares (expires_at)"),
]


def _situations() -> list[Situation]:
    return [
        Situation(
            each["where"].partition(":")[0],
            each["statement"],
            next((tried for part, tried in TRIED if part in each["statement"]), ""),
            tuple(each["values"]) or ({},),
            label=each["where"],
        )
        for each in json.loads(RECORDED.read_text())["statements"]
    ]


SITUATIONS = _situations()


def define(psql: Any) -> None:
    """Make the tables, as the models did. *psql* runs a script."""
    psql(";\n".join(json.loads(RECORDED.read_text())["definitions"]))


def populate(psql: Any, rows: int = ROWS) -> None:
    """Fill the tables, with *rows* tokens."""
    psql(ROWS_OF.replace("{rows}", str(rows)))


def fill(psql: Any, rows: int = ROWS) -> None:
    define(psql)
    populate(psql, rows)
