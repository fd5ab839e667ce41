"""What people read: the essential lines at each width, no line's number lost, and nothing hostile carried out."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from bisect import bisect_left
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from sqlprobe.model import Fault, Finding, Fix, Site, SiteCalls, Verified
from sqlprobe.render import (
    duration,
    harmless,
    make_console,
    plural,
    print_comparison,
    print_report,
    render_comparison_markdown,
    render_markdown,
    render_sarif,
    short_place,
)
from sqlprobe.report import Process, Report
from sqlprobe.stats import BOUNDS, BUCKETS, CALL_BOUNDS, scope_stats, statement_stats

BEGIN = 1_763_834_645.0
WIDTHS = (80, 100, 140)

VIEW = Site("shop/views.py", 31, "list_orders", Site("shop/app.py", 112, "App.dispatch"))
REPOSITORY = Site("shop/repositories/orders.py", 58, "OrderRepository.recent", VIEW)
DEEP = Site("backend/app/services/agents/memory/similarity.py", 1204, "PatternStore.find_similar_patterns")

ITEMS = (
    "SELECT order_items.id AS order_items_id, order_items.order_id AS order_items_order_id, order_items.product_id AS "
    "order_items_product_id FROM order_items WHERE ? = order_items.order_id"
)


def make_statement(number, summary, text, seconds=0.001, calls=1, **given):
    histogram = [0] * BUCKETS
    histogram[bisect_left(BOUNDS, seconds)] = calls
    site = given.pop("site", None)
    return statement_stats(
        **{
            "fingerprint": f"{number:016x}",
            "text": text,
            "summary": summary,
            "operation": summary.split()[0] if summary else "",
            "tables": tuple(summary.split()[1:]),
            "engine": "shop",
            "errors": {},
            "rows": None,
            "parameter_sets": calls,
            "pages": calls,
            "seconds": seconds * calls,
            "min": seconds,
            "max": seconds,
            "first_seen": BEGIN,
            "last_seen": BEGIN + 60,
            "sites": (SiteCalls(site, calls),) if site else (),
            "slowest": None,
            "histogram": tuple(histogram),
            **given,
        }
    )


def make_scope(name, kind="request", count=1, calls=1, seconds=0.001, **given):
    calls_histogram, seconds_histogram = [0] * (len(CALL_BOUNDS) + 1), [0] * BUCKETS
    calls_histogram[bisect_left(CALL_BOUNDS, calls)] = count
    seconds_histogram[bisect_left(BOUNDS, seconds)] = count
    return scope_stats(
        **{
            "name": name,
            "kind": kind,
            "calls": calls * count,
            "distinct": count,
            "rows": calls * count,
            "seconds": seconds * count,
            "wall_seconds": 2 * seconds * count,
            "late": 0,
            "errors": 0,
            "calls_histogram": tuple(calls_histogram),
            "seconds_histogram": tuple(seconds_histogram),
            **given,
        }
    )


def make_finding(**given):
    return Finding(
        **{
            "rule": "n-plus-one",
            "severity": "error",
            "title": "lazy load of Order.items ran 48 times at shop/views.py:31",
            "advice": "add .options(selectinload(Order.items))",
            "key": "n-plus-one|Order.items",
            **given,
        }
    )


def sample():
    """A report such as a shop would get: 12 statements, 6 findings, 8 scopes."""
    auth, tasks = Site("shop/auth.py", 44, "current_customer", Site("shop/cart.py", 19, "show")), "shop/tasks.py"
    statements = (
        make_statement(1, "SELECT order_items", ITEMS, 0.00076, 4800, rows=14_400, site=VIEW),
        make_statement(
            2,
            "SELECT agent_discovered_patterns",
            "SELECT agent_discovered_patterns.id FROM agent_discovered_patterns ORDER BY embedding <=> ? LIMIT ?",
            0.412,
            9,
            rows=45,
            site=DEEP,
        ),
        make_statement(
            3,
            "SELECT orders customers",
            "SELECT orders.id FROM orders, customers",
            0.0038,
            480,
            rows=4800,
            site=REPOSITORY,
        ),
        make_statement(
            4,
            "INSERT audit_log",
            "INSERT INTO audit_log (at, what) VALUES (?, ?)",
            0.0009,
            1200,
            rows=1200,
            errors={"40001": 1, "23505": 3},
            site=Site("shop/audit.py", 12, "log"),
        ),
        make_statement(
            5, "SELECT customers", "SELECT id FROM customers WHERE id = ?", 0.0004, 1500, rows=1500, site=auth
        ),
        make_statement(6, "UPDATE orders", "UPDATE orders SET state = ?", 0.0012, 300, site=Site(tasks, 9, "close")),
        make_statement(
            7,
            "SELECT products",
            "SELECT id FROM products",
            0.021,
            12,
            rows=96_000,
            site=Site("shop/views.py", 77, "all"),
        ),
        make_statement(
            8,
            "SELECT orders",
            "SELECT count(*) FROM orders",
            0.0181,
            12,
            rows=12,
            site=Site("shop/views.py", 80, "all"),
        ),
        make_statement(9, "SELECT", "SELECT pg_sleep(?)", 0.11),
        make_statement(10, "DELETE sessions", "DELETE FROM sessions", 0.031, 2, rows=0, site=Site(tasks, 21, "sweep")),
        make_statement(11, "SELECT settings", "SELECT value FROM settings", 0.00008, 240, rows=240),
        make_statement(12, "SELECT", "SELECT ?", 0.00004, 3, rows=3, site=Site("shop/health.py", 3, "ping")),
    )
    findings = (
        make_finding(
            advice="load Order.items with the query that loads its parents: add .options(selectinload(Order.items)); "
            'or, if every query needs it, give the relationship lazy="selectin"',
            label="Order.items",
            scope="GET /orders",
            count=4800,
            seconds=3.64,
            occurrences=100,
            fingerprint=f"{1:016x}",
            engine="shop",
            site=VIEW,
            origin=REPOSITORY,
            evidence={"parents": 48, "share_of_scope": 0.8134, "of": "48 of 50"},
            fixes=(
                Fix("loader-option", "select(Order).options(selectinload(Order.items))"),
                Fix("setting", 'lazy="selectin"'),
            ),
        ),
        make_finding(
            rule="missing-vector-index",
            severity="warning",
            title="agent_discovered_patterns is read in full and sorted for every search",
            advice="create a vector index on agent_discovered_patterns.embedding",
            key="2",
            label="agent_discovered_patterns.embedding",
            scope="POST /patterns/search",
            count=9,
            seconds=3.708,
            occurrences=9,
            fingerprint=f"{2:016x}",
            site=DEEP,
            fixes=(
                Fix(
                    "create-index",
                    "CREATE INDEX ix_embedding\n"
                    "    ON agent_discovered_patterns USING hnsw (embedding vector_cosine_ops)",
                    alembic='op.create_index("ix_embedding", "agent_discovered_patterns", ["embedding"])',
                    sqlalchemy='Index("ix_embedding", "embedding")',
                    verified=Verified("hypothetical index", 1070.42, 19.34),
                ),
            ),
        ),
        make_finding(
            rule="slow-statement",
            severity="warning",
            title="SELECT took 110 ms",
            advice="look at its plan",
            key="3",
            count=1,
            seconds=0.11,
            fingerprint=f"{9:016x}",
            engine="shop",
            fixes=(Fix("rewrite", "SELECT 1", verified=Verified("in a copy of the schema")),),
        ),
        make_finding(
            rule="repeated-statement",
            severity="warning",
            title="SELECT customers ran 3 times at shop/auth.py:44",
            key="4",
            scope="GET /cart",
            count=900,
            seconds=0.36,
            occurrences=300,
            site=auth,
        ),
        make_finding(
            rule="slow-statement",
            severity="info",
            title="UPDATE orders waited 312 ms for a blocked event loop at shop/tasks.py:9",
            key="5",
            count=2,
            seconds=0.62,
            site=Site(tasks, 9, "close"),
        ),
        make_finding(
            rule="row-explosion",
            severity="info",
            title="the catalogue's query returned 8,000 rows for 40 objects",
            key="6",
            count=12,
            seconds=0.25,
            site=Site("shop/views.py", 77, "all"),
        ),
    )
    long = "POST /api/v1/engagements/{engagement_id}/collection-flows/{flow_id}/questionnaire-responses"
    scopes = (
        make_scope("GET /orders", count=480, calls=11, seconds=0.0112),
        make_scope("POST /patterns/search", count=9, calls=4, seconds=0.413),
        make_scope(long, count=300, calls=5, seconds=0.0047, errors=4),
        make_scope("GET /cart", count=300, calls=3),
        make_scope("GET /catalogue", count=12, calls=2, seconds=0.039, rows=96_012),
        make_scope("close_orders", "task", count=3, calls=100, seconds=0.12, late=2),
        make_scope("GET /health", count=3, seconds=0.00004),
        make_scope("startup", "scope"),
    )
    return Report(
        findings=findings,
        statements=statements,
        scopes=scopes,
        settings={"slow_seconds": 0.1},
        started=BEGIN,
        ended=BEGIN + 61.2,
        processes=(
            Process(4711, "python -m shop.serve", BEGIN, BEGIN + 61),
            Process(4712, "python -m shop.serve", BEGIN + 1, BEGIN + 61),
        ),
        versions={"python": "3.11.7", "sqlalchemy": "2.1.9", "psycopg": "3.2.9"},
        release="2025.11",
        faults=(Fault("detector n-plus-one", "KeyError at check:31", 3), Fault("capture", "ValueError")),
        notes=("12 lazy loads were not followed.",),
    )


def printed(what, width=100, *, terminal=True, encoding="utf-8", colors=None, **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(file=file, width=width, force_terminal=terminal, color_system=colors)
    (print_report if isinstance(what, Report) else print_comparison)(what, console, **options)
    file.flush()
    return raw.getvalue().decode(encoding)


def section(text, title):
    """The lines of a section, without its title."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(title))
    end = next((number for number in range(start, len(lines)) if not lines[number]), len(lines))
    return lines[start + 1 : end]


