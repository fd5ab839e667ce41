"""Every rule, by statements that are run on a real server: it fires, is silent on the good twin, and after its advice."""

from __future__ import annotations

import contextlib

import pytest
import sqlalchemy as sa

from sqlprobe import faults
from sqlprobe.plans import judge
from sqlprobe.plans import plan as plans
from sqlprobe.plans.catalog import Catalog
from sqlprobe.settings import Settings

Q = "'[1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0]'"


@pytest.fixture(autouse=True)
def nothing_fails():
    yield
    assert () == faults.told()


@pytest.fixture
def changed(world):
    """`with changed("CREATE INDEX …", undo="DROP INDEX …")`: the tables are as they were afterwards."""

    @contextlib.contextmanager
    def change(script, *, undo):
        world.psql(script)
        try:
            yield
        finally:
            world.psql(undo)

    return change


# --- unusable-predicate -----------------------------------------------------------------------------------------------

# Statement, form, the statement that its advice leads to, and an index with which that one is silent.
UNUSABLE = [
    ("SELECT * FROM t WHERE x = 5::numeric", "cast-number", "SELECT * FROM t WHERE x = 5", "t (x)"),
    ("SELECT * FROM t WHERE x = 5::float8", "cast-number", "SELECT * FROM t WHERE x = 5::bigint", "t (x)"),
    ("SELECT * FROM t WHERE x::text = '5'", "cast-text", "SELECT * FROM t WHERE x = 5", "t (x)"),
    ("SELECT * FROM t WHERE uid::text = 'a'", "cast-uuid", f"SELECT * FROM t WHERE uid = '{'a' * 32}'::uuid", "t (uid)"),
    ("SELECT * FROM t WHERE code = 'c5'::text", "cast-char", "SELECT * FROM t WHERE code = 'c5'::char(8)", "t (code)"),
    ("SELECT * FROM t WHERE date(created_at) = '2025-01-05'", "moment",
     "SELECT * FROM t WHERE created_at >= '2025-01-05' AND created_at < '2025-01-06'", "t (created_at)"),
    ("SELECT * FROM t WHERE created_at::date = '2025-01-05'", "moment",
     "SELECT * FROM t WHERE created_at >= '2025-01-05' AND created_at < '2025-01-06'", "t (created_at)"),
    ("SELECT * FROM t WHERE date_trunc('day', made) = '2025-01-05'", "moment",
     "SELECT * FROM t WHERE made >= '2025-01-05' AND made < '2025-01-06'", "t (made)"),
    ("SELECT * FROM t WHERE extract(year FROM created_at) = 2024", "moment",
     "SELECT * FROM t WHERE created_at >= '2024-01-01' AND created_at < '2025-01-01'", "t (created_at)"),
    ("SELECT * FROM t WHERE created_at AT TIME ZONE 'UTC' = '2025-01-05'", "time-zone",
     "SELECT * FROM t WHERE created_at = timestamp '2025-01-05' AT TIME ZONE 'UTC'", "t (created_at)"),
    ("SELECT * FROM t WHERE extract(month FROM created_at) = 3", "moment-part",
     "SELECT * FROM t WHERE extract(month FROM created_at AT TIME ZONE 'UTC') = 3",
     "t (extract(month FROM created_at AT TIME ZONE 'UTC'))"),
    ("SELECT * FROM t WHERE x + 1 = 6", "arithmetic", "SELECT * FROM t WHERE x = 6 - 1", "t (x)"),
    ("SELECT * FROM t WHERE coalesce(flag, false)", "coalesce", "SELECT * FROM t WHERE flag IS TRUE", "t (flag)"),
    ("SELECT * FROM t WHERE 555 = ANY (tags)", "any-array", "SELECT * FROM t WHERE tags @> ARRAY[555]", "t USING gin (tags)"),
    ("SELECT * FROM t WHERE email LIKE '%r555@%'", "leading-wildcard", "SELECT * FROM t WHERE email LIKE '%r555@%'",
     "t USING gin (email gin_trgm_ops)"),
    ("SELECT * FROM t WHERE doc @@ '$.n > 29990'", "jsonpath", "SELECT * FROM t WHERE doc['n'] > '29990'::jsonb",
     "t ((doc['n']))"),
    ("SELECT * FROM t WHERE created_at < '2025-01-05' OR (created_at = '2025-01-05' AND id < 5) ORDER BY created_at DESC, id DESC LIMIT 20", "keyset",
     "SELECT * FROM t WHERE (created_at, id) < ('2025-01-05', 5) ORDER BY created_at DESC, id DESC LIMIT 20",
     "t (created_at, id)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "form", "good", "index"), UNUSABLE, ids=[f"{case[1]}-{n}" for n, case in enumerate(UNUSABLE)]
)
def test_unusable_predicate_is_told_and_its_advice_silences_it(world, changed, bad, form, good, index):
    statistics = "; ANALYZE t" if "((" in index or "extract" in index else ""  # of an expression
    with changed(f"CREATE INDEX advised ON {index}{statistics}", undo="DROP INDEX advised"):
        after = world.rules(good)
        still = [] if bad == good else world.findings(bad)
    before = world.findings(bad)

    assert [("unusable-predicate", form)] == [(f.rule, f.evidence["form"]) for f in before]
    assert [] == after
    assert [form] * len(still) == [f.evidence["form"] for f in still]  # the index alone does not mend it


def test_unusable_predicate_names_the_index_that_lies_idle(world, changed):
    with changed("CREATE INDEX t_x ON t (x)", undo="DROP INDEX t_x"):
        (finding,) = world.findings("SELECT * FROM t WHERE x = 5::numeric")

    assert (
        (
            "(x)::numeric = ?: an integer column is compared with a numeric: t is searched without an index, "
            "though t_x is there"
        ),
        "pass an int for x: with a Decimal or a float the column is converted row by row",
        "t.x",
        "t_x",
        "seq-scan",
        [("rewrite", "t.c.x == int(value)")],
    ) == (
        finding.title,
        finding.advice,
        finding.label,
        finding.evidence["index_not_used"],
        finding.evidence["also"],
        [(fix.kind, fix.code) for fix in finding.fixes],
    )


def test_an_or_across_tables_is_told_and_a_union_is_not(world, changed):
    bad = "SELECT t.id FROM t JOIN child c ON c.t_id = t.id WHERE t.x = 5 OR c.amount = 7"
    good = (
        "SELECT t.id FROM t JOIN child c ON c.t_id = t.id WHERE t.x = 5 UNION"
        " SELECT t.id FROM t JOIN child c ON c.t_id = t.id WHERE c.amount = 7"
    )
    indexes = "CREATE INDEX a ON t (x); CREATE INDEX b ON child (amount); CREATE INDEX c ON child (t_id)"
    with changed(indexes, undo="DROP INDEX a, b, c"):
        found = world.findings(bad)
        after = world.rules(good)

    assert ([("unusable-predicate", "or-across-tables")], []) == ([(f.rule, f.evidence["form"]) for f in found], after)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t WHERE status::text = 'hold' AND tenant = 3 AND x = 3",  # varchar as text: no cast at all
        "SELECT * FROM small WHERE lower(name) = 'n5'",
        "SELECT * FROM t WHERE id = 5 AND date(created_at) = '2025-01-05'",  # one row is looked at
        "SELECT * FROM t WHERE email LIKE 'user%' LIMIT 5",
        "SELECT * FROM t WHERE tenant <> 5",
        "SELECT * FROM t WHERE tenant NOT IN (1, 2, 3)",
        "SELECT * FROM small WHERE name || 'x' = 'n5x'",
    ],
)
def test_unusable_predicate_is_silent_where_nothing_hinders(world, statement):
    assert "unusable-predicate" not in world.rules(statement)


