"""A report survives JSON, its sum is exact whatever the order, and what is no report is told so in words."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import resource
from bisect import bisect_left
from functools import reduce

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

import sqlprobe.model
from sqlprobe.model import (
    SEVERITIES,
    Fault,
    Finding,
    Fix,
    Site,
    SiteCalls,
    SqlprobeError,
    StatementStats,
    Step,
    Timeline,
    Verified,
)
from sqlprobe.report import FORMAT, Change, Comparison, Process, Report, ReportError, report_schema, suffix_of
from sqlprobe.settings import Settings
from sqlprobe.stats import BOUNDS, BOUNDS_NS, BUCKETS, CALL_BOUNDS, percentile, scope_stats, statement_stats

SCHEMA = report_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

VIEW = Site("shop/views.py", 31, "list_orders", Site("shop/app.py", 112, "dispatch"))
REPOSITORY = Site("shop/orders.py", 58, "recent")


def make_statement(ns=(1_000_000,), *, fingerprint="a" * 16, engine="shop", **given):
    """A statement whose calls took *ns* nanoseconds each."""
    histogram = [0] * BUCKETS
    for each in ns:
        histogram[bisect_left(BOUNDS_NS, each)] += 1
    return statement_stats(
        **{
            "fingerprint": fingerprint,
            "text": "SELECT orders.id FROM orders",
            "summary": "SELECT orders",
            "operation": "SELECT",
            "tables": ("orders",),
            "engine": engine,
            "errors": {},
            "rows": None,
            "parameter_sets": len(ns),
            "pages": len(ns),
            "seconds": sum(ns) / 1e9,
            "min": min(ns, default=0) / 1e9,
            "max": max(ns, default=0) / 1e9,
            "first_seen": 100.0,
            "last_seen": 200.0,
            "sites": (),
            "slowest": None,
            "histogram": tuple(histogram),
            **given,
        }
    )


def make_scope(windows=((1, 1_000_000),), *, name="GET /orders", kind="request", **given):
    """Scopes of one name, each of so many calls that took so many nanoseconds."""
    calls_histogram, seconds_histogram = [0] * (len(CALL_BOUNDS) + 1), [0] * BUCKETS
    for calls, ns in windows:
        calls_histogram[bisect_left(CALL_BOUNDS, calls)] += 1
        seconds_histogram[bisect_left(BOUNDS_NS, ns)] += 1
    return scope_stats(
        **{
            "name": name,
            "kind": kind,
            "calls": sum(calls for calls, _ in windows),
            "distinct": len(windows),
            "rows": 0,
            "seconds": sum(ns for _, ns in windows) / 1e9,
            "wall_seconds": 2 * sum(ns for _, ns in windows) / 1e9,
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
            "title": "lazy load of Order.items ran 48 times",
            "advice": "add .options(selectinload(Order.items))",
            "key": "n-plus-one|Order.items",
            "scope": "GET /orders",
            **given,
        }
    )


STEP = Step("a" * 16, "shop", 0.01, 0.4, 0.3, calls=48, rows=48, errors=1, site=VIEW, relationship="Order.items")


def full_report():
    """A report in which no field has its default."""
    fix = Fix(
        "create-index",
        "CREATE INDEX ix ON orders (state)",
        alembic='op.create_index("ix", "orders", ["state"])',
        sqlalchemy='Index("ix", Order.state)',
        verified=Verified("hypopg", 1070.42, 19.34, "Seq Scan", "Index Scan"),
    )
    finding = make_finding(
        label="Order.items",
        count=48,
        seconds=0.5,
        occurrences=2,
        fingerprint="a" * 16,
        engine="shop",
        site=VIEW,
        origin=REPOSITORY,
        evidence={"parents": 48, "share": 0.5, "of": "48 of 50"},
        fixes=(fix,),
        first_seen=100.0,
        last_seen=200.0,
    )
    statement = make_statement(
        (1_000_000, 2_000_000),
        errors={"23505": 1},
        rows=7,
        parameter_sets=9,
        pages=3,
        sites=(SiteCalls(VIEW, 2),),
        slowest=VIEW,
    )
    return Report(
        findings=(finding,),
        statements=(statement,),
        scopes=(make_scope(late=1, errors=1, rows=7),),
        settings=Settings(path_map={"/srv/": ""}).as_json(),
        started=100.0,
        ended=200.0,
        processes=(Process(4711, "python -m shop", 100.0, 200.0),),
        versions={"python": "3.11.7"},
        release="1.4",
        faults=(Fault("detector n-plus-one", "KeyError", 3),),
        notes=("12 lazy loads were not followed.",),
        timelines=(Timeline("GET /orders", "request", 100.0, 0.5, 0.4, 49, (STEP,), 1),),
    )


# Nanoseconds far below the 104 days from which a float cannot hold them.
NANOSECONDS = st.integers(0, 10**13)
SECONDS = NANOSECONDS.map(lambda ns: ns / 1e9)
TIMES = st.integers(0, 2 * 10**9).map(float)
COUNTS = st.integers(0, 10**6)
TEXTS = st.text(max_size=8)
SITES = st.builds(
    Site, TEXTS, st.integers(1, 3), TEXTS, st.none() | st.builds(Site, TEXTS, st.integers(1, 3), st.just("f"))
)
FIXES = st.builds(
    Fix,
    st.sampled_from(("loader-option", "create-index", "rewrite", "setting", "drop-index")),
    TEXTS,
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.none()
    | st.builds(Verified, TEXTS, st.none() | SECONDS, st.none() | SECONDS, st.none() | TEXTS, st.none() | TEXTS),
)
FINDINGS = st.builds(
    make_finding,
    severity=st.sampled_from(SEVERITIES),
    title=TEXTS,
    key=st.sampled_from(("key 1", "key 2")),
    scope=st.sampled_from(("", "scope 1")),
    label=TEXTS,
    count=COUNTS,
    seconds=SECONDS,
    occurrences=COUNTS,
    site=st.none() | SITES,
    origin=st.none() | SITES,
    evidence=st.dictionaries(TEXTS, TEXTS | COUNTS | SECONDS | st.integers(-9, -1), max_size=2),
    fixes=st.lists(FIXES, max_size=2).map(tuple),
    first_seen=TIMES,
    last_seen=TIMES,
)
STATEMENTS = st.builds(
    make_statement,
    st.lists(NANOSECONDS, max_size=4),
    fingerprint=st.sampled_from(("a" * 16, "b" * 16)),
    engine=st.sampled_from(("shop", "replica")),
    text=TEXTS,
    tables=st.lists(TEXTS, max_size=2).map(tuple),
    errors=st.dictionaries(st.sampled_from(("23505", "40001")), COUNTS),
    rows=st.none() | COUNTS,
    parameter_sets=COUNTS,
    first_seen=TIMES,
    last_seen=TIMES,
    sites=st.lists(st.builds(SiteCalls, SITES, COUNTS), max_size=2).map(tuple),
    slowest=st.none() | SITES,
)
SCOPES = st.builds(
    make_scope,
    st.lists(st.tuples(COUNTS, NANOSECONDS), max_size=4),
    name=st.sampled_from(("scope 1", "scope 2")),
    kind=st.sampled_from(("request", "task")),
    distinct=COUNTS,
    rows=COUNTS,
    late=COUNTS,
    errors=COUNTS,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
TIMELINES = st.builds(
    Timeline,
    st.sampled_from(("GET /orders", "GET /users")),
    st.sampled_from(("request", "task")),
    TIMES,
    SECONDS,
    SECONDS,
    COUNTS,
    st.lists(st.builds(Step, TEXTS, TEXTS, SECONDS, SECONDS, SECONDS), max_size=2).map(tuple),
    COUNTS,
)
REPORTS = st.builds(
    Report,
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
    statements=st.lists(STATEMENTS, max_size=3).map(tuple),
    scopes=st.lists(SCOPES, max_size=3).map(tuple),
    settings=st.dictionaries(st.sampled_from(("slow_seconds", "path_map")), JSON_VALUES),
    started=TIMES,
    ended=TIMES,
    processes=st.lists(st.builds(Process, COUNTS, TEXTS, TIMES, TIMES), max_size=2).map(tuple),
    versions=st.dictionaries(TEXTS, TEXTS, max_size=2),
    release=TEXTS,
    faults=st.lists(st.builds(Fault, TEXTS, TEXTS, COUNTS), max_size=2).map(tuple),
    notes=st.lists(TEXTS, max_size=2).map(tuple),
    timelines=st.lists(TIMELINES, max_size=3, unique_by=lambda each: (each.scope, each.kind)).map(tuple),
)


class TestOrder:
    def test_findings_worst_first(self):
        info, slow, quick = (
            make_finding(key="1", severity="info", seconds=9.0),
            make_finding(key="2", severity="error", seconds=2.0),
            make_finding(key="3", severity="error", seconds=1.0),
        )

        assert (slow, quick, info) == Report(findings=(info, quick, slow)).findings

    def test_findings_of_the_catalog_by_bytes(self):
        small, large = make_finding(key="1", evidence={"bytes": 9}), make_finding(key="2", evidence={"index_bytes": 10})

        assert (large, small) == Report(findings=(small, large)).findings

    def test_statements_and_scopes_by_seconds(self):
        quick, slow = make_statement((1_000,)), make_statement((2_000,), fingerprint="b" * 16)
        small, large = make_scope(((1, 1),)), make_scope(((1, 2),), name="x")
        report = Report(statements=(quick, slow), scopes=(small, large))

        assert ((slow, quick), (large, small)) == (report.statements, report.scopes)

    @hypothesis.given(REPORTS, st.randoms(use_true_random=False))
    def test_does_not_depend_on_the_order_given(self, report, random):
        hypothesis.assume(len({(f.key, f.scope) for f in report.findings}) == len(report.findings))
        hypothesis.assume(len({(s.fingerprint, s.engine) for s in report.statements}) == len(report.statements))
        names = ("findings", "statements")
        shuffled = {name: tuple(random.sample(getattr(report, name), len(getattr(report, name)))) for name in names}

        assert report == dataclasses.replace(report, **shuffled)

    def test_totals(self):
        report = Report(statements=(make_statement((1_000, 2_000)), make_statement((4_000,), fingerprint="b" * 16)))

        assert (3, 7e-6) == (report.total_calls, report.total_seconds)

    def test_takes_a_severity_that_it_does_not_know_as_the_least(self):
        odd, info = make_finding(severity="odd"), make_finding(severity="info", key="2")

        assert (info, odd) == Report(findings=(odd, info)).findings


class TestJson:
    @hypothesis.given(REPORTS)
    def test_round_trip(self, report):
        assert report == Report.from_json(report.to_json())

    @pytest.mark.parametrize("report", [Report(), full_report()], ids=["empty", "full"])
    @pytest.mark.parametrize("indent", [None, 2])
    def test_round_trip_of(self, report, indent):
        assert report == Report.from_json(report.to_json(indent=indent))

    def test_is_one_line_of_ascii_unless_asked_otherwise(self):
        text = dataclasses.replace(full_report(), release="1.4\ud800 µ").to_json()

        assert text.isascii()
        assert "\n" not in text

    def test_holds_exactly_the_fields_of_the_records(self):
        written = json.loads(full_report().to_json())

        assert ["format", *field_names(Report)] == list(written)
        assert field_names(StatementStats) == list(written["statements"][0])
        assert field_names(Finding) == list(written["findings"][0])

    def test_tells_unknown_rows_as_null(self):
        written = json.loads(Report(statements=(make_statement(rows=None),)).to_json())

        assert written["statements"][0]["rows"] is None

    def test_reads_bytes_and_a_byte_order_mark(self):
        text = "\ufeff" + full_report().to_json()

        assert full_report() == Report.from_json(text) == Report.from_json(text.encode())

    def test_leaves_out_what_it_does_not_know(self):
        data = json.loads(full_report().to_json())
        for record in (data, data["findings"][0], data["statements"][0], data["scopes"][0], data["processes"][0]):
            record["invented_later"] = {"deeply": [1, None]}

        assert full_report() == Report.from_json(json.dumps(data))

    def test_reads_a_report_that_has_only_what_it_must(self):
        assert Report() == Report.from_json(
            json.dumps({"format": FORMAT, "findings": [], "statements": [], "scopes": []})
        )

    def test_works_out_again_what_the_histogram_tells(self):
        data = json.loads(full_report().to_json())
        data["statements"][0].update(calls=999, p50=9.0, p95=9.0, p99=9.0)
        data["scopes"][0].update(count=999, p95_calls=999, p95_seconds=9.0)

        assert full_report() == Report.from_json(json.dumps(data))

    def test_trusts_the_numbers_where_there_is_no_histogram(self):
        bare = dataclasses.replace(make_statement(), histogram=(), calls=5, p95=0.25)
        scope = dataclasses.replace(make_scope(), calls_histogram=(), p95_calls=7)
        report = Report(statements=(bare,), scopes=(scope,))

        assert report == Report.from_json(report.to_json())

    def test_takes_whole_numbers_written_as_floats(self):
        data = json.loads(full_report().to_json())
        data["statements"][0]["parameter_sets"] = 9.0

        assert full_report() == Report.from_json(json.dumps(data))

    def test_writes_settings_of_any_type(self):
        report = Report(settings={"tuple": (1, 2), "set": {"b", "a"}, "path": 1j, "infinite": float("inf"), 3: None})

        assert {"tuple": [1, 2], "set": ["a", "b"], "path": "1j", "infinite": None, "3": None} == Report.from_json(
            report.to_json()
        ).settings


def changed(*path, to=...):
    """The full report's JSON with the value at *path* replaced, or without it."""
    data = json.loads(full_report().to_json())
    *parents, last = path
    record = reduce(lambda inside, key: inside[key], parents, data)
    if to is ...:
        del record[last]
    else:
        record[last] = to
    return json.dumps(data)