def words(line):
    return re.split(r"  +", line.strip())


class TestHeader:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_says_what_was_observed_how_long_and_what_it_took(self, width):
        text = " ".join(printed(sample(), width).split())

        assert text.startswith(
            "sqlprobe: 8,559 calls of 12 statements in 1,108 scopes over 1 min 1 s, 11.9 s in the database "
            "2025-11-22 18:04:05 UTC · python -m shop.serve · 2 processes · Python 3.11.7 · SQLAlchemy 2.1.9 · "
            "psycopg 3.2.9 · release 2025.11 FINDINGS 1 error, 3 warnings, 2 infos"
        )

    def test_speaks_of_one_in_the_singular(self):
        report = Report(statements=(make_statement(1, "SELECT a", "", 0.00042),), scopes=(make_scope("x"),))

        assert "sqlprobe: 1 call of 1 statement in 1 scope, 420 µs in the database" == printed(report).splitlines()[0]

    def test_leaves_out_a_date_beyond_all_calendars(self):
        report = Report(statements=(make_statement(1, "SELECT a", ""),), started=1e15, ended=1e15 + 1)

        assert "UTC" not in printed(report)
        assert "UTC" not in render_markdown(report)

    def test_names_further_commands_by_their_number(self):
        processes = tuple(Process(pid, f"command {pid}", BEGIN, BEGIN) for pid in (1, 2, 3))

        assert "command 1 and 2 more · 3 processes" in printed(Report(processes=processes))


