"""The page in a real browser: what is there to click, to type and to read works, at both widths, with no error logged."""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from sqlprobe.html import render_comparison_html, render_html
from sqlprobe.render import duration
from sqlprobe.report import Report

pytestmark = [
    pytest.mark.once,
    pytest.mark.requires_debian("chromium", "chromium"),
    pytest.mark.requires_debian("chromium-driver", "chromedriver"),
]

DESKTOP, PHONE = (1280, 900), (390, 844)
VIEWS = ("overview", "findings", "timelines", "statements", "scopes", "about")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
)  # fmt: skip


class Browser:
    """A page in Chromium, and what a person does to it."""

    def __init__(self, driver, folder):
        self.driver = driver
        self.folder = folder

    def open(self, page, anchor="", size=DESKTOP, *, dark=False):
        """Show the HTML *page*, in which nobody has done anything."""
        path = self.folder / "page.html"
        path.write_text(page, encoding="utf-8")
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        self.scheme(dark=dark)
        self.driver.get("about:blank")
        self.driver.get(f"{path.as_uri()}#{anchor}")
        return self

    def command(self, name, **given):
        return self.driver.execute_cdp_cmd(name, given)

    def scheme(self, *, dark):
        value = "dark" if dark else "light"
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def run(self, code, *given):
        return self.driver.execute_script(f"return {code}", *given)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def wait(self, condition):
        """The first true answer of *condition*."""
        return WebDriverWait(self.driver, 20, 0.02).until(lambda _: condition())

    def texts(self, selector):
        return self.run("[...document.querySelectorAll(arguments[0])].map(each => each.textContent)", selector)

    def names(self, table="statements"):
        return self.texts(f"#{table}-table tbody tr.row th .name bdi")

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield Browser(driver, tmp_path_factory.mktemp("pages"))
    driver.quit()


@pytest.fixture
def browser(started):
    """Chromium; fails the test if the page has logged anything, an exception or a breach of its policy."""
    started.errors()
    yield started
    assert [] == started.errors()


@pytest.fixture(scope="module")
def page(report):
    return render_html(report)


@pytest.mark.long
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_part_opens_alone_and_fits(browser, page, report, size):
    browser.open(page, size=size)
    seen = []
    for view in VIEWS:
        browser.run(f"void document.querySelector('nav a[href=\"#{view}\"]').click()")
        browser.wait(
            lambda view=view: browser.run(f"!document.getElementById('{view}').hidden && location.hash == '#{view}'")
        )
        shown = browser.run(
            "[...document.querySelectorAll('main > [data-view]')].filter(each => !each.hidden).map(each => each.id)"
        )
        current = browser.texts("nav a[aria-current]")
        fits = browser.run("document.documentElement.scrollWidth <= innerWidth && scrollY == 0")
        seen.append((shown, len(current), fits))

    assert [([view], 1, True) for view in VIEWS] == seen
    assert 0 == browser.run("performance.getEntriesByType('resource').length")


@pytest.mark.long
def test_sorts_by_every_column_both_ways(browser, page, report):
    browser.open(page, "statements")
    expected = {
        "Time": lambda each: each.seconds,
        "Calls": lambda each: each.calls,
        "Mean": lambda each: each.seconds / each.calls,
        "95 % within": lambda each: each.p95,
        "Rows/call": lambda each: -1 if each.rows is None else each.rows / each.calls,
        "Statement": lambda each: each.summary.lower(),
    }
    for title, key in expected.items():
        button = next(each for each in browser.all("#statements-table thead button") if each.text.strip("↓↑ ") == title)
        order = [each.summary for each in sorted(report.statements, key=key)]
        first, second = ("ascending", "descending") if title == "Statement" else ("descending", "ascending")
        if title == "Time":  # as the page begins
            assert list(reversed(order)) == browser.names()
            assert ["descending"] == [
                each.get_attribute("aria-sort") for each in browser.all("#statements-table th[aria-sort]")
            ]
            continue
        for direction in (first, second):
            button.click()
            # Equal ones stay as they were.
            names = browser.names()
            keys = [key(next(each for each in report.statements if each.summary == name)) for name in names]
            assert sorted(keys, reverse=direction == "descending") == keys
            assert [direction] == [
                each.get_attribute("aria-sort") for each in browser.all("#statements-table th[aria-sort]")
            ]