# --- scans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("doc ->> 'k' = 'v12'", "((doc ->> 'k'))"),
        ("lower(email) = 'user5@example.org'", "(lower(email))"),
        ("tenant = 5 AND status = 'hold'", "(tenant, status)"),
        ("uid = md5('7')::uuid", "(uid)"),
        ('doc @> \'{"k": "v12"}\'', "USING gin (doc)"),
        ("x = 5 OR tenant = 7", "(x); CREATE INDEX second ON t (tenant)"),
    ],
)
def test_seq_scan_is_told_and_an_index_silences_it(world, changed, where, index):
    statement = f"SELECT * FROM t WHERE {where}"
    before = world.rules(statement)
    statistics = "; ANALYZE t" if index.startswith("((") or "lower" in index else ""
    undo = "DROP INDEX first; DROP INDEX IF EXISTS second"
    with changed(f"CREATE INDEX first ON t {index}{statistics}", undo=undo):
        after = world.rules(statement)

    assert (["seq-scan"], []) == (before, after)


def test_seq_scan_is_told_in_full(world):
    (finding,) = world.findings(
        "SELECT * FROM t WHERE tenant = %(t)s AND status = %(s)s ORDER BY created_at DESC LIMIT 20",
        {"t": 5, "s": "hold"},
    )

    assert {
        "title": f"all of t (30,000 rows, 7 MB) is read to find {finding.evidence['rows_kept']} rows",
        "advice": "index what it filters by: tenant, status",
        "label": "t",
        "key": "seq-scan|t|status,tenant|ffffffffffffffff",
    } == {name: getattr(finding, name) for name in ("title", "advice", "label", "key")}
    assert "Seq Scan on t" in finding.evidence["plan"]
    assert "hold" not in str(finding)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM t",
        "SELECT count(*) FROM t",
        "SELECT * FROM t WHERE tenant < 150",  # most of them
        "SELECT * FROM t WHERE tenant <> 5",  # no index could
        "SELECT * FROM small WHERE name = 'n5'",
        "SELECT * FROM t WHERE tenant = 5 LIMIT 1",  # stopped early
        "SELECT * FROM t WHERE id = 5",
    ],
)
def test_seq_scan_is_silent_where_it_is_right(world, statement):
    assert "seq-scan" not in world.rules(statement)


def test_seq_scan_believes_the_rows_returned_more_than_the_estimate(world, stats_of):
    statement = "SELECT * FROM t WHERE doc['promo'] IS NOT NULL"

    assert ([], ["seq-scan"]) == (
        world.rules(statement),
        world.rules(statement, stats=stats_of(0.05, calls=10, rows=100)),
    )


def test_filter_discards_rows_is_told_and_the_composite_index_silences_it(world, changed):
    statement = "SELECT * FROM t WHERE tenant = 5 AND x = 5 AND status = 'hold'"
    skewed = "SELECT * FROM t WHERE status = 'hold' AND email = 'user5@example.org'"
    with changed("CREATE INDEX a ON t (status)", undo="DROP INDEX a"):
        found = world.findings(skewed, settings=[("enable_seqscan", "off")])
    with changed("CREATE INDEX a ON t (status, email)", undo="DROP INDEX a"):
        after = world.rules(skewed)
    with changed("CREATE INDEX a ON t (tenant, x)", undo="DROP INDEX a"):
        small = world.rules(statement)  # the index finds one row, and a filter looks at it

    assert (["filter-discards-rows"], [], []) == ([f.rule for f in found], after, small)
    assert ("a finds 7,410 rows of t, and a filter keeps 1 of them", "give the index what the filter tests: email") == (
        found[0].title.replace(f"{found[0].evidence['rows_read']:,}", "7,410"),
        found[0].advice,
    )