class TestEmpty:
    @pytest.mark.parametrize("show", [printed, render_markdown])
    def test_says_so_and_what_to_check(self, show):
        text = show(Report())

        assert "o statement was seen" in text
        assert "sqlprobe doctor" in text
        assert "attach first" in text
        assert "FINDINGS" not in text.upper()

    @pytest.mark.parametrize("show", [printed, render_markdown])
    def test_says_that_it_was_disabled(self, show):
        text = show(Report(settings={"enabled": False}))

        assert "sqlprobe was disabled: SQLPROBE_ENABLED=0 or Settings(enabled=False)" in text
        assert "doctor" not in text

    def test_shows_what_there_is_all_the_same(self):
        text = printed(Report(findings=(make_finding(rule="pool-pressure"),), faults=(Fault("capture", "KeyError"),)))

        assert "  rule:    pool-pressure" in text
        assert "- capture: KeyError\n" in text


class TestFindings:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("terminal", [True, False])
    def test_one_fact_a_line(self, width, terminal):
        lines = printed(sample(), width, terminal=terminal).splitlines()
        start = lines.index("error lazy load of Order.items ran 48 times at shop/views.py:31")

        assert [
            "  where:   shop/views.py:31 in list_orders",
            "  caller:  shop/app.py:112 in App.dispatch",
            "  origin:  shop/repositories/orders.py:58 in OrderRepository.recent",
            "  scope:   GET /orders, in 100 of 480",
            "  cost:    4,800 calls, 3.64 s, 31 % of the database time",
            "  rule:    n-plus-one  label: Order.items",
        ] == lines[start + 1 : start + 7]
        assert lines[start + 7].startswith("  sql:     SELECT order_items.id")
        assert len(lines[start + 7]) <= width
        assert lines[start + 8].startswith("  fix:     load Order.items with the query that loads its parents: add")

    @pytest.mark.parametrize("width", WIDTHS)
    def test_code_stands_by_itself_whole(self, width):
        text = printed(sample(), width)

        assert (
            "      select(Order).options(selectinload(Order.items))\n"
            "  or (setting):\n"
            '      lazy="selectin"\n'
        ) in text  # fmt: skip
        assert (
            "      CREATE INDEX ix_embedding\n"
            "          ON agent_discovered_patterns USING hnsw (embedding vector_cosine_ops)\n"
            "  alembic:\n"
            '      op.create_index("ix_embedding", "agent_discovered_patterns", ["embedding"])\n'
            "  proof:   hypothetical index: cost 1,070.42 → 19.34\n"
        ) in text

    def test_a_proof_without_costs_is_its_method(self):
        assert "  proof:   in a copy of the schema\n" in printed(sample())

    def test_a_long_statement_keeps_its_condition(self):
        assert (
            "  sql:     SELECT order_items.id AS order_items_id,… FROM order_items WHERE ? = order_items.order_id\n"
            in printed(sample(), 100)
        )

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("UPDATE a SET " + "b" * 90, "UPDATE a SET " + "b" * 55 + "…"),
            ("SELECT a FROM b WHERE " + "c" * 90, "SELECT a… FROM b WHERE " + "c" * 45 + "…"),
            ("SELECT a", "SELECT a"),
        ],
    )
    def test_a_statement_is_one_line(self, text, shown):
        report = Report(
            findings=(make_finding(fingerprint=f"{1:016x}"),), statements=(make_statement(1, "SELECT a", text),)
        )

        assert f"  sql:     {shown}\n" in printed(report, 80)

    def test_text_that_was_withheld_is_told_by_its_summary(self):
        report = Report(
            findings=(make_finding(fingerprint=f"{1:016x}"),), statements=(make_statement(1, "SELECT a", ""),)
        )

        assert "  sql:     SELECT a\n" in printed(report)
        assert "- sql: `SELECT a`\n" in render_markdown(report)

    def test_prose_is_wrapped_on_a_terminal_only(self):
        whole = next(finding.advice for finding in sample().findings)

        assert whole not in printed(sample(), 80)
        assert "\n           give the relationship" in printed(sample(), 80)
        assert whole in printed(sample(), 80, terminal=False)

    def test_what_is_not_known_is_left_out(self):
        text = printed(Report(findings=(make_finding(severity="warning", title="SELECT took 110 ms", advice="look"),)))

        assert ("warning SELECT took 110 ms\n  rule:    n-plus-one\n  fix:     look\n") in text

    def test_infos_are_one_line_each_with_their_place_once(self):
        lines = printed(sample()).splitlines()

        assert "info UPDATE orders waited 312 ms for a blocked event loop at shop/tasks.py:9" in lines
        assert "info the catalogue's query returned 8,000 rows for 40 objects · shop/views.py:77" in lines

    def test_a_long_info_is_cut_before_its_place(self):
        finding = make_finding(severity="info", title="x" * 200, site=DEEP)
        place = "backend/app/services/agents/memory/similarity.py:1204"

        assert f"info {'x' * 83}… · {place}" in printed(Report(findings=(finding,)), 145).splitlines()
        assert f"info {'x' * 19}… · {place}" in printed(Report(findings=(finding,)), 80).splitlines()

    def test_more_than_the_top_are_counted(self):
        findings = tuple(make_finding(key=str(n), severity=("error", "info")[n % 2]) for n in range(9))
        lines = printed(Report(findings=findings), top=2).splitlines()

        assert 2 == sum(line.startswith("error ") for line in lines)
        assert 2 == sum(line.startswith("info ") for line in lines)
        assert "… and 5 more findings" == lines[-1]

    def test_none_is_said(self):
        report = replace(sample(), findings=())

        assert "FINDINGS  none\n" in printed(report)
        assert "FINDINGS  none; disabled: n-plus-one, x\n" in printed(
            replace(report, settings={"disabled_rules": ["n-plus-one", "x"]})
        )
        assert "## Findings: none\n" in render_markdown(report)

    def test_in_the_only_scope_of_its_name(self):
        report = Report(findings=(make_finding(scope="test"),), scopes=(make_scope("test"),))

        assert "  scope:   test\n" in printed(report)

    def test_in_a_scope_that_has_no_statistics(self):
        assert "  scope:   gone, in 3\n" in printed(Report(findings=(make_finding(scope="gone", occurrences=3),)))