@pytest.mark.long
def test_searches_and_filters(browser, page, report):
    browser.open(page, "statements")
    field = browser.one("#statements-table input[type=search]")
    field.send_keys("ORDER_id items")
    assert (["SELECT items"], "1 of 4") == (browser.names(), browser.one("#statements-table .shown").text)

    field.send_keys(" nothing of the sort")
    assert ([], "0 of 4") == (browser.names(), browser.one("#statements-table .shown").text)
    assert browser.one("#statements-table .empty").is_displayed()

    field.clear()
    field.send_keys("repositories/orders.py:58")
    assert 4 == len(browser.names())
    Select(browser.one("#statements-table select[aria-label='Every operation']")).select_by_value("INSERT")
    assert ["INSERT orders"] == browser.names()
    Select(browser.one("#statements-table select[aria-label='Every operation']")).select_by_index(0)
    Select(browser.one("#statements-table select[aria-label='Every engine']")).select_by_value("other")
    assert ["SELECT customers"] == browser.names()
    Select(browser.one("#statements-table select[aria-label='Every engine']")).select_by_index(0)
    browser.all("#statements-table input[type=checkbox]")[0].click()
    assert ["SELECT orders"] == browser.names()


def test_filters_findings(browser, page, report):
    browser.open(page, "findings")

    def shown():
        return [each.get_attribute("id") for each in browser.all("#findings .finding") if each.is_displayed()]

    Select(browser.one("#findings-filter select[name=severity]")).select_by_visible_text("warning")
    assert ["finding-1"] == shown()
    Select(browser.one("#findings-filter select[name=severity]")).select_by_index(0)
    Select(browser.one("#findings-filter select[name=rule]")).select_by_visible_text("n-plus-one")
    assert ["finding-0"] == shown()
    Select(browser.one("#findings-filter select[name=rule]")).select_by_index(0)
    browser.one("#findings-filter input").send_keys("concurrently")
    assert (["finding-1"], "1 of 3") == (shown(), browser.one("#findings-filter .shown").text)


@pytest.mark.exhaustive
def test_a_hidden_finding_is_shown_by_the_link_to_it(browser, page):
    browser.open(page, "findings")
    browser.one("#findings-filter input").send_keys("nothing like it")
    browser.run("void (location.hash = 'finding-2')")

    assert browser.wait(lambda: browser.one("#finding-2").is_displayed())
    assert "finding-2" == browser.run("document.activeElement.id")


def test_copies_a_fix(browser, page, report):
    browser.open(page, "finding-0")
    button = browser.one("#finding-0 .fix .copy")
    button.click()
    browser.wait(lambda: "Copied" == button.text)
    browser.run("void document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))")
    area = browser.one("#paste")
    area.send_keys(Keys.CONTROL, "v")

    assert report.findings[0].fixes[0].code == browser.run("arguments[0].value", area)


@pytest.mark.exhaustive
def test_copies_where_the_clipboard_is_denied(browser, page, report):
    browser.open(page, "finding-0")
    browser.run("void (navigator.clipboard.writeText = () => Promise.reject(new Error('denied')))")
    button = browser.one("#finding-0 .fix .copy")
    button.click()
    browser.wait(lambda: "Copied" == button.text)
    browser.run("void document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))")
    area = browser.one("#paste")
    area.send_keys(Keys.CONTROL, "v")

    assert report.findings[0].fixes[0].code == browser.run("arguments[0].value", area)
    assert [] == browser.all("textarea.copying")