def test_whole_index_walk_is_told_and_the_right_index_silences_it(world, changed):
    statement = "SELECT * FROM t WHERE x = 4999 ORDER BY created_at LIMIT 3"
    walk = [("enable_seqscan", "off"), ("enable_sort", "off")]
    with changed("CREATE INDEX a ON t (created_at)", undo="DROP INDEX a"):
        found = world.findings(statement, settings=walk)
        plenty = world.rules("SELECT * FROM t WHERE tenant >= 0 ORDER BY created_at LIMIT 3")
    with changed("CREATE INDEX a ON t (x, created_at)", undo="DROP INDEX a"):
        after = world.rules(statement, settings=walk)

    assert (["whole-index-walk"], [], []) == ([f.rule for f in found], plenty, after)
    assert "index x first, then what it is sorted by (created_at)" == found[0].advice


def test_whole_index_walk_tells_of_an_index_whose_first_column_is_not_asked_for(world, changed):
    statement = "SELECT * FROM t WHERE x = 4999"
    with changed("CREATE INDEX a ON t (email, x)", undo="DROP INDEX a"):
        found = world.findings(statement, settings=[("enable_seqscan", "off")])
    with changed("CREATE INDEX a ON t (status, x)", undo="DROP INDEX a"):
        skipped = world.rules(statement)  # four values before it: PostgreSQL 18 skips through them

    assert (["whole-index-walk"], [] if world.version >= 18 else ["whole-index-walk"]) == (
        [f.rule for f in found], skipped,
    )  # fmt: skip
    assert "a begins with email, which is not asked for: it is searched from end to end" == found[0].title


def test_nested_loop_is_told_and_an_index_silences_it(world, changed):
    statement = "SELECT a.id, (SELECT sum(amount) FROM child c WHERE c.t_id = a.id) FROM t a WHERE a.id < 300"
    found = world.findings(statement)
    with changed("CREATE INDEX a ON child (t_id)", undo="DROP INDEX a"):
        after = world.rules(statement)
    once = world.rules("SELECT a.id, (SELECT max(amount) FROM child c) FROM t a WHERE a.id < 300")

    assert (["nested-loop"], [], []) == ([f.rule for f in found], after, once)
    assert "index child by t_id" == found[0].advice


@pytest.mark.parametrize(("offset", "expected"), [(20_000, ["deep-offset"]), (1_000, ["deep-offset"]), (100, [])])
def test_deep_offset_is_told_from_a_thousand_rows_on(world, offset, expected):
    found = world.findings("SELECT * FROM t ORDER BY email LIMIT 50 OFFSET %(offset)s", {"offset": offset})

    assert expected == [f.rule for f in found]
    if expected:
        assert f"about {offset:,} rows of t are read to be skipped by OFFSET" == found[0].title
        code = ".where(tuple_(t.c.email, t.c.id) > tuple_(last.email, last.id)).order_by(t.c.email, t.c.id).limit(size)"
        assert [code] == [fix.code for fix in found[0].fixes]


def by(sign, *names, backward=False):
    columns, suffix = [f"t.c.{name}" for name in names], ".desc()" if backward else ""
    last, order = ", ".join(f"last.{name}" for name in names), ", ".join(f"{column}{suffix}" for column in columns)
    return [f".where(tuple_({', '.join(columns)}) {sign} tuple_({last})).order_by({order}).limit(size)"]


@pytest.mark.parametrize(
    ("order", "codes"),
    [
        ("ORDER BY email DESC, id DESC", by("<", "email", "id", backward=True)),
        ("ORDER BY email, id DESC", []),
        ("ORDER BY id", by(">", "id")),  # these come from the index
        ("ORDER BY id DESC", by("<", "id", backward=True)),
        ("ORDER BY lower(email), id", []),
        ("ORDER BY email, x, tenant, id", []),
        ("", []),
    ],
)
def test_deep_offset_pages_in_the_order_of_the_query(world, order, codes):
    (found,) = world.findings(f"SELECT * FROM t {order} LIMIT 50 OFFSET 20000")

    assert ("deep-offset", codes) == (found.rule, [fix.code for fix in found.fixes])
    assert ("nothing sorts the rows" in found.advice) == (not order)


@pytest.mark.parametrize("order", ["email", "email DESC", "id", "id DESC", "x DESC, id DESC"])
def test_deep_offset_has_a_rewrite_that_returns_the_page(world, tables, order):
    (found,) = world.findings(f"SELECT * FROM t ORDER BY {order} LIMIT 50 OFFSET 20000")
    engine = sa.create_engine(tables())
    t = sa.Table("t", sa.MetaData(), sa.Column("id"), sa.Column("email"), sa.Column("x"))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT * FROM t ORDER BY {order} LIMIT 50 OFFSET 19950").all()
        page = connection.exec_driver_sql(f"SELECT id FROM t ORDER BY {order} LIMIT 50 OFFSET 20000").all()
        names = {"t": t, "tuple_": sa.tuple_, "last": rows[-1], "size": 50, "query": sa.select(t.c.id)}
        rewritten = connection.execute(eval(f"query{found.fixes[0].code}", names)).all()
    engine.dispose()

    assert page == rewritten