class TestTables:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("title", ["STATEMENTS", "SCOPES"])
    def test_fit_the_page(self, width, title):
        lines = section(printed(sample(), width), title)

        assert [] == [line for line in lines if cell_len(line) > width]

    @pytest.mark.parametrize("width", WIDTHS)
    def test_statements_worst_first_with_file_and_line(self, width):
        lines = section(printed(sample(), width), "STATEMENTS")
        rows = [words(line) for line in lines[1:] if "error" not in line]

        assert ["3.71 s", "31 %", "9"] == rows[0][:3]
        assert rows[0][-1].endswith("imilarity.py:1204")
        assert ["3.65 s", "31 %", "4,800"] == rows[1][:3]
        assert ["62 ms", "1 %", "2"] == rows[-2][:3]
        assert ["… and 2 more statements, 19.3 ms"] == rows[-1]

    @pytest.mark.parametrize(
        ("width", "titles", "row"),
        [
            (
                80,
                ["time", "share", "calls", "p95≤", "rows/call", "statement", "where"],
                ["3.65 s", "31 %", "4,800", "760 µs", "3", "SELECT order_items", "shop/views.py:31"],
            ),
            (
                100,
                ["time", "share", "calls", "mean", "p95≤", "rows/call", "statement", "where"],
                ["3.65 s", "31 %", "4,800", "760 µs", "760 µs", "3", "SELECT order_items", "shop/views.py:31"],
            ),
            (
                140,
                ["time", "share", "calls", "mean", "p50≤", "p95≤", "rows/call", "statement", "where"],
                [
                    *("3.65 s", "31 %", "4,800", "760 µs", "760 µs", "760 µs", "3", "SELECT order_items"),
                    "shop/views.py:31 in list_orders",
                ],
            ),
        ],
    )
    def test_wider_pages_tell_more(self, width, titles, row):
        lines = section(printed(sample(), width), "STATEMENTS")

        assert (titles, row) == (words(lines[0]), words(lines[2]))

    def test_what_is_not_known_is_a_dash(self):
        (row,) = section(printed(Report(statements=(make_statement(1, "SELECT a", ""),))), "STATEMENTS")[1:]

        assert ["1 ms", "100 %", "1", "1 ms", "1 ms", "—", "SELECT a", "—"] == words(row)

    def test_nothing_is_ever_none(self):
        bare = Report(
            findings=(make_finding(),),
            statements=(make_statement(1, "", "", calls=0, seconds=0.0, min=0.0, max=0.0),),
            scopes=(replace(make_scope("x"), count=0, calls=0),),
        )
        shown = [printed(bare), printed(bare, verbose=True), render_markdown(bare), render_sarif(bare)]

        assert [] == [text for text in shown if "None" in text or "null" in text or "nan" in text]

    def test_the_slowest_calls_line_where_no_other_is_known(self):
        (row,) = section(printed(Report(statements=(make_statement(1, "SELECT a", "", slowest=VIEW),))), "STATEMENTS")[
            1:
        ]

        assert "shop/views.py:31" == words(row)[-1]

    def test_a_statement_without_tables_is_told_by_its_text(self):
        assert "SELECT pg_sleep(?)" in "\n".join(section(printed(sample()), "STATEMENTS"))

    def test_errors_stand_below_their_statement(self):
        lines = section(printed(sample()), "STATEMENTS")
        number = next(number for number, line in enumerate(lines) if "audit_log" in line)

        assert "4 errors: 23505 (3), 40001 (1)" == lines[number + 1].strip()
        assert lines[number].index("INSERT") == lines[number + 1].index("4 errors")

    def test_many_kinds_of_errors_are_cut(self):
        report = Report(statements=(make_statement(1, "SELECT a", "", errors=dict.fromkeys("abcdef", 1)),))

        assert "6 errors: a (1), b (1), c (1), d (1), e (1), …" in printed(report)

    def test_engines_are_named_where_there_are_several(self):
        one, other = make_statement(1, "SELECT a", ""), make_statement(1, "SELECT a", "", engine="replica")

        assert "SELECT a (replica)" in printed(Report(statements=(one, other)))
        assert "SELECT a (replica)" in render_markdown(Report(statements=(one, other)))
        assert "(shop)" not in printed(Report(statements=(one,)))

    @pytest.mark.parametrize("width", WIDTHS)
    def test_scopes(self, width):
        lines = section(printed(sample(), width), "SCOPES")
        kind = " (request)" if width >= 100 else ""
        rows = ["11"] if width >= 100 else []

        assert ["5.38 s", "10.8 s", "480", "11", "11", "1", *rows, f"GET /orders{kind}"] == words(lines[1])
        assert lines[0].endswith("scope")
        assert any(re.search(r"POST? ?.*…\S*es \((request, )?4 errors\)$", line) for line in lines) or width == 140

    def test_rows_that_no_driver_told_are_a_dash(self):
        report = Report(statements=(make_statement(1, "SELECT a", ""),), scopes=(make_scope("x", rows=0),))

        assert "—" == words(section(printed(report), "SCOPES")[1])[-2]
        assert "| — | 0 | 0 | request | x |" in render_markdown(report)

    def test_late_statements_are_told(self):
        assert "close_orders (task, 2 late)" in printed(sample())

    def test_scope_names_past_the_top_are_counted(self):
        assert "… and 6 more scope names, " in printed(sample(), top=2)

    def test_verbose_tells_everything(self):
        text = printed(sample(), verbose=True)

        assert f"0000000000000001  {ITEMS}\n" in text
        assert "4,800 at shop/views.py:31 in list_orders, called from shop/app.py:112 in App.dispatch\n" in text
        assert "  numbers: parents 48, share_of_scope 0.8134, of 48 of 50\n" in text
        assert 'model:\n      Index("ix_embedding", "embedding")\n' in text
        assert (
            "info the catalogue's query returned 8,000 rows for 40 objects\n  where:   shop/views.py:77 in all" in text
        )
        assert "more statements" not in text

    @pytest.mark.parametrize("width", [1, 20, 40, 60])
    def test_narrow_pages_keep_the_lines(self, width):
        rows = section(printed(sample(), width), "STATEMENTS")

        assert "similarity.py:1204"[-8:] == rows[1][-8:]

    def test_wide_characters_keep_the_columns(self):
        report = Report(
            statements=(
                make_statement(1, "SELECT 顧客", "", site=VIEW),
                make_statement(2, "SELECT a", "", site=VIEW),
            )
        )
        rows = section(printed(report), "STATEMENTS")

        assert 1 == len({cell_len(row[: row.index("shop/views.py")]) for row in rows[1:]})