def test_a_statement_opens_and_closes_by_keyboard(browser, page, report):
    browser.open(page, "statements")
    first, second = browser.all("#statements-table button.name")[:2]
    browser.run("void arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_DOWN)
    assert second == browser.driver.switch_to.active_element
    second.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.run("document.getElementById('detail').open"))

    assert "SELECT orders" == browser.one("#detail-title").text
    assert "#statement-1" == browser.run("location.hash")
    for said in ("40001", "shop/views.py:31", "OrderRepository.recent", "250 ms"):
        assert said in browser.one("#detail").text

    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda: not browser.run("document.getElementById('detail').open"))
    assert ("#statements", second) == (browser.run("location.hash"), browser.driver.switch_to.active_element)


@pytest.mark.exhaustive
def test_a_finding_leads_to_its_statement_and_back(browser, page):
    browser.open(page, "statement-1")
    browser.wait(lambda: browser.run("document.getElementById('detail').open"))
    browser.one("#detail a[href='#finding-0']").click()
    browser.wait(lambda: browser.one("#finding-0").is_displayed())

    assert not browser.run("document.getElementById('detail').open")


@pytest.mark.exhaustive
def test_slash_goes_to_the_search(browser, page):
    browser.open(page, "statements")
    browser.one("body").send_keys("/")

    assert "Search statements" == browser.run("document.activeElement.getAttribute('aria-label')")


def test_durations_are_those_of_the_other_outputs(browser, long_report):
    seconds = [
        0.0,
        9.994e-6,
        9.995e-6,
        9.9949e-5,
        9.995e-5,
        9.994e-4,
        9.996e-4,
        0.00123,
        0.0996,
        0.9996,
        1.005,
        59.94,
        59.96,
        61.0,
        3_599.6,
        5_000.0,
        90_000.0,
        1e7,
    ]
    statements = [
        replace(each, seconds=value) for each, value in zip(long_report(len(seconds)).statements, seconds, strict=True)
    ]
    given = Report(statements=tuple(statements))
    browser.open(render_html(given), "statements", (1280, 4000))

    assert [duration(each.seconds) for each in given.statements] == browser.texts(
        "#statements-table tbody .c-time .strong"
    )


STATEMENTS = (
    "SELECT a.b, count(*) FILTER (WHERE x > ?) FROM a LEFT OUTER JOIN b ON a.id = b.id AND b.k BETWEEN ? AND ? WHERE EXISTS (SELECT ? FROM c WHERE c.id = a.id AND c.z = ?) GROUP BY a.b ORDER BY a.b LIMIT ? OFFSET ?",
    "DELETE FROM orders USING items WHERE orders.id = items.id RETURNING id",
    "INSERT INTO t (a, b) VALUES (?, ?) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE t.b IS DISTINCT FROM excluded.b",
    "SELECT extract(year FROM created), left(name, ?), \"from\" FROM \"where x\" WHERE note = 'it''s FROM here' -- and FROM there",
    "WITH x AS (SELECT ?) SELECT * FROM x UNION ALL SELECT $1::int, %(a)s, :b FROM y FOR UPDATE SKIP LOCKED",
    "SELECT 'unclosed FROM",
    "∑ éλ FROM ✓ ((( )",
)  # fmt: skip


def test_lines_and_colours_change_no_statement(browser, long_report):
    statements = tuple(
        replace(each, text=text) for each, text in zip(long_report(len(STATEMENTS)).statements, STATEMENTS, strict=True)
    )
    given = Report(statements=statements)
    browser.open(render_html(given), "statements")
    shown = []
    for index in range(len(STATEMENTS)):
        browser.run(f"void (location.hash = 'statement-{index}')")
        browser.wait(
            lambda index=index: (
                browser.run("document.getElementById('detail').open")
                and browser.run("document.querySelector('#detail .pairs').textContent").find(
                    given.statements[index].fingerprint
                )
                >= 0
            )
        )
        shown.append(browser.run("document.querySelector('#detail pre code').textContent"))

    assert [each.text for each in given.statements] == [re.sub(r"\n *", " ", text) for text in shown]
    assert (
        "\nFROM a\nLEFT OUTER JOIN b ON a.id = b.id AND b.k BETWEEN ? AND ?\nWHERE EXISTS (SELECT ?\n    FROM c"
        in shown[next(i for i, each in enumerate(given.statements) if each.text == STATEMENTS[0])]
    )


HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2>\u202e\x1b[31m\x00{{7*7}}"


def test_hostile_text_does_nothing(browser, spoilt):
    given = spoilt(HOSTILE)
    before = browser.open(render_html(given)).run("document.querySelectorAll('script, img').length")
    for view in (*VIEWS, "statement-0"):
        browser.run(f"void (location.hash = '{view}')")
        browser.wait(
            lambda view=view: view == "statement-0" or browser.run(f"!document.getElementById('{view}').hidden")
        )
    browser.wait(lambda: browser.run("document.getElementById('detail').open"))

    assert [2, 2, None] == [
        before,
        browser.run("document.querySelectorAll('script, img').length"),
        browser.run("window.pwned"),
    ]
    said = browser.run("document.querySelector('main').innerText") + browser.run(
        "document.querySelector('#detail').textContent"
    )
    assert "window.pwned=1" in said
    assert "\\u202e\\x1b[31m\\x00" in said
    assert set() == {"\u202e", "\x1b", "\x00"} & set(said)


@pytest.mark.exhaustive
def test_a_megabyte_is_shown_when_it_is_asked_for(browser, report):
    text = "SELECT " + "a, " * 333_331 + "b"
    given = replace(report, statements=(replace(report.statements[0], text=text),))
    browser.open(render_html(given), "statement-0")
    button = browser.wait(lambda: next(iter(browser.all("#detail .detail-body > div > button")), None))
    assert "Show all 1,000,001 characters" == button.text
    assert 4_200 > browser.run("document.querySelector('#detail pre').textContent.length")
    button.click()

    assert 1_000_001 == browser.run("document.querySelector('#detail pre').textContent.length")


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_of_a_long_table_only_rows_in_sight_exist(browser, long_report, count):
    given = long_report(count)
    browser.open(render_html(given), "statements")

    def rows():
        return [
            int(index)
            for index in browser.run(
                "[...document.querySelectorAll('#statements-table tr.row')].map(each => each.getAttribute('aria-rowindex'))"
            )
        ]

    assert (2, True) == (rows()[0], len(rows()) < 60)
    browser.run("void scrollTo(0, document.body.scrollHeight / 2)")
    middle = browser.wait(lambda: (found := rows())[0] > count / 3 and found)
    assert (list(range(middle[0], middle[-1] + 1)), True) == (middle, len(middle) < 60)
    browser.run("void document.querySelector('#statements-table tr.row button').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.END)
    assert browser.wait(lambda: rows()[-1] == count + 1)
    last = given.statements[-1].summary
    assert (last, last) == (browser.names()[-1], browser.driver.switch_to.active_element.text)
    browser.one("#statements-table input[type=search]").send_keys(f"table_{count - 1} ")
    assert [f"{('SELECT', 'INSERT', 'UPDATE')[(count - 1) % 3]} table_{count - 1}"] == browser.names()


@pytest.mark.exhaustive
def test_keyboard_scrolling_never_loses_the_focus(browser, long_report):
    browser.open(render_html(long_report(300)), "statements")
    browser.run("void document.querySelector('#statements-table button.name').focus()")
    browser.run("void scrollTo(0, 9000)")
    browser.wait(
        lambda: browser.run(
            "Number(document.querySelector('#statements-table tr.row').getAttribute('aria-rowindex')) > 100"
        )
    )

    assert browser.run("document.activeElement.matches('#statements-table button.name')")


@pytest.mark.exhaustive
def test_colours_follow_the_system_and_the_choice(browser, page):
    def paper():
        return browser.run("getComputedStyle(document.body).backgroundColor")

    light = browser.open(page).run("getComputedStyle(document.body).backgroundColor")
    browser.scheme(dark=True)
    dark = paper()
    assert light != dark

    button = browser.one("#theme")
    button.click()
    assert (light, "Colours: light") == (paper(), button.get_attribute("title"))
    button.click()
    assert (dark, "Colours: dark") == (paper(), button.get_attribute("title"))
    button.click()
    browser.scheme(dark=False)
    assert (light, "Colours: as the system has them") == (paper(), button.get_attribute("title"))


def contrast(browser):
    """The lowest contrast of text on its background, and the text that has it."""
    return browser.run(
        """(() => {
        const parse = (text) => text.match(/[\\d.]+/g).map(Number);
        const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
        const srgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
        const lightness = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        let worst = [99, ''];
        for (const each of document.querySelectorAll('body *')) {
            if (![...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || !each.checkVisibility() || each.closest('script, style, .sr, option, svg')) continue;
            let under = each, ground = [0, 0, 0, 0];
            while (under && ground[3] < 255) { ground = srgb(getComputedStyle(under).backgroundColor); under = under.parentElement; }
            const [a, b] = [lightness(srgb(getComputedStyle(each).color)), lightness(ground)].sort();
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < worst[0]) worst = [ratio, each.className + ': ' + each.textContent.slice(0, 40)];
        }
        return worst; })()"""
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_has_contrast(browser, page, dark):
    browser.open(page, dark=dark)
    worst = []
    for view in (*VIEWS, "statement-1"):
        browser.run(f"void (location.hash = '{view}')")
        browser.wait(
            lambda view=view: browser.run(
                "document.getElementById('detail').open"
                if "-" in view
                else f"!document.getElementById('{view}').hidden"
            )
        )
        worst.append(contrast(browser))

    assert 4.5 <= min(worst)[0], min(worst)


@pytest.mark.exhaustive
def test_every_control_has_a_name(browser, page):
    browser.open(page, "statement-1")
    browser.wait(lambda: browser.run("document.getElementById('detail').open"))
    browser.run("void document.querySelectorAll('[data-view]').forEach((each) => each.hidden = false)")
    nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
    controls = {
        "button",
        "link",
        "searchbox",
        "combobox",
        "checkbox",
        "table",
        "dialog",
        "region",
        "navigation",
        "textbox",
    }
    nameless = [
        node["role"]["value"]
        for node in nodes
        if node.get("role", {}).get("value") in controls
        and not node.get("ignored")
        and not node.get("name", {}).get("value")
    ]

    assert [] == nameless


def test_without_scripts_everything_is_there(browser, page, report):
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        text = browser.one("main").text
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)

    for said in (report.findings[2].title, "INSERT orders", "nightly", "48 \u00d7", "slow_seconds"):
        assert said in text


@pytest.mark.exhaustive
def test_prints_all_parts(browser, page, report):
    browser.open(page, "overview")
    browser.run("void dispatchEvent(new Event('beforeprint'))")
    browser.command("Emulation.setEmulatedMedia", media="print")
    text = browser.one("main").text
    hidden = browser.one(".bar").is_displayed()
    pdf = base64.b64decode(browser.command("Page.printToPDF")["data"])
    browser.command("Emulation.setEmulatedMedia", media="")
    browser.run("void dispatchEvent(new Event('afterprint'))")

    for said in (report.findings[1].title, "INSERT orders", "nightly", "op.create_index", "slow_seconds"):
        assert said in text
    assert (False, b"%PDF") == (hidden, pdf[:4])
    assert not browser.one("#statements").is_displayed()


@pytest.mark.exhaustive
def test_saves_the_report_as_json(browser, page, report, tmp_path):
    browser.open(page)
    browser.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.one("#save").click()
    file = tmp_path / "sqlprobe-report.json"
    browser.wait(lambda: file.exists() and file.stat().st_size)

    assert report == Report.read(file)


@pytest.mark.exhaustive
def test_a_comparison_works_too(browser, report):
    base = replace(report, findings=report.findings[1:])
    browser.open(render_comparison_html(report.compare(base)))
    assert browser.one("#changes").is_displayed()
    browser.one("#changes a[href='#finding-0']").click()

    assert browser.wait(lambda: browser.one("#finding-0").is_displayed())


@pytest.mark.exhaustive
@pytest.mark.parametrize("given", [Report(), Report(settings={"enabled": False})])
def test_an_empty_report_works_too(browser, given):
    browser.open(render_html(given), "statements")

    assert "No statement was seen." in browser.one("#statements").text