def test_deep_offset_has_no_rewrite_where_rows_would_be_lost(world, changed):
    statement = "SELECT * FROM t ORDER BY x LIMIT 50 OFFSET 20000"
    (sure,) = world.findings(statement)
    with changed(
        "UPDATE t SET x = NULL WHERE id <= 3000; ANALYZE t",
        undo="UPDATE t SET x = id % 5000 WHERE x IS NULL; ANALYZE t",
    ):
        (null,) = world.findings(statement)
    with changed("ALTER TABLE t DROP CONSTRAINT t_pkey", undo="ALTER TABLE t ADD PRIMARY KEY (id)"):
        (alike,) = world.findings(statement)  # nothing tells rows of one x apart

    assert (by(">", "x", "id"), [], []) == tuple([fix.code for fix in each.fixes] for each in (sure, null, alike))


def test_deep_offset_is_silent_for_a_page_by_its_last_row(world, changed):
    with changed("CREATE INDEX a ON t (email, id)", undo="DROP INDEX a"):
        after = world.rules("SELECT * FROM t WHERE (email, id) > ('user5', 5) ORDER BY email, id LIMIT 50")

    assert [] == after


def test_sort_spill_is_told_as_expected_and_as_measured(world):
    statement = "SELECT * FROM t ORDER BY email"
    little = [("work_mem", "512kB")]
    expected = world.findings(statement, settings=little)
    (measured,) = world.findings(statement, settings=little, analyze=True)
    enough = world.rules(statement, settings=[("work_mem", "64MB")], analyze=True)
    few = world.rules("SELECT * FROM t ORDER BY email LIMIT 5", settings=little)

    assert (["sort-spill"], "sort-spill", [], []) == ([f.rule for f in expected], measured.rule, enough, few)
    assert (0, 1) == (expected[0].evidence["measured"], measured.evidence["measured"])


def test_misestimate_is_told_when_measured_and_when_rows_were_returned(world, stats_of):
    statement = "SELECT * FROM t WHERE doc['promo'] IS NOT NULL AND tenant >= 0 AND id >= 0"
    measured = world.findings("SELECT * FROM t WHERE doc['nothing'] IS NOT NULL", analyze=True)
    returned = world.findings(statement, stats=stats_of(0.05, calls=10, rows=100))
    right = world.rules("SELECT * FROM t WHERE tenant < 150", analyze=True)

    assert [["seq-scan"], ["seq-scan"], []] == [[f.rule for f in measured], [f.rule for f in returned], right]
    assert ("misestimate", "misestimate") == (measured[0].evidence["also"], returned[0].evidence["also"])


def test_misestimate_owns_what_no_index_would_mend(world):
    (finding,) = world.findings("SELECT count(*) FROM t WHERE doc['nothing'] IS NULL", analyze=True)

    assert ("misestimate", 150, 30_000, 200) == (
        finding.rule, finding.evidence["rows_expected"], finding.evidence["rows_real"], finding.evidence["factor"],
    )  # fmt: skip
    assert "CREATE STATISTICS ON (doc['nothing'::text]) FROM public.t; ANALYZE public.t" == finding.fixes[0].code


def test_stale_statistics_are_told_and_analyze_silences_it(world, changed):
    grow = """CREATE TABLE g AS SELECT n AS id, n % 7 AS k FROM generate_series(1, 100) n; ANALYZE g"""
    with changed(grow, undo="DROP TABLE g"):
        before = world.rules("SELECT count(*) FROM g")
        world.psql("INSERT INTO g SELECT n, n % 7 FROM generate_series(1, 60000) n")
        world.flush("g")
        found = world.findings("SELECT count(*) FROM g")
        world.psql("ANALYZE g")
        after = world.rules("SELECT count(*) FROM g")
    with changed("CREATE TABLE g AS SELECT n AS id FROM generate_series(1, 60000) n", undo="DROP TABLE g"):
        never = world.findings("SELECT count(*) FROM g")

    assert ([], ["stale-statistics"], [], ["stale-statistics"]) == (
        before, [f.rule for f in found], after, [f.rule for f in never],
    )  # fmt: skip
    assert "g (2 MB) is planned blindly: it was never analysed" == never[0].title


def test_partition_pruning_lost_is_told_and_a_range_silences_it(world, changed):
    with changed(PARTITIONS, undo="DROP TABLE p"):
        found = world.findings("SELECT * FROM p WHERE day::date = '2025-02-05'")
        good = world.rules("SELECT * FROM p WHERE day >= '2025-02-05' AND day < '2025-02-06'")
        whole = world.rules("SELECT * FROM p WHERE id = 5")

    assert ("partition-pruning-lost", "p", "day") == (found[0].rule, found[0].label, found[0].key.split("|")[2])
    assert "all 3 partitions of p are read: ((p_1.day)::date = ?::date) does not tell which" == found[0].title
    assert ("partition-pruning-lost" not in good, "partition-pruning-lost" not in whole) == (True, True)