class TestRemarks:
    def test_faults_and_notes_come_last(self):
        assert printed(sample()).endswith(
            "\nFAULTS  sqlprobe's own: the program was not affected\n"
            "- detector n-plus-one: KeyError at check:31 (3 times)\n"
            "- capture: ValueError\n"
            "\nNOTES\n"
            "- 12 lazy loads were not followed.\n"
        )

    def test_faults_past_the_top_are_counted(self):
        assert "- detector n-plus-one: KeyError at check:31 (3 times)\n… and 1 more\n" in printed(sample(), top=1)


class TestPiped:
    def test_is_plain_text(self):
        text = printed(sample(), terminal=False)

        assert "\x1b" not in text

    def test_colors_are_for_terminals(self):
        assert "\x1b[1;31merror\x1b[0m" in printed(sample(), colors="standard")

    def test_has_room_where_nobody_says_how_wide(self, capsys, monkeypatch):
        monkeypatch.delenv("COLUMNS", raising=False)
        print_report(sample())

        assert "p50≤" in words(section(capsys.readouterr().out, "STATEMENTS")[0])

    def test_can_be_standard_error(self, capsys):
        print_report(Report(), make_console(stderr=True))
        captured = capsys.readouterr()

        assert ("", True) == (captured.out, captured.err.startswith("sqlprobe: no statement was seen\n"))

    def test_is_as_wide_as_somebody_says(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        print_report(sample())
        lines = section(capsys.readouterr().out, "STATEMENTS")

        assert [] == [line for line in lines if len(line) > 80]

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_works_in_any_encoding(self, encoding):
        text = printed(sample(), encoding=encoding)

        assert text.isascii()
        assert "  proof:   hypothetical index: cost 1,070.42 > 19.34\n" in text
        assert "760 us" in text
        assert 1 == len({len(line) - len(line.lstrip()) for line in section(text, "STATEMENTS")[1:2]})


HOSTILE = [
    "[bold red]SELECT[/bold red] [link=file:///etc]",
    "[/]",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\nb\r\nc\td\x0b\x0c",
    "\u202eevil\u202c \u2066x\u2069 \u200b\ufeff \u2028\u2029",
    "\ud800 \x00 \x7f",
    ":smile: 💣",
    "`x` ``y`` | a | <script>alert(1)</script> &amp; **b** _c_ [t](u) ~~s~~ \\| \\` $x$ @user",
    "| --- |\n# title\n- item\n```\nfence",
    "![i](http://x) <!-- c -->",
    "{0} {name} %s",
]


def hostile_report(text):
    site = Site(f"dir/{text}", 31, text, Site(text, 7, text))
    statement = make_statement(1, text, text, site=site, tables=(text,), errors={text: 1})
    finding = make_finding(
        title=text,
        advice=text,
        label=text,
        scope=text,
        fingerprint=statement.fingerprint,
        site=site,
        origin=site,
        evidence={text: text},
        fixes=(Fix("rewrite", text, alembic=text, sqlalchemy=text, verified=Verified(text)),),
    )
    return Report(
        findings=(finding, replace(finding, severity="info", key="info")),
        statements=(statement, replace(statement, engine=text)),
        scopes=(make_scope(text, errors=1), make_scope(text, text)),
        processes=(Process(1, text, BEGIN, BEGIN),),
        versions={text: text},
        release=text,
        faults=(Fault(text, text),),
        notes=(text,),
        settings={"disabled_rules": [text]},
    )


def is_harmless(text):
    return all(char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)


class TestHostileText:
    @pytest.mark.parametrize("text", HOSTILE)
    @pytest.mark.parametrize("verbose", [True, False])
    @pytest.mark.parametrize("width", [60, 140])
    def test_does_nothing_to_a_terminal(self, text, verbose, width):
        report = hostile_report(text)
        shown = printed(report, width, verbose=verbose) + printed(report.compare(Report()), width)

        assert is_harmless(shown)
        assert f"error {harmless(text).split()[0]}" in shown

    @pytest.mark.parametrize("text", HOSTILE)
    def test_adds_no_line_to_a_table(self, text):
        lines = section(printed(hostile_report(text), terminal=False), "STATEMENTS")

        assert 1 + 2 * 2 == len(lines)

    def test_markup_is_shown_as_it_is(self):
        assert "error [bold red]SELECT[/bold red] [link=file:///etc]\n" in printed(hostile_report(HOSTILE[0]), 140)

    @hypothesis.given(st.text())
    def test_one_printable_line(self, text):
        shown = harmless(text)

        assert shown.isprintable()
        assert text == shown or not text.isprintable()

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("\x1b[31m", r"\x1b[31m"),
            ("a\nb\tc", r"a\nb\tc"),
            ("\u202e", r"\u202e"),
            ("\ud800", r"\ud800"),
            ("\U000e0041", r"\U000e0041"),
            ("naïve 顧客 💣", "naïve 顧客 💣"),
        ],
    )
    def test_is_shown_visibly(self, text, shown):
        assert shown == harmless(text)

    @pytest.mark.parametrize("text", HOSTILE)
    def test_does_nothing_in_markdown(self, text):
        report = hostile_report(text)
        for shown in (render_markdown(report), render_comparison_markdown(report.compare(Report()))):
            html = MarkdownIt("commonmark").enable("table").render(shown)

            assert is_harmless(shown)
            assert not re.search(r"<(script|strong>b|em>c|a |img|!--)", html)
            assert {"h1", "h2", "h3"} == set(re.findall(r"<(h\d)", html))
            assert 1 == html.count("<h1")

    @pytest.mark.parametrize("text", HOSTILE)
    def test_reads_the_same_in_markdown(self, text):
        tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(hostile_report(text)))
        said = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
        code = [token.content for token in tokens if token.type == "fence"]
        shown = harmless(text)

        assert f"error: {shown}".strip() in said
        assert f"sql: {shown}" in said or f"sql: {shown.strip()}" in said
        assert f"dir/{shown}:31" in said
        assert f"{shown}: {shown}" in said
        assert ["\n".join(map(harmless, text.expandtabs(4).splitlines())) + "\n"] * 3 == code

    @hypothesis.given(st.text(alphabet="ab|`\\*_<>&[]()~$@! \n"))
    def test_any_table_cell_reads_the_same_in_markdown(self, text):
        report = Report(scopes=(make_scope(f"x{text}x"),), statements=(make_statement(1, "SELECT a", ""),))
        tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(report))
        cells = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]

        assert harmless(f"x{text}x") == cells[-1]

    @pytest.mark.parametrize("text", HOSTILE)
    def test_is_data_in_sarif(self, text):
        result = json.loads(render_sarif(hostile_report(text)))["runs"][0]["results"][0]

        assert is_harmless(result["message"]["text"])
        assert not re.search(r"(?<!\\)\[[^\[\]]*\]\(", result["message"]["text"])
        assert not re.search(r"(?<!\{)\{\d+\}(?!\})", result["message"]["text"])
        assert re.fullmatch(
            r"[\w/.%~:-]+", result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], re.ASCII
        )


