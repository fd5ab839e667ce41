"""
The sum of a run: of all tests and workers, what is written at its end, and what is told.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from sqlprobe import render
from sqlprobe.baseline import Baseline
from sqlprobe.budgets import load_budgets, propose, write_budgets
from sqlprobe.model import SqlprobeError
from sqlprobe.pytest_plugin.watch import NO_SCOPES, stats_of
from sqlprobe.report import Report
from sqlprobe.verdict import told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlprobe.model import Finding, Site
    from sqlprobe.pytest_plugin.explain import Sum
    from sqlprobe.pytest_plugin.options import Options

MAX_TOLD: Final = 10  # findings in full; the report has all
MAX_TESTS: Final = 3  # named beside a finding
MAX_ANNOTATIONS: Final = 10  # of one step: GitHub shows no more
MAX_JOB_SUMMARY: Final = 900_000  # bytes; GitHub refuses more than a MiB


_LEAVING_OUT: Final = {  # by the option's name in pytest
    "maxfail": "-x or --maxfail",
    "keyword": "-k",
    "lf": "--lf",
    "deselect": "--deselect",
    "stepwise": "--stepwise",
}


class Outcome:
    """What came of the run. In a worker of xdist only the counters are used."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.deselected = 0
        self.broken = 0  # modules that could not be collected
        self.faults: set[str] = set()  # of ours, in any process
        self.lost = 0  # workers that died before they could tell
        self.statements: list[Report] = []
        self.plans: Sum | None = None  # where they are asked for
        self._config = config
        self._options = options
        self._reports: list[str] = []
        self._totals: dict[str, list[list[int]]] = {}  # of tests, each with its fixtures where they are observed
        self._tests: dict[str, dict[str, None]] = {}  # finding's key -> tests
        self._new: set[str] = set()
        self._used: set[str] = set()
        self._unused: dict[str, str] = {}  # a marker's allowance -> test
        self._scopes: dict[str, int] = {}
        self._count = 0
        self._with_new: set[str] = set()
        self._failed = 0  # tests that failed of themselves, or could not run to their end
        self._notes: list[str] = []
        self._report: Report | None = None
        self._partial: str | None = "the run was interrupted"  # why it has not seen everything, if it has not

    def add(self, report: pytest.TestReport, payload: Mapping[str, Any] | None) -> None:
        """Take the *report* on a phase of a test, and what that had to tell."""
        if report.when == "call" or (report.when == "setup" and report.failed):
            self._count += 1
        if report.failed:
            self._failed += 1
        if not payload:
            return
        totals = payload.get("totals")
        if totals:
            self._totals.setdefault(report.nodeid, []).append(totals)
        text = payload.get("report")
        if text:
            self._reports.append(text)
        for key in payload.get("new", ()):
            self._new.add(key)
            self._tests.setdefault(key, {})[report.nodeid] = None
        for name, calls in payload.get("scopes", ()):
            self._scopes[name] = max(self._scopes.get(name, 0), calls)
        if "plans" in payload:
            if self.plans is None:  # a marker asked for them, in a worker
                from sqlprobe.pytest_plugin.explain import sum_of

                self.plans = sum_of(self._options.stats)
            self.plans.add(payload["plans"], report.nodeid)
        self._used.update(payload.get("used", ()))
        for each in payload.get("unused", ()):
            self._unused[each] = report.nodeid

    def add_worker(self, output: Mapping[str, Any]) -> None:
        self.deselected = max(self.deselected, output["deselected"])  # each worker collects everything
        self.faults.update(output["faults"])
        if output["statements"]:
            self.statements.append(Report.from_json(output["statements"]))

    @property
    def report(self) -> Report:
        """Everything, as one report: findings by what they are, not by test; each test is a scope."""
        if self._report is None:
            tests = Report.merge(*map(Report.from_json, self._reports))
            statements = [Report(**_without_judgement(each)) for each in self.statements]
            totals = [
                stats_of(nodeid, [sum(each) for each in zip(*phases, strict=True)])
                for nodeid, phases in self._totals.items()
            ]
            self._report = Report.merge(*statements, tests, Report(scopes=tuple(totals)))
        return self._report

    def finish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write what was asked for. What cannot be written is told, and ends the run with status 4."""
        self._partial = self._why_partial(session, exitstatus)
        for write in (self._write_reports, self._write_baseline, self._write_budgets, self._write_job_summary):
            try:
                write()
            except SqlprobeError as error:
                self._notes.append(str(error))
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            except Exception as error:  # noqa: BLE001 - ours: the suite's own outcome stands
                self.faults.add(f"{write.__name__.strip('_')}: {type(error).__name__}: {error}")

    def show(self, terminal: pytest.TerminalReporter) -> None:
        """Tell it: one line where no mode was asked for, and only if something was found."""
        terminal.ensure_newline()
        new = self._new_findings()
        plans = () if self.plans is None else self.plans.notes()
        notes = [*self._notes, *plans, *self._stale_notes()]
        if not self._options.asked:
            if new:
                terminal.write_line(f"sqlprobe: {self._headline(new)}; pytest --sqlprobe=report tells all", yellow=True)
            for note in notes:
                terminal.write_line(f"sqlprobe: {note}")
            return
        if new or notes or self._options.top:
            terminal.section("sqlprobe", "=", yellow=bool(new))
        terminal.write_line(f"sqlprobe: {self._headline(new)}")
        for finding in new[:MAX_TOLD]:
            terminal.write_line("")
            for line in self._told(finding):
                terminal.write_line(line)
        if len(new) > MAX_TOLD:
            left = len(new) - MAX_TOLD
            terminal.write_line("")
            terminal.write_line(f"... and {render.plural(left, 'more finding')}; --sqlprobe-report=FILE.md tells all")
        for line in self._tables():
            terminal.write_line(line)
        for note in notes:
            terminal.write_line(f"sqlprobe: {note}")
        if self._options.github:
            for line in self._annotations(new):
                terminal.write_line(line)

    # --- what is told ----------------------------------------------------------------------------------------------

    def _new_findings(self) -> list[Finding]:
        if not self._new:
            return []
        return [each for each in self.report.findings if each.key in self._new and each.severity != "info"]

    def _headline(self, new: list[Finding]) -> str:
        tests = render.plural(self._count, "test")
        if not new:
            if self._options.reports or self._options.top:
                return f"nothing found in {tests}, {render.plural(self.report.total_calls, 'statement')}"
            return f"nothing found in {tests}"
        rules: dict[str, int] = {}
        for finding in new:
            rules[finding.rule] = rules.get(finding.rule, 0) + 1
        within = len({test for finding in new for test in self._tests[finding.key]})
        counts = ", ".join(f"{count} {rule}" for rule, count in sorted(rules.items(), key=lambda each: -each[1]))
        worst = render.harmless(new[0].title)
        return f"{render.plural(len(new), 'finding')} in {within:,} of {tests} ({counts}); worst: {worst}"

    def _told(self, finding: Finding) -> Iterator[str]:
        yield from told(finding)
        tests = list(self._tests[finding.key])
        more = f" and {len(tests) - MAX_TESTS:,} more" if len(tests) > MAX_TESTS else ""
        yield f"  tests:  {', '.join(map(render.harmless, tests[:MAX_TESTS]))}{more}"

    def _tables(self) -> Iterator[str]:
        top = self._options.top
        if not top or not self.report.statements:
            return
        tests = [each for each in self.report.scopes if each.kind == "test" and each.calls]
        yield ""
        yield "slowest tests by database time"
        for each in sorted(tests, key=lambda each: -each.seconds)[:top]:
            calls = render.plural(each.calls, "statement")
            yield f"  {render.duration(each.seconds):>8}  {calls:>16}  {render.harmless(each.name)}"
        lines: dict[Site, list[float]] = {}
        for statement in self.report.statements:
            traced = sum(each.calls for each in statement.sites)
            for at in statement.sites:
                # One line whoever called it; of a statement's time its share.
                site = type(at.site)(at.site.file, at.site.line, at.site.function)
                sums = lines.setdefault(site, [0.0, 0.0])
                sums[0] += statement.seconds * at.calls / traced
                sums[1] += at.calls
        yield ""
        yield "hottest lines by database time"
        for site, (seconds, count) in sorted(lines.items(), key=lambda each: -each[1][0])[:top]:
            shown = render.plural(int(count), "statement")
            yield f"  {render.duration(seconds):>8}  {shown:>16}  {render.harmless(str(site))}"
        yield ""

    def _stale_notes(self) -> Iterator[str]:
        if self.faults:
            first = render.harmless(min(self.faults))
            yield f"failed itself, so something may be missing: {first}; `sqlprobe doctor` may tell why"
        if self.lost:
            yield f"{render.plural(self.lost, 'worker')} of xdist died: statements that it counted are missing"
        if self._partial is not None:
            return
        for each in self._options.ignore:
            if each.text not in self._used:
                yield f"sqlprobe_ignore: {each.text!r} fits no finding any more"
        for text, test in sorted(self._unused.items()):
            if text not in self._used:
                yield f"{test}: allow=[{text!r}] fits no finding any more"
        if self._options.baseline is not None and not self._options.update_baseline:
            stale = self._stale()
            for entry in stale[:MAX_TOLD]:
                shown = " ".join(filter(None, (entry.get("rule"), entry.get("label"), entry.get("where"))))
                yield f"baseline: {shown} was not seen; --sqlprobe-update-baseline takes it out"
            if len(stale) > MAX_TOLD:
                yield f"baseline: {len(stale) - MAX_TOLD} more were not seen"

    def _annotations(self, new: list[Finding]) -> Iterator[str]:
        """Workflow commands, which show the findings beside the lines of a pull request."""
        for finding in new[:MAX_ANNOTATIONS]:
            level = "error" if self._options.mode == "fail" and self._options.fails(finding) else "warning"
            where = ""
            site = finding.site or finding.origin
            if site is not None:
                where = f"file={_property(_in_workspace(site.file))},line={site.line},"
            fix = f"\n{finding.fixes[0].code}" if finding.fixes else ""
            text = _data(f"{finding.title}\n{finding.advice}{fix}")
            yield f"::{level} {where}title={_property(f'sqlprobe {finding.rule}')}::{text}"

    # --- what is written -------------------------------------------------------------------------------------------

    def _write_reports(self) -> None:
        for path in self._options.reports:
            self.report.write(path)

    def _write_job_summary(self) -> None:
        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if not self._options.github or not path or not self._new_findings():
            return
        text = f"## sqlprobe: {self._headline(self._new_findings())}\n\n{render.render_markdown(self.report)}\n"
        data = text.encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError), Path(path).open("ab") as file:  # not worth a failed build
            file.write(data if len(data) <= MAX_JOB_SUMMARY else data[: data.rindex(b"\n", 0, MAX_JOB_SUMMARY)])

    def _write_baseline(self) -> None:
        options = self._options
        if not options.update_baseline or options.baseline is None:
            return
        shown = _shown(options.baseline)
        if self._partial is not None:
            self._notes.append(f"baseline {shown} was left as it is: {self._partial}")
            return
        seen = Baseline.of(finding for finding in self.report.findings if options.fails(finding)).entries
        known = options.known.entries
        kept = dict(known) if self._failed else {}
        Baseline({**kept, **seen}).write(options.baseline)
        gone = [] if kept else [key for key in known if key not in seen]
        because = "; entries stay where tests failed, which may not have come so far" if kept else ""
        self._notes.append(
            f"baseline {shown} written: {len({**kept, **seen})} findings, {len(seen.keys() - known.keys())} new, "
            f"{len(gone)} gone{because}"
        )

    def _write_budgets(self) -> None:
        options = self._options
        if not options.write_budgets or options.budgets is None:
            return
        seen = dict(self._scopes)
        for report in options.budgets_from:
            for scope in report.scopes:
                if scope.kind not in NO_SCOPES:
                    seen[scope.name] = max(seen.get(scope.name, 0), scope.p95_calls)
        known = load_budgets(options.budgets) if options.budgets.exists() else {}
        proposal = propose(known, seen)
        shown = _shown(options.budgets)
        if proposal.added:
            write_budgets(options.budgets, proposal.added)
        self._notes.append(f"budgets {shown}: {render.plural(len(proposal.added), 'scope')} added, {len(known)} kept")
        for name, (calls, limit) in proposal.over.items():
            self._notes.append(
                f"budgets {shown}: {render.harmless(name)} ran {calls}, its budget of {limit} stays; raise it there if "
                "it is to be more"
            )

    def _stale(self) -> list[Mapping[str, str]]:
        seen = {finding.key for finding in self.report.findings}
        return [entry for key, entry in self._options.known.entries.items() if key not in seen]

    def _why_partial(self, session: pytest.Session, status: int) -> str | None:
        """Why this run has not seen everything; None if it has."""
        config = self._config
        option = config.option
        if getattr(option, "collectonly", False):
            return "the tests were only collected"
        if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return "the run was interrupted"
        for name, flag in _LEAVING_OUT.items():
            if getattr(option, name, None):
                return f"{flag} leaves tests out"
        if session.shouldstop or session.shouldfail:
            return "the run was stopped early"
        if self.broken or self.lost:
            return "a module could not be collected" if self.broken else "a worker of xdist died"
        given = [str(arg) for arg in config.invocation_params.args]
        marked = any(arg.startswith("-m") and arg != "-m" for arg in given) or "-m" in given
        if marked or (self.deselected and not getattr(option, "markexpr", "")):
            return "some tests were deselected"
        if config.args_source is pytest.Config.ArgsSource.ARGS and not self._covers_everything():
            return "only a part of the suite was named"
        return None

    def _covers_everything(self) -> bool:
        """Whether the folders that were named hold the whole suite, as far as pytest is told where that is."""
        config = self._config
        named = []
        for arg in config.args:
            path = (config.invocation_params.dir / arg.partition("::")[0]).resolve()
            if "::" in arg or not path.is_dir():
                return False
            named.append(path)
        folders = [(config.rootpath / path).resolve() for path in config.getini("testpaths")] or [config.rootpath]
        return all(any(folder.is_relative_to(path) for path in named) for folder in folders)


def _without_judgement(report: Report) -> dict[str, Any]:
    """What only the statements of a process tell: findings and scopes come with the tests."""
    names = ("statements", "settings", "started", "ended", "processes", "versions", "release", "faults", "notes")
    return {name: getattr(report, name) for name in names}


def _shown(path: Path) -> str:
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _in_workspace(file: str) -> str:
    """*file* as the repository knows it, which the working directory may lie inside."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace:
        with contextlib.suppress(ValueError, OSError):
            return Path(file).resolve().relative_to(Path(workspace).resolve()).as_posix()
    return file


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