def test_rls_hides_index_is_told_to_the_role_it_happens_to(world, changed):
    make = """
    CREATE ROLE app_rls; GRANT SELECT ON t TO app_rls; CREATE INDEX a ON t (lower(email)); ANALYZE t;
    ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    CREATE POLICY mine ON t USING (tenant = current_setting('app.tenant')::int)
    """
    undo = "DROP POLICY mine ON t; ALTER TABLE t DISABLE ROW LEVEL SECURITY; DROP INDEX a; DROP OWNED BY app_rls; DROP ROLE app_rls"
    statement = "SELECT * FROM t WHERE lower(email) = 'user5@example.org'"
    role = (("SET LOCAL ROLE app_rls", None), ("SET LOCAL app.tenant = '5'", None))
    with changed(make, undo=undo):
        found = world.findings(statement, before=role)
        owner = world.rules(statement)
        with changed("CREATE INDEX b ON t (tenant)", undo="DROP INDEX b"):
            after = world.rules(statement, before=role)

    assert (["rls-hides-index"], [], []) == ([f.rule for f in found], owner, after)
    assert ("a is not used under row security: (lower(t.email) = ?::text) is not leakproof", "mine") == (
        found[0].title, found[0].evidence["policies"],
    )  # fmt: skip
    assert "index tenant, which the policy of t compares" == found[0].advice


def test_wide_columns_are_told_where_they_are_fetched(world, changed, stats_of):
    make = """
    CREATE TABLE w (id int PRIMARY KEY, body text); ALTER TABLE w ALTER body SET STORAGE EXTERNAL;
    INSERT INTO w SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 2500) g; ANALYZE w
    """
    with changed(make, undo="DROP TABLE w"):
        found = world.findings("SELECT id, body FROM w", stats=stats_of(0.05, calls=3, rows=2500))
        deferred = world.rules("SELECT id FROM w", stats=stats_of(0.05, calls=3, rows=2500))
        few = world.rules("SELECT id, body FROM w WHERE id = 5", stats=stats_of(0.001, calls=3, rows=1))

    assert (["wide-columns"], [], []) == ([f.rule for f in found], deferred, few)
    assert ".options(defer(Model.body))" == found[0].fixes[0].code


def test_unbounded_result_is_told_by_rows_that_were_returned(world, stats_of):
    def told(statement, rows):
        return world.rules(statement, stats=stats_of(0.2, calls=4, rows=rows))

    assert [["unbounded-result"], [], [], []] == [
        told("SELECT * FROM t", 30_000),
        told("SELECT * FROM t LIMIT 20000", 20_000),
        told("SELECT * FROM small", 500),
        told("INSERT INTO small SELECT id + 1000, note FROM t", 30_000),
    ]


# --- what each rule must not accuse -----------------------------------------------------------------------------------

INNOCENT = {
    "misestimate": [
        ("SELECT * FROM t WHERE tenant < 150 LIMIT 5", True),  # stopped early: it was right, and is not asked further
        ("SELECT * FROM small s WHERE EXISTS (SELECT FROM t WHERE t.tenant = s.id % 200 AND t.x >= 0)", True),
        ("SELECT * FROM t WHERE id = 5", True),
        ("SELECT * FROM t WHERE id = -5", True),  # one is expected, none is there
        ("SELECT * FROM t WHERE tenant BETWEEN 10 AND 20 ORDER BY id", True),
        ("SELECT * FROM small a JOIN t ON t.id = a.id LIMIT 3", True),
    ],
    "whole-index-walk": [
        ("SELECT * FROM t ORDER BY id LIMIT 20", False),
        ("SELECT * FROM t ORDER BY id", False),
        ("SELECT count(*) FROM t", False),
        ("SELECT max(id) FROM t", False),
        ("SELECT * FROM t WHERE tenant >= 0 ORDER BY id LIMIT 3", False),
        ("SELECT * FROM t WHERE status = 'hold' ORDER BY id LIMIT 5", False),  # a quarter: found in twenty rows
    ],
    "nested-loop": [
        ("SELECT * FROM child c JOIN t ON t.id = c.t_id WHERE c.amount < 50", False),  # by the primary key
        ("SELECT * FROM small a, small b WHERE a.id < b.id", False),
        ("SELECT * FROM small a LEFT JOIN t ON t.id = a.id", False),
        ("SELECT * FROM small a WHERE EXISTS (SELECT FROM t WHERE t.id = a.id)", False),
        ("SELECT * FROM small a, LATERAL (SELECT * FROM t WHERE t.id >= a.id ORDER BY t.id LIMIT 1) q", False),
    ],
    "filter-discards-rows": [
        ("SELECT * FROM t WHERE id = 5 AND tenant = 5", False),
        ("SELECT * FROM t WHERE id < 5000 AND note <> ''", False),  # it keeps all of them
        ("SELECT * FROM t WHERE id < 200 AND tenant = 5", False),  # few are looked at
        ("SELECT * FROM t WHERE id IN (1, 2, 3) AND status = 'hold'", False),
        ("SELECT * FROM small WHERE id < 400 AND name = 'n5'", False),
    ],
    "deep-offset": [
        ("SELECT * FROM t ORDER BY id LIMIT 20 OFFSET 0", False),
        ("SELECT * FROM t ORDER BY id LIMIT 20 OFFSET 40", False),
        ("SELECT * FROM t ORDER BY id LIMIT 5000", False),
        ("SELECT * FROM small ORDER BY id LIMIT 10 OFFSET 450", False),
        ("SELECT * FROM t WHERE id = 5 OFFSET 20000", False),  # there is nothing to skip
    ],
    "sort-spill": [
        ("SELECT * FROM t ORDER BY email LIMIT 20", True),  # the first few are kept, not all
        ("SELECT * FROM t ORDER BY id", True),  # the index has the order
        ("SELECT * FROM small ORDER BY name", True),
        ("SELECT tenant, count(*) FROM t GROUP BY tenant", True),
        ("SELECT DISTINCT status FROM t", True),
    ],
    "wide-columns": [
        ("SELECT doc FROM t WHERE id = 5", True),
        ("SELECT note FROM t", True),  # short texts, in the row
        ("SELECT count(doc) FROM t", True),
        ("SELECT e FROM v WHERE id < 10", True),
        ("SELECT id FROM v", True),
    ],
    "stale-statistics": [
        ("SELECT * FROM small", False),
        ("SELECT * FROM t", False),
        ("SELECT * FROM generate_series(1, 50000)", False),
        ("SELECT * FROM (VALUES (1), (2)) q(a)", False),
        ("SELECT * FROM pg_class", False),
    ],
    "unbounded-result": [
        ("SELECT tenant, count(*) FROM t GROUP BY tenant", False),
        ("SELECT * FROM t LIMIT 100", False),
        ("SELECT * FROM t WHERE id = 5", False),
        ("SELECT max(x) FROM t", False),
        ("UPDATE t SET x = x", False),
    ],
}