class TestMarkdown:
    @pytest.fixture
    def text(self):
        return render_markdown(sample())

    def test_headline(self, text):
        assert text.startswith(
            "# sqlprobe report\n\n"
            "**8,559 calls of 12 statements in 1,108 scopes over 1 min 1 s, 11.9 s in the database**\n\n"
            "2025-11-22 18:04:05 UTC · python -m shop.serve · 2 processes · "
        )

    def test_finding(self, text):
        assert (
            "### error: lazy load of Order.items ran 48 times at shop/views.py:31\n\n"
            "- where: `shop/views.py:31 in list_orders`\n"
            "- caller: `shop/app.py:112 in App.dispatch`\n"
            "- origin: `shop/repositories/orders.py:58 in OrderRepository.recent`\n"
            "- scope: GET /orders, in 100 of 480\n"
            "- cost: 4,800 calls, 3.64 s, 31 % of the database time\n"
            "- rule: `n-plus-one`, label: `Order.items`\n"
            f"- sql: `{ITEMS}`\n"
        ) in text
        assert "\n```python\nselect(Order).options(selectinload(Order.items))\n```\n\nor (setting):\n" in text
        assert "\n```sql\nCREATE INDEX ix_embedding\n    ON agent" in text
        assert "\nproof: hypothetical index: cost 1,070.42 → 19.34\n" in text

    def test_infos_are_a_list(self, text):
        assert "- info: the catalogue's query returned 8,000 rows for 40 objects · `shop/views.py:77`\n" in text

    def test_statements(self, text):
        assert (
            "| time | share | calls | mean | p50≤ | p95≤ | rows/call | statement | where |\n"
            "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |\n"
            "| 3.71 s | 31 % | 9 | 412 ms | 412 ms | 412 ms | 5 | SELECT agent\\_discovered\\_patterns "
            "| backend/app/services/agents/memory/similarity.py:1204 |\n"
        ) in text
        assert "| 1 | INSERT audit\\_log — 4 errors: 23505 (3), 40001 (1) | shop/audit.py:12 |\n" in text
        assert "| — | SELECT pg\\_sleep(?) | — |\n" in text

    def test_scopes(self, text):
        assert "| 5.38 s | 10.8 s | 480 | 11 | 11 | 1 | 11 | 0 | 0 | request | GET /orders |\n" in text

    def test_faults_and_notes(self, text):
        assert "- detector n-plus-one: KeyError at check:31 (3 times)\n- capture: ValueError\n" in text
        assert text.endswith("## Notes\n\n- 12 lazy loads were not followed.\n")

    def test_rows_past_the_top_are_counted(self):
        text = render_markdown(sample(), top=2)

        assert "\n… and 10 more statements, " in text
        assert "\n… and 6 more scope names, " in text


