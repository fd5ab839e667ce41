"""The page as it is written: whole without scripts, nothing hostile in it, nothing loaded from anywhere."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from rich.console import Console

from sqlprobe import cli, html, render
from sqlprobe.html import render_comparison_html, render_html
from sqlprobe.html.plan import MAX_DEPTH, draw_plan
from sqlprobe.model import Site
from sqlprobe.report import Report, ReportError

VOID = {"meta", "link", "br", "input", "use", "rect", "path", "circle", "line", "hr", "img"}


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles; fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.said = []
        self.scripts = []
        self.styles = []
        self._open = []
        self.feed(text)
        self.close()
        assert [] == self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert tag == self._open.pop()

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.said).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.said).split())

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def page(report):
    return Page(render_html(report))


def test_is_whole_without_scripts(page, report):
    for finding in report.findings:
        assert finding.title in page.text
        assert finding.advice in page.text
    for said in (
        "GET /orders, in 1 of 2",
        "shop/repositories/orders.py:58",
        "selectinload(Order.items)",
        'op.create_index("ix_orders_state", "orders", ["state"])',
        "hypothetical index: cost 1,070.42 → 19.34",
        "500 ms",
        "INSERT orders",
        "nightly",
        "12 lazy loads were not followed.",
        "detector n-plus-one",
        "python -m shop",
        "release 1.4",
        "2 errors: 40001 (2)",
        "48 \u00d7 Order.items",
        "slowest 1.74 s",
        "share of scope 44 %",
    ):
        assert said in page.text


def test_loads_nothing(page):
    named = [
        attrs[name]
        for tag, attrs in page.tags
        for name in ("src", "href", "action", "data", "srcset", "poster")
        if name in attrs and not (tag == "link" and attrs[name].startswith("data:"))
    ]

    assert {"#"} == {address[:1] for address in named}
    assert "@import" not in "".join(page.styles)
    assert "url(" not in "".join(page.styles)


def test_its_policy_allows_its_own_script_and_style_only(page):
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    code, style = page.scripts[-1], page.styles[0]

    def source(text):
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    assert "'none'" == directives["default-src"]
    assert source(code) == directives["script-src"]
    assert source(style) == directives["style-src"]
    assert 2 == len(page.scripts)


def test_nothing_in_it_needs_what_the_policy_forbids(page):
    forbidden = [(tag, name) for tag, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]

    assert [] == forbidden


def test_ids_are_unique_and_links_within_lead_somewhere(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    targets = {attrs["href"][1:] for tag, attrs in page.tags if tag in {"a", "use"} and attrs["href"].startswith("#")}

    assert len(set(ids)) == len(ids)
    # A statement is drawn when it is asked for.
    assert set() == {target for target in targets - set(ids) if not re.fullmatch(r"statement-\d+", target)}


def unpacked(text):
    """What `unpack()` of page.js makes of a packed report."""
    packed = json.loads(text)

    def opened(value):
        if isinstance(value, str):
            return packed["strings"][int(value, 36)]
        if not isinstance(value, list):
            return value
        kind, *rest = value
        if kind >= 0:
            return {name: opened(item) for name, item in zip(packed["shapes"][kind], rest, strict=True)}
        if kind == -1:
            return [opened(item) for item in rest]
        if kind == -3:
            return opened(packed["shared"][rest[0]])
        numbers = [0] * rest[0]
        for index, number in zip(rest[1::2], rest[2::2], strict=True):
            numbers[index] = number
        return numbers

    return opened(packed["data"])


def test_carries_the_report(page, report):
    assert json.loads(report.to_json()) == unpacked(page.scripts[0])
    assert report == Report.from_json(json.dumps(unpacked(page.scripts[0])))


@pytest.mark.parametrize(
    "settings",
    [
        {"__proto__": "x", "a": [1.5, None, True, float("inf")], "b": {"c": (), "d": {1: 2}}},
        {"zeros": [0] * 40, "negative": [-1] * 9, "big": 10**15, "": "", "mixed": [0, True, 1.0, *range(9)]},
    ],
)
def test_carries_whatever_a_setting_holds(settings):
    given = Report(settings=settings)

    assert json.loads(given.to_json()) == unpacked(Page(render_html(given)).scripts[0])


@pytest.mark.parametrize("given", [Report(), Report(settings={"enabled": False})])
def test_says_what_to_check_where_nothing_was_seen(given):
    page = Page(render_html(given))

    assert "No statement was seen." in page.text
    assert render._checks(given)[0] in page.text


def test_tells_of_rules_that_are_off(report):
    page = Page(render_html(replace(report, findings=(), settings={"disabled_rules": ["n-plus-one", "seq-scan"]})))

    assert "Nothing was found; disabled: n-plus-one, seq-scan" in page.text


def test_comparison_begins_with_what_changed(report, long_report):
    before = replace(
        report,
        findings=report.findings[1:],
        statements=tuple(replace(each, seconds=each.seconds / 4, p95=each.p95 / 4) for each in report.statements[:3]),
    )
    page = Page(render_comparison_html(report.compare(before)))
    at = [page.text.index(title) for title in ("What changed", "New findings", "Slower statements", "New statements")]

    assert sorted(at) == at
    assert ("a", {"href": "#finding-0"}) in page.tags


def test_comparison_of_equals_says_so(report):
    assert "Nothing differs" in Page(render_comparison_html(report.compare(report))).text


HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<!--<script>",
    "--></title></textarea></style><svg/onload=window.pwned=2>",
    "\"'><img src=x onerror=window.pwned=3>",
    "{{ 7 * 27182818 }}{% raw %}{# #}",
    "javascript:window.pwned=4",
    "&lt;b&gt;&#60;script&#62;",
    "]]><![CDATA[",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(spoilt, page, text):
    hostile = Page(render_html(spoilt(text)))

    def outline(page):
        return [(tag, sorted(attrs)) for tag, attrs in page.tags]

    def names(page):
        return sorted({tag for tag, _ in page.tags})

    assert names(page) == names(hostile)
    assert {tuple(names) for _, names in outline(hostile)} <= {tuple(names) for _, names in outline(page)}
    assert text in hostile.text
    assert "190279726" not in hostile.text.replace(text, "")
    assert page.scripts[1] == hostile.scripts[1]


@pytest.mark.parametrize(
    ("char", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("\u2066", "\\u2066"),
        ("\x00", "\\x00"),
        ("\u200b", "\\u200b"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(spoilt, char, shown):
    text = render_html(spoilt(char))
    page = Page(text)

    assert char[0] not in text.replace("\n", "")
    assert shown in page.text
    text.encode()


@pytest.mark.parametrize("size", [100_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_text_without_end_is_cut_where_nobody_asked_for_it(spoilt, size):
    huge = "x" * size
    page = Page(render_html(make_small(spoilt(huge))))

    assert 200_000 > len(page.text)
    assert huge in page.scripts[0]
    assert "characters more" in page.text


def make_small(report):
    return replace(report, findings=report.findings[:1], statements=report.statements[:1])


@pytest.mark.parametrize("verbose", [False, True])
def test_the_terminal_shows_hostile_text_harmlessly(spoilt, verbose):
    for text in (*HOSTILE, "\x1b]0;title\x07\x1b[2J", "\u202egnp", "\r\n\x08", "[bold red]no[/]"):
        out = io.StringIO()
        console = Console(file=out, width=120, force_terminal=True, color_system=None)
        render.print_report(spoilt(text), console, verbose=verbose)
        said = out.getvalue()

        assert [] == [char for char in said if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("size", [100_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_text_without_end_is_cut_in_the_terminal(spoilt, size):
    huge = "x" * size
    out = io.StringIO()
    render.print_report(make_small(spoilt(huge)), Console(file=out, width=120), top=3)

    table = out.getvalue().split("STATEMENTS")[1].split("SCOPES")[0]
    assert max(map(len, table.splitlines())) <= 121
    assert max(map(len, out.getvalue().splitlines())) <= 3 * render.MAX_PIECE


def test_a_path_of_a_million_folders_has_an_end():
    assert "…/a/a:7" == render.short_place(Site("a/" * 500_000 + "a", 7, "f"), 7)


def test_plan_of_ours_is_drawn():
    tree = draw_plan(
        "Limit  (0 %, cost 1,070, rows 10, really 10)\n"
        "  -> Seq Scan on orders  (96 %, cost 1,020, rows 9.5, really 90,000 x 3)\n"
        "       Filter: (state = ?)\n"
        "Settings: work_mem = ?"
    )
    (scan,) = tree.root.children

    assert ("Limit", 0.0, 0) == (tree.root.title, tree.root.share, tree.root.heat)
    assert ("Seq Scan on orders", 0.96, 4, 1020.0, 9.5, 90_000.0, 3.0) == (
        scan.title,
        scan.share,
        scan.heat,
        scan.cost,
        scan.rows,
        scan.actual,
        scan.loops,
    )
    assert ["Filter: (state = ?)"] == scan.details
    assert pytest.approx(90_000 / 9.5) == scan.off
    assert ("Settings: work_mem = ?",) == tree.remarks


def test_plan_of_postgresql_is_drawn():
    tree = draw_plan(
        "Hash Join  (cost=30.00..100.00 rows=10 width=8)\n"
        "  Hash Cond: (a.id = b.id)\n"
        "  ->  Seq Scan on a  (cost=0.00..20.00 rows=1000 width=4)\n"
        "  ->  Hash  (cost=25.00..25.00 rows=400 width=4)\n"
        "        ->  Seq Scan on b  (cost=0.00..25.00 rows=400 width=4) (never executed)\n"
        "Planning Time: 0.1 ms"
    )

    assert ["Seq Scan on a", "Hash"] == [child.title for child in tree.root.children]
    assert ["Seq Scan on b"] == [child.title for child in tree.root.children[1].children]
    assert [0.55, 0.2] == [round(step.share, 2) for step in (tree.root, tree.root.children[0])]
    assert ["Hash Cond: (a.id = b.id)"] == tree.root.details


@pytest.mark.parametrize(
    "text",
    ["", "Seq Scan", 7, "x\n" * 5_000, "A  (1 %, cost 1, rows 1)\nB  (1 %, cost 1, rows 1)",
     "\n".join("  " * depth + "-> A  (1 %, cost 1, rows 1)" for depth in range(MAX_DEPTH + 5))],
)  # fmt: skip
def test_what_is_no_tree_is_shown_as_text(text, report):
    assert draw_plan(text) is None
    finding = replace(report.findings[0], evidence={"plan": f"{text}\n"})
    Page(render_html(replace(report, findings=(finding,))))


class TestWriting:
    def test_by_suffix(self, tmp_path, report):
        report.write(tmp_path / "a.HTML")

        assert (tmp_path / "a.HTML").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    def test_comparison(self, tmp_path, report):
        comparison = report.compare(Report())
        comparison.write(tmp_path / "a.html")
        comparison.write(tmp_path / "a.md")

        assert "What changed" in (tmp_path / "a.html").read_text(encoding="utf-8")
        assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("# sqlprobe comparison")

    def test_comparison_in_no_other_format(self, tmp_path, report):
        with pytest.raises(ReportError, match=r"it is written as \.html or \.md, found the suffix '\.sarif'"):
            report.compare(report).write(tmp_path / "a.sarif")

    def test_from_the_command_line(self, tmp_path, report, capsys):
        report.write(tmp_path / "now.json")
        Report(scopes=report.scopes).write(tmp_path / "then.json")
        now, then = str(tmp_path / "now.json"), str(tmp_path / "then.json")
        one, two = str(tmp_path / "one.html"), str(tmp_path / "two.html")

        assert 0 == cli.main(["report", now, "-q", "-o", one])
        assert 0 == cli.main(["report", now, "--against", then, "-q", "-o", two])
        assert "What changed" not in (tmp_path / "one.html").read_text(encoding="utf-8")
        assert "What changed" in (tmp_path / "two.html").read_text(encoding="utf-8")

    def test_says_before_the_run_what_to_install(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        status = cli.main(["run", "-o", str(tmp_path / "a.html"), "nothing.py"])

        assert 2 == status
        assert (
            "HTML needs jinja2, which is not installed; install it: pip install 'sqlprobe[html]'"
            in capsys.readouterr().err
        )

    def test_says_so_in_code_too(self, monkeypatch, report):
        html._environment.cache_clear()
        monkeypatch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(ReportError, match="HTML needs jinja2"):
            render_html(report)


@pytest.mark.once
def test_the_other_formats_do_without_jinja2():
    code = "import sys; sys.modules['jinja2'] = None; from sqlprobe import Report, render; render.render_markdown(Report())"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_thousands_of_statements_make_a_page_of_bounded_html(long_report):
    text = render_html(long_report(2_000))
    page = Page(text)

    assert 2_000 == len(unpacked(page.scripts[0])["statements"])
    assert (True, True) == (500 > len(page.all("tr")), len(text) < 1_000_000)