@pytest.mark.parametrize("rule", sorted(INNOCENT))
def test_what_looks_like_it_and_is_right_is_not_accused(world, rule):
    accused = [
        (statement, finding.title)
        for statement, analyze in INNOCENT[rule]
        for finding in world.findings(statement, analyze=analyze)
        if finding.rule == rule or rule in str(finding.evidence.get("also", ""))
    ]

    assert [] == accused


PARTITIONS = """
CREATE TABLE p (id int, day timestamptz) PARTITION BY RANGE (day);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2025-02-01') TO ('2025-03-01');
CREATE TABLE p3 PARTITION OF p FOR VALUES FROM ('2025-03-01') TO ('2025-04-01');
INSERT INTO p SELECT g, timestamptz '2025-01-01' + g * interval '4 minute' FROM generate_series(1, 30000) g;
ANALYZE p
"""
POLICIES = """
CREATE ROLE app_rls; GRANT SELECT ON t, small, child TO app_rls;
ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON t USING (tenant = current_setting('app.tenant')::int);
ALTER TABLE small ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_it ON small USING (true);
CREATE INDEX a ON t (x); CREATE INDEX b ON t (tenant, lower(email)); ANALYZE t
"""
NO_POLICIES = """
DROP POLICY mine ON t; ALTER TABLE t DISABLE ROW LEVEL SECURITY; DROP INDEX a; DROP INDEX b;
DROP POLICY all_of_it ON small; ALTER TABLE small DISABLE ROW LEVEL SECURITY; DROP OWNED BY app_rls; DROP ROLE app_rls
"""
GRAPH = "CREATE INDEX a ON v USING hnsw (e vector_cosine_ops) WITH (m = 4, ef_construction = 16)"
LISTS = "CREATE INDEX a ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 12)"
NEAREST = f"ORDER BY e <=> {Q} LIMIT 5"
AS_TENANT = (("SET LOCAL ROLE app_rls", None), ("SET LOCAL app.tenant = '5'", None))
# What has to be there, what undoes it, what the connection has set, and the statements.
INNOCENT_BESIDE = {
    "partition-pruning-lost": (PARTITIONS, "DROP TABLE p", (), [
        "SELECT * FROM p WHERE day >= '2025-02-05' AND day < '2025-02-06'",
        "SELECT count(*) FROM p",
        "SELECT * FROM p WHERE id = 5",
        "SELECT * FROM p WHERE day >= '2024-01-01'",  # it asks for all of them
        "SELECT * FROM p WHERE day::date = '2025-02-05' AND day >= '2025-02-05' AND day < '2025-02-06'",
        "SELECT * FROM p WHERE day IN ('2025-01-05', '2025-02-05', '2025-03-05')",  # one in each
        "SELECT * FROM p1 WHERE day::date = '2025-01-05'",  # one partition, by its own name
        "SELECT * FROM p WHERE day = (SELECT max(day) FROM p1)",  # told while it runs
    ]),
    "rls-hides-index": (POLICIES, NO_POLICIES, AS_TENANT, [
        "SELECT * FROM t WHERE x = 5",  # = of integers is leakproof
        "SELECT * FROM t WHERE id = 5",
        "SELECT * FROM t WHERE lower(email) = 'user5@example.org'",  # the index begins with what the policy compares
        "SELECT * FROM t WHERE note LIKE '%n%'",  # no index would serve it
        "SELECT * FROM small WHERE upper(name) = 'N5'",  # a policy that lets everything through
        "SELECT * FROM child WHERE amount::text = '5'",  # a table without one
    ]),
    "vector-operator-mismatch": (GRAPH, "DROP INDEX a", (), [
        f"SELECT id FROM v {NEAREST}",
        f"SELECT id, e <-> {Q} AS far FROM v {NEAREST}",  # the other distance is only shown
        f"SELECT id FROM v WHERE id < 50 ORDER BY e <-> {Q} LIMIT 5",  # of few rows
        "SELECT id FROM v WHERE id = 5",
        "SELECT count(e) FROM v",
    ]),
    "vector-overfiltering": (GRAPH, "DROP INDEX a", (), [
        f"SELECT id FROM v {NEAREST}",
        f"SELECT id FROM v WHERE tenant = 3 {NEAREST}",  # nearly all rows
        f"SELECT id FROM v WHERE tenant = 1 {NEAREST}",  # the index on tenant finds the few exactly
        f"SELECT id FROM v WHERE id = 7 {NEAREST}",
        f"SELECT id FROM (SELECT id, tenant FROM v ORDER BY e <=> {Q} LIMIT 40) q WHERE tenant = 2",  # it says so itself
    ]),
    "vector-unusable-form": (GRAPH, "DROP INDEX a", (), [
        f"SELECT id FROM v {NEAREST}",
        f"SELECT id, 1 - (e <=> {Q}) AS similarity FROM v {NEAREST}",
        f"SELECT id FROM v WHERE e <=> {Q} < 0.9 {NEAREST}",  # a threshold beside the order that the index has
        f"SELECT id FROM (SELECT id, e <=> {Q} AS far FROM v {NEAREST}) q ORDER BY 1 - far",
        f"SELECT avg(e <=> {Q}) FROM v WHERE id < 50",
    ]),
    "vector-index-parameters": (LISTS, "DROP INDEX a", (("SET LOCAL ivfflat.probes = 3", None),), [
        f"SELECT id FROM v {NEAREST}",
        f"SELECT id FROM v WHERE tenant = 3 {NEAREST}",
        "SELECT id FROM v WHERE id = 5",
        f"SELECT id FROM v WHERE id < 50 {NEAREST}",
        f"SELECT id FROM v ORDER BY e <-> {Q} LIMIT 5",  # the index is not used
    ]),
    "missing-vector-index": ("ANALYZE v", "ANALYZE v", (), [
        f"SELECT id FROM v WHERE tenant = 1 {NEAREST}",  # few rows: to compare them all is exact
        f"SELECT id FROM v WHERE id < 50 {NEAREST}",
        f"SELECT id FROM v ORDER BY e <=> {Q}",  # all of them, sorted
        f"SELECT min(e <=> {Q}) FROM v WHERE tenant = 1",
        "SELECT id FROM v WHERE e = '[1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0]'",
        "SELECT avg(e) FROM v",
    ]),
}  # fmt: skip