def comparison():
    report = sample()
    statements = list(report.statements)
    worse = next(index for index, each in enumerate(statements) if each.summary == "SELECT products")
    better = next(index for index, each in enumerate(statements) if each.summary == "SELECT orders")
    statements[worse] = make_statement(7, "SELECT products", "", 0.007, 12)
    statements[better] = make_statement(8, "SELECT orders", "", 0.2, 12)
    gone = make_statement(99, "SELECT gone", "SELECT gone", 0.5, site=VIEW)
    scopes = {scope.name: scope for scope in report.scopes}
    scopes["GET /cart"] = make_scope("GET /cart", count=300, calls=1)
    scopes["GET /catalogue"] = make_scope("GET /catalogue", count=12, calls=5)
    base = replace(
        report,
        findings=(
            *report.findings[1:],
            make_finding(key="gone", title="it was bad", scope="GET /orders", site=VIEW),
            make_finding(key="unseen", title="it may be bad", scope="POST /x"),
        ),
        statements=(*statements[:-1], gone),
        scopes=(*scopes.values(), make_scope("POST /x")),
    )
    return report.compare(base)


class TestComparison:
    @pytest.mark.parametrize("width", WIDTHS)
    def test_what_got_worse_first(self, width):
        text = printed(comparison(), width)
        titles = [line for line in text.splitlines() if re.match("[A-Z]{2}", line)]

        assert [
            "NEW FINDINGS  1 error",
            "SLOWER STATEMENTS  1",
            "MORE CALLS PER SCOPE  1",
            "NEW STATEMENTS  1",
            "GONE FINDINGS  1",
            "FINDINGS NOT CHECKED: THEIR SCOPE DID NOT RUN  1",
            "FASTER STATEMENTS  1",
            "FEWER CALLS PER SCOPE  1",
            "GONE STATEMENTS  1",
        ] == titles

    def test_each_with_before_and_after(self):
        text = printed(comparison(), 100)

        assert [
            ["7 ms → 21 ms", "7 ms → 21 ms", "12", "SELECT products", "shop/views.py:77"],
            ["1 → 3", "1 → 3", "GET /cart"],
            ["120 µs", "3", "SELECT ?", "shop/health.py:3"],
            ["error it was bad · shop/views.py:31"],
            ["error it may be bad"],
            ["200 ms → 18.1 ms", "200 ms → 18.1 ms", "12", "SELECT orders", "shop/views.py:80"],
            ["5 → 2", "5 → 2", "GET /catalogue"],
            ["500 ms", "1", "SELECT gone", "shop/views.py:31"],
        ] == [
            words(section(text, title)[-1])
            for title in (
                *(
                    "SLOWER",
                    "MORE",
                    "NEW STATEMENTS",
                    "GONE FINDINGS",
                    "FINDINGS NOT",
                    "FASTER",
                    "FEWER",
                    "GONE STATEMENTS",
                ),
            )
        ]

    def test_headline(self):
        text = " ".join(printed(comparison(), 140, terminal=False).splitlines()[0].split())

        assert (
            "sqlprobe: 14.4 s → 11.9 s in the database, 8,557 → 8,559 calls: 1 new finding, 1 slower statement, "
            "1 scope with more calls; 1 finding gone"
        ) == text

    def test_nothing_worse_is_said(self):
        text = printed(sample().compare(sample()), 140)

        assert "sqlprobe: 11.9 s → 11.9 s in the database, 8,559 → 8,559 calls: nothing got worse\n" == text

    def test_past_the_top_is_counted(self):
        statements = tuple(make_statement(n, "SELECT a", "", 0.001) for n in range(3))
        slower = tuple(make_statement(n, "SELECT a", "", 0.1) for n in range(3))
        scopes = tuple(make_scope(f"scope {n}") for n in range(3))
        more = tuple(make_scope(f"scope {n}", calls=5) for n in range(3))
        findings = tuple(make_finding(key=str(n), scope="") for n in range(3))
        base = Report(findings=findings, statements=statements, scopes=scopes)
        text = printed(Report(statements=slower, scopes=more).compare(base), top=1)

        assert 3 == text.count("… and 2 more\n")
        assert "… and 2 more statements, 300 ms\n" in printed(
            Report(statements=slower).compare(Report()), top=1
        ).replace("200 ms", "300 ms")

    def test_markdown(self):
        text = render_comparison_markdown(comparison())

        assert [
            "## New findings: 1 error",
            "## Slower statements: 1",
            "## More calls per scope: 1",
            "## New statements: 1",
            "## Gone findings: 1",
            "## Findings not checked: their scope did not run: 1",
            "## Faster statements: 1",
            "## Fewer calls per scope: 1",
            "## Gone statements: 1",
        ] == re.findall("^## .*", text, re.MULTILINE)
        assert "| 7 ms → 21 ms | 7 ms → 21 ms | 12 | SELECT products | shop/views.py:77 |\n" in text
        assert "| 1 → 3 | 1 → 3 | GET /cart |\n" in text
        assert "- error: it was bad · `shop/views.py:31`\n" in text