class TestBadJson:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "a sqlprobe report: JSON is needed, found nothing;"),
            ("  \n", "a sqlprobe report: JSON is needed, found nothing;"),
            ('{"format":', "JSON is needed, found Expecting value at line 1 column 11;"),
            (b"\x1f\x8b\x08\x00", "JSON in UTF-8 is needed, found bytes that are not;"),
            ('{"format": NaN}', "found the constant NaN, which JSON does not have;"),
            ("[" * 100_000, "JSON is needed, found it nested too deeply;"),
            ("[" * 100 + "]" * 100, "JSON is needed, found it nested too deeply;"),
            ("9" * 5_000, "JSON is needed, found Exceeds the limit"),
            ("[1, 2]", f'an object with "format": "{FORMAT}" is needed, found a list of 2;'),
            ("null", "is needed, found null;"),
            ("{}", f'"format": "{FORMAT}" is needed, found no such field;'),
            ('{"format": "other/1"}', 'is needed, found the text "other/1";'),
            ('{"format": 1}', "is needed, found the number 1;"),
            ('{"format": "sqlprobe-report/0"}', 'is needed, found the text "sqlprobe-report/0";'),
            ('{"format": "sqlprobe-report/2"}', 'found the newer "sqlprobe-report/2"; upgrade sqlprobe'),
            (None, "its JSON text is needed, found NoneType;"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_says_what_is_no_report(self, text, message):
        with pytest.raises(ReportError) as caught:
            Report.from_json(text)

        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (changed("statements"), "statements: a value is needed, found no such field;"),
            (changed("statements", 0, "calls"), "statements[0].calls: a value is needed, found no such field;"),
            (
                changed("statements", 0, "calls", to="12"),
                'statements[0].calls: a whole number from 0 on is needed, found the text "12";',
            ),
            (changed("statements", 0, "calls", to=-1), "is needed, found the number -1;"),
            (changed("statements", 0, "calls", to=True), "is needed, found true;"),
            (changed("statements", 0, "calls", to=1.5), "is needed, found the number 1.5;"),
            (changed("statements", 0, "calls", to=10**400), "is needed, found a number beyond measure;"),
            (changed("statements", 0, "seconds", to=None), "statements[0].seconds: a number from 0 on is needed"),
            (changed("statements", 0, "seconds", to=1e300), "is needed, found a number beyond measure;"),
            (changed("statements", 0, "errors", "23505", to="x"), 'statements[0].errors["23505"]: a whole number'),
            (changed("statements", 0, "tables", 0, to=1), "statements[0].tables[0]: a text is needed"),
            (changed("statements", 0, "histogram", to=[1]), "histogram: a list of 22, or of none, is needed, found"),
            (changed("statements", 0, "histogram", 3, to="x"), "statements[0].histogram[3]: a whole number"),
            (changed("statements", 0, "sites", 0, "site", to=None), "statements[0].sites[0].site: an object is needed"),
            (changed("statements", to={}), "statements: a list is needed, found an object;"),
            (changed("statements", 0, to=[]), "statements[0]: an object is needed, found a list of 0;"),
            (
                changed("scopes", 0, "calls_histogram", to=[0]),
                f"scopes[0].calls_histogram: a list of {len(CALL_BOUNDS) + 1}, or of none,",
            ),
            (changed("findings", 0, "severity", to="bad"), "severity: one of info, warning, error is needed"),
            (changed("findings", 0, "site", "line", to="x"), "findings[0].site.line: a whole number"),
            (changed("findings", 0, "evidence", "parents", to=[]), 'evidence["parents"]: a number or a text is needed'),
            (
                changed("findings", 0, "fixes", 0, "verified", "cost_after", to="x"),
                "fixes[0].verified.cost_after: a num",
            ),
            (changed("release", to=1), "release: a text is needed, found the number 1;"),
            (changed("versions", to=[]), "versions: an object is needed, found a list of 0;"),
            (
                full_report().to_json().replace('"slow_seconds":0.1', '"slow_seconds":1e999'),
                'settings["slow_seconds"]: a finite number is needed',
            ),
        ],
    )
    def test_names_the_field_what_it_needs_and_what_it_found(self, text, message):
        with pytest.raises(ReportError) as caught:
            Report.from_json(text)

        assert message in str(caught.value)
        assert "; the file is damaged or not sqlprobe's: make the report again" in str(caught.value)

    def test_cuts_what_it_found(self):
        with pytest.raises(ReportError) as caught:
            Report.from_json(changed("statements", 0, "seconds", to="secret" * 1000))

        assert len(str(caught.value)) < 250

    def test_is_an_error_of_ours_and_a_value_error(self):
        assert issubclass(ReportError, SqlprobeError)
        assert issubclass(ReportError, ValueError)

    @hypothesis.given(st.data())
    def test_takes_what_the_schema_takes_and_refuses_the_rest(self, data):
        report = json.loads(full_report().to_json())
        for _ in range(data.draw(st.integers(1, 2))):
            mutate(data, report)
        try:
            Report.from_json(json.dumps(report))
        except ReportError:
            taken = False
        else:
            taken = True

        assert VALIDATOR.is_valid(report) is taken

    @hypothesis.given(st.text() | st.binary())
    def test_never_raises_anything_else(self, text):
        with pytest.raises(ReportError):
            Report.from_json(text)

    def test_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ReportError, match=r"none\.json: cannot be read: No such file or directory; name a file"):
            Report.read(tmp_path / "none.json")

    def test_file_that_is_a_folder(self, tmp_path):
        with pytest.raises(ReportError, match="cannot be read: Is a directory"):
            Report.read(tmp_path)

    def test_file_whose_name_cannot_be(self):
        with pytest.raises(ReportError, match="cannot be read: embedded null byte"):
            Report.read("a\0b")

    def test_file_is_named(self, tmp_path):
        path = tmp_path / "broken.json"
        path.write_bytes(b"{")

        with pytest.raises(ReportError, match=r"report .*broken\.json: JSON is needed"):
            Report.read(path)