@pytest.mark.parametrize("rule", INNOCENT_BESIDE)
def test_what_is_right_beside_what_it_needs_is_not_accused(world, changed, rule):
    make, undo, before, statements = INNOCENT_BESIDE[rule]
    with changed(make, undo=undo):
        accused = [
            (statement, finding.title)
            for statement in statements
            for finding in world.findings(statement, before=before)
            if finding.rule == rule or rule in str(finding.evidence.get("also", ""))
        ]

    assert [] == accused


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_missing_vector_index_is_told_and_the_index_silences_it(world, changed):
    statement = f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 5"
    (found,) = world.findings(statement)
    with changed(
        "CREATE INDEX advised ON v USING hnsw (e vector_cosine_ops) WITH (m = 4, ef_construction = 16)",
        undo="DROP INDEX advised",
    ):
        after = world.rules(statement)
        other = world.findings(f"SELECT id FROM v ORDER BY e <-> {Q} LIMIT 5")
        exact = world.rules(f"SELECT id FROM v WHERE id < 50 ORDER BY e <=> {Q} LIMIT 5")
    rare = world.rules(f"SELECT id FROM v WHERE tenant = 1 ORDER BY e <=> {Q} LIMIT 5")
    all_of_them = world.rules(f"SELECT id FROM v ORDER BY e <=> {Q}")

    assert ("missing-vector-index", [], ["vector-operator-mismatch"], [], [], []) == (
        found.rule, after, [f.rule for f in other], exact, rare, all_of_them,
    )  # fmt: skip
    assert "CREATE INDEX CONCURRENTLY ix_v_e_hnsw ON public.v USING hnsw (e vector_cosine_ops)" == found.fixes[0].code
    assert ("advised is made for <=>, and the query asks for <->", "v.c.e.cosine_distance(value)") == (
        other[0].title, other[0].fixes[0].code,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "form"),
    [
        (f"SELECT id FROM v ORDER BY 1 - (e <=> {Q}) DESC LIMIT 5", "expression"),
        (f"SELECT id, (e <#> {Q}) * -1 AS s FROM v ORDER BY s DESC LIMIT 5", "expression"),
        (f"SELECT id FROM v ORDER BY e <=> {Q} DESC LIMIT 5", "farthest"),
        (f"SELECT id FROM v ORDER BY cosine_distance(e, {Q}) LIMIT 5", "function"),
        (f"SELECT id FROM v WHERE e <=> {Q} < 0.3", "threshold"),
        (f"SELECT id FROM v WHERE cosine_distance(e, {Q}) <= 0.3", "threshold"),
    ],
)
def test_vector_unusable_form_is_told_even_beside_an_index(world, changed, statement, form):
    with changed("CREATE INDEX a ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 12)", undo="DROP INDEX a"):
        (found,) = world.findings(statement)
        good = world.rules(
            f"SELECT id, 1 - (e <=> {Q}) AS similarity FROM v WHERE e <=> {Q} < 0.9 ORDER BY e <=> {Q} LIMIT 5",
            before=(("SET LOCAL ivfflat.probes = 6", None),),
        )

    assert ("vector-unusable-form", form, []) == (found.rule, found.evidence["form"], [r for r in good if "form" in r])


def test_vectors_fetched_to_be_compared_in_python_are_told(world, stats_of):
    found = world.findings("SELECT id, e FROM v WHERE tenant = 3", stats=stats_of(0.1, calls=5, rows=4_000))
    without = world.rules("SELECT id FROM v WHERE tenant = 3", stats=stats_of(0.1, calls=5, rows=4_000))
    few = world.rules("SELECT id, e FROM v WHERE tenant = 2", stats=stats_of(0.1, calls=5, rows=480))

    assert ([("vector-unusable-form", "fetched")], [], []) == (
        [(f.rule, f.evidence["form"]) for f in found],
        without,
        few,
    )