class TestSarif:
    @pytest.fixture
    def run(self):
        log = json.loads(render_sarif(replace(sample(), versions={"sqlprobe": "0.1.0"})))

        assert ("2.1.0", 1) == (log["version"], len(log["runs"]))

        return log["runs"][0]

    def test_names_the_tool_and_its_rules(self, run):
        assert {
            "name": "sqlprobe",
            "version": "0.1.0",
            "rules": [
                {"id": "missing-vector-index", "name": "MissingVectorIndex"},
                {"id": "n-plus-one", "name": "NPlusOne"},
                {"id": "repeated-statement", "name": "RepeatedStatement"},
                {"id": "row-explosion", "name": "RowExplosion"},
                {"id": "slow-statement", "name": "SlowStatement"},
            ],
        } == run["tool"]["driver"]

    def test_result(self, run):
        def place(site):
            return {
                "physicalLocation": {
                    "artifactLocation": {"uri": site.file, "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": site.line},
                },
                "logicalLocations": [{"fullyQualifiedName": site.function}],
            }

        finding = sample().findings[0]

        assert {
            "ruleId": "n-plus-one",
            "ruleIndex": 1,
            "level": "error",
            "message": {
                "text": f"{finding.title}\n\nFix: {finding.advice}\n\n"
                'select(Order).options(selectinload(Order.items))\n\nlazy="selectin"'
            },
            "partialFingerprints": {"sqlprobeKey/v1": finding.key, "sqlprobeScope/v1": "GET /orders"},
            "properties": {"count": 4800, "seconds": 3.64, "occurrences": 100},
            "locations": [place(VIEW)],
            "relatedLocations": [
                {"id": 1, "message": {"text": "called from here"}, **place(VIEW.caller)},
                {"id": 2, "message": {"text": "the query to change"}, **place(REPOSITORY)},
            ],
        } == run["results"][0]

    def test_levels(self, run):
        levels = [(result["ruleId"], result["level"]) for result in run["results"]]

        assert ("missing-vector-index", "warning") in levels
        assert ("row-explosion", "note") in levels

    def test_rule_indexes_fit(self, run):
        rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]

        assert [] == [result for result in run["results"] if result["ruleId"] != rules[result["ruleIndex"]]]

    @pytest.mark.parametrize(
        ("given", "locations"),
        [
            ({"label": "orders"}, [{"logicalLocations": [{"fullyQualifiedName": "orders"}]}]),
            ({"scope": "GET /"}, [{"logicalLocations": [{"fullyQualifiedName": "GET /"}]}]),
            ({}, None),
            (
                {"origin": Site("/srv/my app/ü.py", 0, "f")},
                [
                    {
                        "physicalLocation": {"artifactLocation": {"uri": "file:///srv/my%20app/%C3%BC.py"}},
                        "logicalLocations": [{"fullyQualifiedName": "f"}],
                    }
                ],
            ),
        ],
    )
    def test_location(self, given, locations):
        (result,) = json.loads(render_sarif(Report(findings=(make_finding(**given),))))["runs"][0]["results"]

        assert locations == result.get("locations")

    def test_of_nothing_is_a_log_without_results(self):
        (run,) = json.loads(render_sarif(Report()))["runs"]

        assert ([], []) == (run["results"], run["tool"]["driver"]["rules"])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 µs"),
        (4.2e-7, "0.42 µs"),
        (0.000_850, "850 µs"),
        (0.000_999_4, "999 µs"),
        (0.000_999_6, "1 ms"),
        (0.001_234, "1.23 ms"),
        (0.009_996, "10 ms"),
        (0.0123, "12.3 ms"),
        (0.099_96, "100 ms"),
        (0.9996, "1 s"),
        (1.5, "1.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61.2, "1 min 1 s"),
        (3_599.6, "1 h"),
        (3_700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (1e9, "11,574 d 1 h"),
    ],
)
def test_duration(seconds, said):
    assert said == duration(seconds)


@hypothesis.given(st.floats(0, 1e15))
def test_a_duration_is_short(seconds):
    assert re.fullmatch(r"\d+(\.\d+)? (µs|ms|s)|[\d,]+ (min|h|d)( \d+ (s|min|h))?", duration(seconds))


def test_plural():
    said = [plural(0, "call"), plural(1, "call"), plural(1_204, "call"), plural(2, "process", "processes")]

    assert ["0 calls", "1 call", "1,204 calls", "2 processes"] == said


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (99, "backend/app/services/agents/memory/similarity.py:1204 in PatternStore.find_similar_patterns"),
        (90, "backend/app/services/agents/memory/similarity.py:1204"),
        (50, "…/app/services/agents/memory/similarity.py:1204"),
        (30, "…/memory/similarity.py:1204"),
        (20, "…/similarity.py:1204"),
        (19, "…similarity.py:1204"),
        (12, "…ity.py:1204"),
        (3, "…:1204"),
    ],
)
def test_short_place(width, shown):
    assert shown == short_place(DEEP, width, function=True)


@hypothesis.given(st.text(), st.integers(0, 10**6), st.integers(9, 60))
def test_a_short_place_fits_and_keeps_the_line(file, line, width):
    shown = short_place(Site(file, line, "f"), width)

    assert cell_len(shown) <= width
    assert shown.endswith(f":{line}")