def mutate(data, report):
    """Replace, or take away, one value somewhere in *report*, in place."""
    inside = report
    while True:
        if not isinstance(inside, dict | list) or not inside:
            return
        key = data.draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if not isinstance(inside[key], dict | list) or not inside[key] or data.draw(st.integers(0, 3)) == 0:
            break
        inside = inside[key]
    if data.draw(st.booleans()) and isinstance(inside, dict):
        del inside[key]
    else:
        odd = [None, True, -1, 0, 1, 2.5, "text", [], {}, 10**20, [1], {"a": 1}, "error"]
        inside[key] = copy.deepcopy(data.draw(st.sampled_from(odd)))


def field_names(kind):
    return [item.name for item in dataclasses.fields(kind)]


RECORDS = [
    Process,
    *(
        getattr(sqlprobe.model, name)
        for name in (
            "Finding",
            "StatementStats",
            "ScopeStats",
            "Site",
            "SiteCalls",
            "Fix",
            "Verified",
            "Fault",
            "Timeline",
            "Step",
        )
    ),
]


class TestSchema:
    def test_is_a_schema(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_knows_the_fields_of_a_report(self):
        assert ["format", *field_names(Report)] == list(SCHEMA["properties"])

    def test_knows_every_record(self):
        assert {kind.__name__ for kind in RECORDS} == set(SCHEMA["$defs"])

    @pytest.mark.parametrize("kind", RECORDS)
    def test_knows_the_fields_of(self, kind):
        assert field_names(kind) == list(SCHEMA["$defs"][kind.__name__]["properties"])

    @pytest.mark.parametrize("kind", RECORDS)
    def test_needs_what_has_no_default(self, kind):
        needed = [
            item.name
            for item in dataclasses.fields(kind)
            if item.default is item.default_factory is dataclasses.MISSING
        ]

        assert needed == SCHEMA["$defs"][kind.__name__]["required"]

    @pytest.mark.parametrize("record", [SCHEMA, *SCHEMA["$defs"].values()], ids=["Report", *SCHEMA["$defs"]])
    def test_describes_every_field_and_lets_others_be(self, record):
        undescribed = [name for name, field in record["properties"].items() if len(field) == 1 and "$ref" not in field]

        assert [] == undescribed
        assert record["additionalProperties"] is True
        assert record["description"]

    def test_names_the_format(self):
        assert FORMAT == SCHEMA["properties"]["format"]["const"]

    @hypothesis.given(REPORTS)
    def test_holds_for_what_is_written(self, report):
        VALIDATOR.validate(json.loads(report.to_json()))

    @pytest.mark.parametrize("report", [Report(), full_report()], ids=["empty", "full"])
    def test_holds_for(self, report):
        VALIDATOR.validate(json.loads(report.to_json()))


class TestMerge:
    @pytest.mark.long
    @hypothesis.given(REPORTS, REPORTS, REPORTS)
    def test_does_not_depend_on_order_or_grouping(self, a, b, c):
        merged = Report.merge(a, b, c)

        assert merged == Report.merge(c, a, b)
        assert merged == Report.merge(b, a, c)
        assert merged == Report.merge(Report.merge(a, b), c)
        assert merged == Report.merge(a, Report.merge(b, c))

    @hypothesis.given(REPORTS)
    def test_nothing_changes_nothing(self, report):
        merged = Report.merge(report)

        assert merged == Report.merge(report, Report()) == Report.merge(Report(), report) == Report.merge(merged)

    def test_of_none_is_empty(self):
        assert Report() == Report.merge()

    @hypothesis.given(st.lists(st.lists(NANOSECONDS, min_size=1, max_size=8), min_size=1, max_size=4))
    def test_of_processes_is_what_one_would_have_told(self, processes):
        every = [ns for process in processes for ns in process]
        merged = Report.merge(*(Report(statements=(make_statement(process),)) for process in processes))

        assert (make_statement(every),) == merged.statements

    @hypothesis.given(st.lists(st.lists(st.tuples(COUNTS, NANOSECONDS), min_size=1), min_size=1, max_size=4))
    def test_of_scopes_is_what_one_process_would_have_told(self, processes):
        every = [window for process in processes for window in process]
        merged = Report.merge(*(Report(scopes=(make_scope(process),)) for process in processes))

        assert (make_scope(every),) == merged.scopes

    def test_statements(self):
        one = make_statement(
            (2_000_000,),
            errors={"23505": 1},
            rows=None,
            parameter_sets=4,
            pages=2,
            sites=(SiteCalls(VIEW, 1),),
            slowest=VIEW,
            first_seen=100.0,
            last_seen=150.0,
        )
        other = make_statement(
            (1_000_000, 5_000_000),
            errors={"23505": 1, "40001": 1},
            rows=3,
            parameter_sets=5,
            pages=2,
            sites=(SiteCalls(VIEW, 1), SiteCalls(REPOSITORY, 1)),
            slowest=REPOSITORY,
            first_seen=90.0,
            last_seen=140.0,
        )
        expected = make_statement(
            (1_000_000, 2_000_000, 5_000_000),
            errors={"23505": 2, "40001": 1},
            rows=3,
            parameter_sets=9,
            pages=4,
            sites=(SiteCalls(VIEW, 2), SiteCalls(REPOSITORY, 1)),
            slowest=REPOSITORY,
            first_seen=90.0,
            last_seen=150.0,
        )

        assert (expected,) == Report.merge(Report(statements=(one,)), Report(statements=(other,))).statements

    def test_reads_percentiles_from_the_sum_of_the_histograms(self):
        quick, slow = make_statement((1_000_000,) * 99), make_statement((900_000_000,) * 5)
        (merged,) = Report.merge(Report(statements=(quick,)), Report(statements=(slow,))).statements

        assert (0.001, 0.001, 0.9) == (merged.p50, merged.p95, merged.p99)
        assert merged.p95 == percentile(merged.histogram, 0.95, merged.max)

    def test_rows_that_nobody_knows_stay_unknown(self):
        report = Report(statements=(make_statement(rows=None),))

        assert [None] == [each.rows for each in Report.merge(report, report).statements]

    def test_keeps_engines_apart(self):
        shop, replica = make_statement(), make_statement(engine="replica")
        merged = Report.merge(Report(statements=(shop,)), Report(statements=(replica,)))

        assert (replica, shop) == merged.statements

    def test_the_larger_percentile_where_a_histogram_is_missing(self):
        bare = dataclasses.replace(make_statement(), histogram=(), calls=5, p50=0.1, p95=0.25, p99=0.5)
        (merged,) = Report.merge(Report(statements=(bare,)), Report(statements=(make_statement(),))).statements

        assert ((), 6, 0.1, 0.25, 0.5) == (merged.histogram, merged.calls, merged.p50, merged.p95, merged.p99)

    def test_the_larger_percentile_where_a_scope_has_no_histogram(self):
        bare = dataclasses.replace(make_scope(), calls_histogram=(), count=5, p95_calls=9, p95_seconds=0.5)
        (merged,) = Report.merge(Report(scopes=(bare,)), Report(scopes=(make_scope(),))).scopes

        assert ((), 6, 9, 0.5) == (merged.calls_histogram, merged.count, merged.p95_calls, merged.p95_seconds)

    def test_findings_are_summed_and_told_by_the_worse(self):
        bad = make_finding(
            title="ran 48 times",
            count=48,
            seconds=0.5,
            occurrences=1,
            evidence={"n": 48},
            first_seen=5.0,
            last_seen=6.0,
        )
        mild = make_finding(
            title="ran 2 times", count=2, seconds=0.1, occurrences=3, evidence={"n": 2}, first_seen=1.0, last_seen=9.0
        )
        expected = dataclasses.replace(bad, count=50, seconds=0.6, occurrences=4, first_seen=1.0, last_seen=9.0)

        assert (expected,) == Report.merge(Report(findings=(mild,)), Report(findings=(bad,))).findings

    def test_a_grave_finding_is_not_hidden_by_a_costly_mild_one(self):
        grave = make_finding(severity="warning", title="took 0.2 s", seconds=0.2, evidence={"slowest": 0.2})
        mild = make_finding(severity="info", title="waited 3 s", seconds=3.0, evidence={"slowest": 3.0})
        (merged,) = Report.merge(Report(findings=(grave,)), Report(findings=(mild,))).findings

        assert ("warning", "took 0.2 s", 3.2) == (merged.severity, merged.title, merged.seconds)

    def test_the_rest(self):
        one = Report(
            settings={"slow_seconds": 0.1, "enabled": True},
            started=100.0,
            ended=150.0,
            processes=(Process(2, "shop", 100.0, 150.0),),
            versions={"python": "3.11.7", "sqlalchemy": "2.1.9"},
            release="1.4",
            faults=(Fault("capture", "KeyError", 1),),
            notes=("b", "a"),
        )
        other = Report(
            settings={"slow_seconds": 0.5, "enabled": True},
            started=90.0,
            ended=140.0,
            processes=(Process(1, "shop", 90.0, 140.0), Process(2, "shop", 100.0, 140.0)),
            versions={"python": "3.12.1", "sqlalchemy": "2.1.9"},
            release="1.5",
            faults=(Fault("capture", "KeyError", 2), Fault("render", "ValueError", 9)),
            notes=("a",),
        )
        expected = Report(
            settings={"slow_seconds": 0.5, "enabled": True},
            started=90.0,
            ended=150.0,
            processes=(Process(1, "shop", 90.0, 140.0), Process(2, "shop", 100.0, 150.0)),
            versions={"python": "3.11.7, 3.12.1", "sqlalchemy": "2.1.9"},
            release="1.4, 1.5",
            faults=(Fault("render", "ValueError", 9), Fault("capture", "KeyError", 3)),
            notes=(
                "The merged processes did not share the setting slow_seconds; one of its values is shown.",
                "a",
                "b",
            ),
        )

        assert expected == Report.merge(one, other)

    def test_leaves_its_arguments_alone(self):
        report = full_report()
        Report.merge(report, report)

        assert full_report() == report

    def test_says_that_it_takes_reports(self):
        with pytest.raises(ReportError, match=r"takes reports, found list; pass each by itself: merge\(\*reports\)"):
            Report.merge([Report()])


class TestSince:
    @hypothesis.given(
        st.lists(NANOSECONDS, min_size=1, max_size=8), st.lists(NANOSECONDS, max_size=8), st.none() | COUNTS, COUNTS
    )
    def test_statements_are_what_came_between(self, before, between, rows, more_rows):
        then = make_statement(before, rows=rows, errors={"23505": 1}, parameter_sets=9)
        now = make_statement([*before, *between], rows=more_rows + (rows or 0), errors={"23505": 1}, parameter_sets=11)
        left = Report(statements=(now,)).since(Report(statements=(then,))).statements

        if not between:
            assert () == left
            return
        expected = make_statement(between, rows=more_rows, errors={}, parameter_sets=2, pages=len(between))
        inexact = {"min": 0.0, "max": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0}

        assert dataclasses.replace(expected, **inexact) == dataclasses.replace(left[0], **inexact)
        assert left[0].min <= expected.min <= expected.max <= left[0].max
        assert all(getattr(expected, name) <= getattr(left[0], name) for name in ("p50", "p95", "p99"))
        assert left[0].max <= now.max

    @hypothesis.given(st.lists(st.tuples(COUNTS, NANOSECONDS)), st.lists(st.tuples(COUNTS, NANOSECONDS), min_size=1))
    def test_scopes_are_what_came_between(self, before, between):
        then, now = make_scope(before), make_scope([*before, *between])

        assert (make_scope(between),) == Report(scopes=(now,)).since(Report(scopes=(then,))).scopes

    def test_nothing_came_after_itself(self):
        report = full_report()
        empty = dataclasses.replace(
            report,
            findings=(),
            statements=(),
            scopes=(),
            faults=(),
            started=200.0,
            processes=report.processes,
            timelines=(),
        )
        expected = dataclasses.replace(empty, processes=(Process(4711, "python -m shop", 200.0, 200.0),))

        assert expected == report.since(report)

    def test_everything_came_after_nothing(self):
        assert full_report() == full_report().since(Report())

    def test_findings(self):
        same, then = make_finding(key="same"), make_finding(key="more", count=10, seconds=0.5, occurrences=2)
        more = dataclasses.replace(then, count=15, seconds=0.75, occurrences=3)
        again, back = make_finding(key="again", occurrences=5), make_finding(key="again", occurrences=2)
        new = make_finding(key="new")
        left = Report(findings=(same, more, back, new)).since(Report(findings=(same, then, again)))

        assert (dataclasses.replace(then, count=5, seconds=0.25, occurrences=1), back, new) == left.findings

    def test_an_extreme_in_between_is_told_if_it_is_new(self):
        then = make_statement((5_000_000,), slowest=VIEW, sites=(SiteCalls(VIEW, 1),))
        now = make_statement(
            (5_000_000, 9_000_000), slowest=REPOSITORY, sites=(SiteCalls(REPOSITORY, 1), SiteCalls(VIEW, 1))
        )
        (left,) = Report(statements=(now,)).since(Report(statements=(then,), ended=150.0)).statements

        assert (0.005, 0.009, REPOSITORY, (SiteCalls(REPOSITORY, 1),), 150.0) == (
            left.min,
            left.max,
            left.slowest,
            left.sites,
            left.first_seen,
        )

    def test_an_older_extreme_is_not_taken_for_a_new_one(self):
        then = make_statement((1_000_000, 900_000_000), slowest=VIEW)
        now = make_statement((1_000_000, 900_000_000, 6_000_000), slowest=VIEW)
        (left,) = Report(statements=(now,)).since(Report(statements=(then,))).statements

        assert (0.005, 0.01, 0.01, None) == (left.min, left.max, left.p99, left.slowest)

    def test_without_histograms_the_counts_at_least(self):
        bare = dataclasses.replace(make_statement(), histogram=(), calls=5)
        scope = dataclasses.replace(make_scope(), calls_histogram=(), count=5)
        earlier = Report(
            statements=(dataclasses.replace(bare, calls=3),), scopes=(dataclasses.replace(scope, count=3),)
        )
        left = Report(statements=(bare,), scopes=(scope,)).since(earlier)

        assert (2, 2) == (left.statements[0].calls, left.scopes[0].count)

    def test_says_that_the_earlier_is_the_later(self):
        then, now = (
            Report(statements=(make_statement((1,)),)),
            Report(statements=(make_statement((1, 2)),)),
        )

        with pytest.raises(ReportError, match="an earlier report of the same probe is needed, found one that counted"):
            then.since(now)


class TestCompare:
    def test_of_a_report_with_itself_is_empty(self):
        report = full_report()

        assert Comparison(report, report) == report.compare(report)

    def test_findings(self):
        stays, new, gone = (make_finding(key=key) for key in ("stays", "new", "gone"))
        unseen = make_finding(key="stays", scope="GET /cart")
        cart, orders = make_scope(name="GET /cart"), make_scope()
        base = Report(findings=(stays, gone, unseen), scopes=(cart, orders))
        report = Report(findings=(stays, new), scopes=(orders,))

        assert Comparison(
            base, report, new_findings=(new,), gone_findings=(gone,), unseen_findings=(unseen,)
        ) == report.compare(base)

    def test_statements(self):
        stays, new, gone = (make_statement(fingerprint=name * 16) for name in "abc")
        base, report = Report(statements=(stays, gone)), Report(statements=(stays, new))

        assert Comparison(base, report, new_statements=(new,), gone_statements=(gone,)) == report.compare(base)

    @pytest.mark.parametrize(
        ("before", "after", "slower"),
        [
            ((10_000_000,), (15_000_000,), True),
            ((10_000_000,), (14_900_000,), False),
            ((1_000_000,), (1_900_000,), False),  # less than a millisecond
            ((100_000,), (1_200_000,), True),
            # Same mean; the percentile's bucket is the next, and its lower edge the earlier one's upper: may be equal.
            ((4_900_000,) * 20, (4_800_000,) * 18 + (5_100_000,) * 2, False),
            ((1_000_000,) * 20, (100_000,) * 18 + (9_000_000,) * 2, True),  # a lower mean, but a tail
            ((4_900_000,) * 20, (4_800_000,) * 19 + (5_100_000,), False),
            ((), (15_000_000,), False),
            ((10_000_000,), (), False),
        ],
    )
    def test_slower_and_faster(self, before, after, slower):
        then, now = make_statement(before), make_statement(after)
        base, report = Report(statements=(then,)), Report(statements=(now,))

        assert ((Change(then, now),) if slower else ()) == report.compare(base).slower
        assert ((Change(now, then),) if slower else ()) == base.compare(report).faster

    def test_a_percentile_known_by_its_bucket_only_accuses_nobody(self):
        then, now = make_statement((4_900_000,) * 100), make_statement((5_100_000,) * 100)

        assert (0.0049, 0.0051) == (then.p95, now.p95)
        assert () == Report(statements=(now,)).compare(Report(statements=(then,))).slower

    @pytest.mark.parametrize(
        ("before", "after", "more"),
        [(((3, 1),), ((4, 1),), True), (((3, 1),) * 4, ((3, 1),) * 3 + ((4, 1),), False), (((0, 1),), (), False)],
    )
    def test_more_and_fewer_calls(self, before, after, more):
        then, now = make_scope(before), make_scope(after)
        base, report = Report(scopes=(then,)), Report(scopes=(now,))

        assert ((Change(then, now),) if more else ()) == report.compare(base).more_calls
        assert ((Change(now, then),) if more else ()) == base.compare(report).fewer_calls


class TestWrite:
    def test_json(self, tmp_path):
        full_report().write(tmp_path / "report.json")

        assert full_report() == Report.read(tmp_path / "report.json")
        assert ["report.json"] == [path.name for path in tmp_path.iterdir()]

    @pytest.mark.parametrize(("name", "begins"), [("a.md", "# sqlprobe report\n"), ("a.SARIF", '{\n "$schema"')])
    def test_other_formats_by_suffix(self, tmp_path, name, begins):
        full_report().write(str(tmp_path / name))

        assert (tmp_path / name).read_text().startswith(begins)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("a.txt", "the suffix names the format, found the suffix '.txt'; use .json, .html, .md, .sarif"),
            ("json", "found the suffix ''; use"),
        ],
    )
    def test_says_which_formats_there_are(self, tmp_path, name, message):
        with pytest.raises(ReportError) as caught:
            full_report().write(tmp_path / name)

        assert message in str(caught.value)
        assert [] == list(tmp_path.iterdir())

    def test_suffix_can_be_asked_before(self):
        assert ".json" == suffix_of("a/b.JSON")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(ReportError, match=r"cannot be written: No such file or directory; nothing was changed"):
            full_report().write(tmp_path / "none" / "a.json")

    def test_a_folder_in_its_place(self, tmp_path):
        (tmp_path / "a.json").mkdir()

        with pytest.raises(ReportError, match="cannot be written: it is a folder;"):
            full_report().write(tmp_path / "a.json")

    def test_a_name_that_cannot_be(self, tmp_path):
        with pytest.raises(ReportError, match="cannot be written: "):
            full_report().write(f"{tmp_path}/a\0.json")

    def test_a_name_that_is_too_long(self, tmp_path):
        with pytest.raises(ReportError, match="cannot be written: File name too long"):
            full_report().write(tmp_path / f"{'a' * 300}.json")

    def test_links_in_a_circle(self, tmp_path):
        (tmp_path / "a.json").symlink_to(tmp_path / "b.json")
        (tmp_path / "b.json").symlink_to(tmp_path / "a.json")

        with pytest.raises(ReportError, match="cannot be written: "):
            full_report().write(tmp_path / "a.json")

    def test_a_full_disk_leaves_the_old_report(self, tmp_path):
        path = tmp_path / "a.json"
        Report().write(path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            with pytest.raises(ReportError, match="cannot be written: File too large; nothing was changed there"):
                full_report().write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        assert Report() == Report.read(path)
        assert ["a.json"] == [path.name for path in tmp_path.iterdir()]

    def test_follows_a_link_and_keeps_the_mode(self, tmp_path):
        target, link = tmp_path / "target.json", tmp_path / "link.json"
        Report().write(target)
        target.chmod(0o604)
        link.symlink_to(target)
        full_report().write(link)

        assert full_report() == Report.read(target)
        assert link.is_symlink()
        assert 0o604 == target.stat().st_mode & 0o777

    def test_gives_a_new_file_the_usual_mode(self, tmp_path):
        before = os.umask(0o022)
        try:
            Report().write(tmp_path / "a.json")
        finally:
            os.umask(before)

        assert 0o644 == (tmp_path / "a.json").stat().st_mode & 0o777


def test_bounds_are_those_of_the_schema():
    lengths = {
        name: SCHEMA["$defs"][kind]["properties"][name]["anyOf"][1]["minItems"]
        for kind, name in (
            ("StatementStats", "histogram"),
            ("ScopeStats", "calls_histogram"),
            ("ScopeStats", "seconds_histogram"),
        )
    }

    assert {
        "histogram": len(BOUNDS) + 1,
        "calls_histogram": len(CALL_BOUNDS) + 1,
        "seconds_histogram": len(BOUNDS) + 1,
    } == lengths