def test_vector_overfiltering_is_told_and_its_remedies_silence_it(world, changed):
    statement = f"SELECT id FROM v WHERE tenant = 2 ORDER BY e <=> {Q} LIMIT 10"
    hnsw = (
        "DROP INDEX v_tenant; CREATE INDEX a ON v USING hnsw (e vector_cosine_ops) WITH (m = 4, ef_construction = 16)"
    )
    with changed(hnsw, undo="DROP INDEX a; CREATE INDEX v_tenant ON v (tenant)"):
        found = world.findings(statement)
        raised = world.rules(statement, before=(("SET LOCAL hnsw.ef_search = 400", None),))
        iterating = world.rules(statement, before=(("SET LOCAL hnsw.iterative_scan = relaxed_order", None),))
        common = world.rules(f"SELECT id FROM v WHERE tenant = 3 ORDER BY e <=> {Q} LIMIT 10")
        deep = world.findings(f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 10 OFFSET 100")

    assert (["vector-overfiltering"], [], [], [], ["vector-overfiltering"]) == (
        [f.rule for f in found], raised, iterating, common, [f.rule for f in deep],
    )  # fmt: skip
    evidence = found[0].evidence
    assert (10, "hnsw.ef_search = 40", True) == (
        evidence["rows_asked_for"], evidence["search"], 1 <= evidence["rows_expected"] <= 2.2,
    )  # fmt: skip
    assert "SET LOCAL hnsw.iterative_scan = 'relaxed_order'" == found[0].fixes[0].code


def test_vector_index_parameters_are_told_by_the_size_of_the_table(world, changed):
    statement = f"SELECT id FROM v ORDER BY e <=> {Q} LIMIT 5"
    with changed("CREATE INDEX a ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 300)", undo="DROP INDEX a"):
        found = world.findings(statement)
    with changed("CREATE INDEX a ON v USING ivfflat (e vector_cosine_ops) WITH (lists = 12)", undo="DROP INDEX a"):
        few = world.findings(statement)
        after = world.rules(statement, before=(("SET LOCAL ivfflat.probes = 3", None),))

    assert ["vector-index-parameters", "vector-index-parameters"] == [f.rule for f in (*found, *few)]
    assert "a has 300 lists for 12,000 rows, and looks into 1 of them" == found[0].title
    assert [] == after


# --- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "expected"), [(0.001, "info"), (0.02, "warning"), (0.2, "error")])
def test_severity_follows_the_time_that_it_costs(world, stats_of, seconds, expected):
    (finding,) = world.findings("SELECT * FROM t WHERE uid = md5('7')::uuid", stats=stats_of(seconds, calls=7, rows=1))

    assert (expected, 7, pytest.approx(seconds * 7), "shop/views.py") == (
        finding.severity, finding.count, finding.seconds, finding.site.file,
    )  # fmt: skip


def test_a_disabled_rule_is_silent(world):
    statement = "SELECT * FROM t WHERE uid = md5('7')::uuid"

    assert [] == world.rules(statement, given=Settings(disabled_rules=("seq-scan",)))


def test_a_rule_that_fails_is_counted_and_the_others_tell(world, monkeypatch):
    def fails(*_):
        raise ValueError("private@example.org")

    monkeypatch.setitem(judge.CHECKS, "unusable-predicate", fails)
    rules = world.rules("SELECT * FROM t WHERE uid = md5('7')::uuid")
    told = str(faults.told())
    faults.forget()

    assert (["seq-scan"], True, False) == (rules, "ValueError" in told, "private" in told)


def test_without_a_catalog_nothing_is_told(world):
    plan, _ = world.plan_of("SELECT * FROM t WHERE uid = md5('7')::uuid")

    assert [] == judge.judge(judge.Case(plan, Catalog()), Settings())


def test_no_rule_raises_on_any_plan(world):
    """Statements of every sort, with and without ANALYZE; `nothing_fails` looks."""
    statements = [
        "SELECT 1",
        "VALUES (1), (2)" if False else "SELECT * FROM (VALUES (1), (2)) q(a)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r",
        "SELECT * FROM generate_series(1, 5) g LEFT JOIN t ON t.id = g",
        "SELECT DISTINCT ON (tenant) tenant, x FROM t ORDER BY tenant, x DESC NULLS LAST",
        "SELECT tenant, count(*), rank() OVER (ORDER BY count(*)) FROM t GROUP BY ROLLUP (tenant)",
        "SELECT * FROM t TABLESAMPLE system (1) WHERE x > 3",
        "SELECT * FROM t a WHERE EXISTS (SELECT FROM child c WHERE c.t_id = a.id) AND a.x NOT IN (SELECT amount FROM child)",
        "SELECT * FROM t, LATERAL (SELECT * FROM child c WHERE c.t_id = t.id LIMIT 1) q WHERE t.id < 10",
        "(SELECT id FROM t) EXCEPT (SELECT t_id FROM child)",
    ]
    for statement in statements:
        for analyze in (False, True):
            plans.render(world.examine(statement, analyze=analyze).plan)
    for statement in (
        "UPDATE t SET x = 1 WHERE date(created_at) = '2025-01-05'",
        "DELETE FROM t USING child c WHERE c.t_id = t.id AND c.amount = 3",
        *["MERGE INTO small s USING child c ON s.id = c.id WHEN MATCHED THEN UPDATE SET name = 'x'"]
        * (world.version > 14),
        "INSERT INTO small (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'y' WHERE small.name = 'z'",
        "SELECT * FROM t WHERE x = 3 FOR UPDATE",
    ):
        plans.render(world.examine(statement).plan)
