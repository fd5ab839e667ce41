"""
The hooks: around each test, around the collection, around the run; in one process, in workers of xdist, above them.

What a test had to tell travels with its own report: through xdist too, and not lost with a worker that dies.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest

from sqlprobe import faults, growth, render, sites
from sqlprobe.probe import record
from sqlprobe.pytest_plugin.fixture import KEY as WATCHER
from sqlprobe.pytest_plugin.limits import (
    MARKER,
    NONE,
    Limits,
    Seen,
    TestFailed,
    accusation,
    limits_of,
    verdict,
)
from sqlprobe.pytest_plugin.options import Mode, Options
from sqlprobe.pytest_plugin.outcome import Outcome
from sqlprobe.pytest_plugin.watch import FIXTURES, NO_SCOPES, SCOPE, Run, Watch, joined
from sqlprobe.report import Report
from sqlprobe.verdict import CheckError, told

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlprobe.model import Finding
    from sqlprobe.pytest_plugin.explain import Explainer

LIMITS: Final = pytest.StashKey[Limits]()
_WORKER_OUTPUT: Final = "sqlprobe"

Wrapped = Any  # what a wrapper of a hook is: a generator that pytest drives


class SqlprobeWarning(pytest.PytestWarning):
    """A finding of sqlprobe, in mode warn."""


def start(config: pytest.Config) -> Session:
    """
    The plugin of this run.

    Raises:
        UsageError: an option cannot be.
    """
    options = Options.of(config)
    sites.configure(options.settings.packages, options.settings.path_map)
    session = Session(config, options)
    if options.fixtures:
        config.pluginmanager.register(Fixtures(session), "sqlprobe-fixtures")
    if session.is_worker:
        config.pluginmanager.register(Worker(session), "sqlprobe-worker")
    return session


class Session:
    """The plugin, in a process that runs tests, or above those that do."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.options = options
        self.calling: pytest.Item | None = None
        self.outcome = Outcome(config, options)
        self.watch = Watch(options.settings)
        self._config = config
        self.is_worker = hasattr(config, "workerinput")
        self._sums = self.watch if options.reports or options.top else None
        self._suite = dataclasses.replace(NONE, max_queries=options.max_queries, zero_ok=True)
        self._wants_totals = bool(options.reports or options.top)
        # Of a test without a marker and without a finding, there is nothing to tell.
        self._terse = not (self._wants_totals or options.write_budgets or options.explain or self._suite.any)
        self._held: dict[tuple[str, str], dict[str, Any]] = {}  # what a phase of a test had to tell, until its report
        self._explainer: Explainer | None = None
        if options.explain:
            self._want_plans()

    def _want_plans(self) -> None:
        """Have samples kept, and plans asked for; before the first test."""
        if self._explainer is None:
            from sqlprobe.pytest_plugin.explain import Explainer, sum_of

            self.watch.settings = dataclasses.replace(self.watch.settings, explain=True)
            self._explainer = Explainer(self.options.settings, self.options.stats)
            self.outcome.plans = sum_of(self.options.stats)

    def pop(self, item: pytest.Item, when: str) -> dict[str, Any] | None:
        """What the phase *when* of a test had to tell, for its report to carry."""
        return self._held.pop((item.nodeid, when), None)

    def limits_of(self, item: pytest.Item) -> Limits:
        # Stash.get() raises and catches where there is nothing, as for most tests.
        return item.stash[LIMITS] if LIMITS in item.stash else self._suite  # noqa: SIM401

    # --- collection ------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        try:
            self._check_markers(items)
        except pytest.UsageError as error:
            if not self.is_worker:
                raise
            # A worker that ends here leaves the process above it with an error of xdist's own: tell that one instead.
            report = pytest.CollectReport(items[0].nodeid, "failed", f"ERROR: {error}", [])
            self._config.hook.pytest_collectreport(report=report)
            items.clear()

    def _check_markers(self, items: list[pytest.Item]) -> None:
        for item in items:
            if item.get_closest_marker(MARKER) is None:
                continue
            limits = limits_of(item)
            if limits.max_queries is None and limits.exactly is None and self.options.max_queries is not None:
                limits = dataclasses.replace(limits, max_queries=self.options.max_queries)
            item.stash[LIMITS] = limits
            if limits.explain:
                self._want_plans()
            if limits.any and _is_benchmark(item):
                raise pytest.UsageError(
                    f"{item.nodeid}: a benchmark runs its function many times, so a budget of it would mean nothing; "
                    "put the budget on a test of its own, or run with --benchmark-disable"
                )
            if limits.populate is not None:
                _check_scale(item, limits)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.outcome.deselected += len(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.outcome.broken += report.failed

    # --- a test ----------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Wrapped:
        limits = self.limits_of(item)
        mode = limits.mode or self.options.mode
        if WATCHER in item.stash:
            item.stash[WATCHER].begin()
        growth.unawaited()
        self.calling = item
        try:
            if mode == "off" or _is_benchmark(item):
                result = yield
            elif limits.populate is not None:
                result = yield from self._scaled(item, limits)
            else:
                result = yield from self._observed(item, limits, mode)
        finally:
            self.calling = None
            if WATCHER in item.stash:  # the test itself may have asked for it
                item.stash[WATCHER].end()
        if growth.unawaited():
            raise TestFailed(
                f"{item.name}: an async sqlprobe.assert_constant() was never awaited, so it tested nothing.\n"
                "  Write: await sqlprobe.assert_constant(...)"
            )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.is_worker:
            return
        held = self._held.pop((report.nodeid, str(report.when)), None) if self._held else None
        payload = held or getattr(report, "sqlprobe", None)
        if report.outcome != "rerun":  # type: ignore[comparison-overlap]
            self.outcome.add(report, payload)

    def _observed(self, item: pytest.Item, limits: Limits, mode: Mode) -> Wrapped:
        """Run the test, and judge it if it has passed so far."""
        self.watch.open()
        run = Run(self.options.settings, SCOPE, self._sums)
        explainer = self._explainer_of(limits)
        if explainer is not None:
            explainer.begin()
        examples: list[Run] = []
        undo = self._inside(item, examples, limits)
        if undo is None:
            self.watch.begin(run)
        own: BaseException | None = None
        try:
            result = yield
        except BaseException as error:
            own = error
            raise
        finally:
            if undo is not None:
                undo()
            failure = self._ended(item, "call", run, examples if undo else None, limits, mode, own)
        if failure is not None:
            raise TestFailed(failure)
        return result

    def observe_fixtures(self, item: pytest.Item, when: str) -> Wrapped:
        """Run the setup or teardown of a test, and judge it."""
        limits = self.limits_of(item)
        mode = limits.mode or self.options.mode
        if mode == "off":
            return (yield)
        self.watch.open()
        run = Run(self.options.settings, FIXTURES, self._sums)
        explainer = self._explainer_of(limits)
        if explainer is not None:
            explainer.begin()
        self.watch.begin(run)
        own: BaseException | None = None
        try:
            result = yield
        except BaseException as error:
            own = error
            raise
        finally:
            only = Limits(allow=limits.allow, explain=limits.explain)  # budgets are of the call
            failure = self._ended(item, when, run, None, only, mode, own)
        if failure is not None:
            raise TestFailed(failure)
        return result

    def _inside(self, item: pytest.Item, runs: list[Run], limits: Limits) -> Callable[[], None] | None:
        """
        Where more than the test's own code runs inside its call, or that more than once: observe each time it runs.

        Adds to *runs*; what comes back undoes it. None where the call is the test.
        """
        function = getattr(item, "obj", None)
        is_case = type(item).__name__ == "TestCaseFunction"
        handle = getattr(function, "hypothesis", None)
        if handle is None and not is_case:
            return None

        def observed(inner: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(inner)
            def call(*args: Any, **kwargs: Any) -> Any:
                __tracebackhide__ = True
                run = Run(self.options.settings, SCOPE, self._sums)
                runs.append(run)
                self.watch.begin(run)
                try:
                    return inner(*args, **kwargs)
                finally:
                    self.watch.end()
                    if is_case and isinstance(sys.exception(), Exception | None):
                        self._explain(run, limits)  # before tearDown(): then its tables may be gone

            return call

        inner = getattr(handle, "inner_test", None)
        if handle is not None and inner is not None:  # each example is a test: statements of two are not repeated
            if inspect.iscoroutinefunction(inner):
                return None
            handle.inner_test = observed(inner)
            return lambda: setattr(handle, "inner_test", inner)
        if is_case and not inspect.iscoroutinefunction(function):
            testable: Any = item  # setUp() and tearDown() are fixtures, although unittest runs them in the call
            testable.obj = observed(testable.obj)
            return lambda: setattr(testable, "obj", function)
        return None

    def _scaled(self, item: pytest.Item, limits: Limits) -> Wrapped:
        """Run the test as the action of a scale test: once to warm up, then at each size."""
        populate = limits.populate
        if isinstance(populate, str):
            populate = item.funcargs[populate]  # type: ignore[attr-defined]
        assert callable(populate)
        runs = growth.Runs(limits.slope, zero_ok=limits.zero_ok)
        there = 0
        result = None
        for index, size in enumerate(limits.sizes):
            there = there + size if limits.cumulative else size
            done = populate(size)
            if inspect.isawaitable(done):
                close = getattr(done, "close", None)
                if close is not None:
                    close()
                raise TestFailed(
                    f"{item.name}: populate is async, and a marker cannot await it in the test's event loop.\n"
                    "  Write in the test: await sqlprobe.assert_constant(populate, action)"
                )
            if not index:
                item.runtest()
            recording = record(settings=self.options.settings)
            with recording:
                if size == limits.sizes[-1]:
                    result = yield
                else:
                    item.runtest()
            runs.add(there, recording)
        try:
            runs.judge(item.name)
        except AssertionError as error:
            raise TestFailed(str(error)) from None
        return result

    def _ended(
        self,
        item: pytest.Item,
        when: str,
        run: Run,
        examples: list[Run] | None,
        limits: Limits,
        mode: Mode,
        own: BaseException | None,
    ) -> str | None:
        """As `_judged`; what fails of ours is counted, told at the end of the run, and fails no test."""
        try:
            self.watch.end()
            if self._terse and examples is None and limits is self._suite and not run.findings:
                return None
            if examples is not None:
                run = joined(examples, SCOPE, self.options.settings)
            # After the teardown its tables are gone; who is interrupted does not wait for plans.
            if when != "teardown" and isinstance(own, Exception | None):
                self._explain(run, limits)
            return self._judged(item, when, run, limits, mode, own)
        except Exception as error:  # noqa: BLE001 - ours: the test is as it would have been without us
            faults.count("pytest plugin", error)
            return None

    def _explainer_of(self, limits: Limits) -> Explainer | None:
        wanted = self.options.explain if limits.explain is None else limits.explain
        return self._explainer if wanted else None

    def _explain(self, run: Run, limits: Limits) -> None:
        """What plans say of *run* is found in it too."""
        explainer = self._explainer_of(limits)
        if explainer is None or run.plans:
            return
        try:
            asked = explainer.end(run)
        except Exception as error:  # noqa: BLE001 - ours: the test is as it would have been without us
            faults.count("plans after a test", error)
            return
        run.findings = (*run.findings, *asked.findings)
        run.plans = asked.payload()

    def _judged(
        self, item: pytest.Item, when: str, run: Run, limits: Limits, mode: Mode, own: BaseException | None
    ) -> str | None:
        """Tell what *run* had; what fails the test, if anything does: its *own* failure always comes first."""
        if not run.calls and not limits.any:
            return None
        findings = []
        used = []
        for finding in run.findings:
            allowed = next((each for each in (*limits.allow, *self.options.ignore) if each.covers(finding)), None)
            if allowed is None:
                findings.append(finding)
            else:
                used.append(allowed.text)
        new = [finding for finding in findings if finding not in self.options.known]
        self._tell(item, when, run, findings, new, used, limits)
        if own is not None:
            if mode != "report" and new and isinstance(own, Exception) and not isinstance(own, CheckError):
                text = "\n".join(line for finding in new for line in (*told(finding), ""))
                item.add_report_section(when, "sqlprobe", text)
            return None
        said = []
        if limits.any:
            seen = Seen(run.calls, run.ns / 1e9, run.rows, run.unknown_rows, run.recording, findings)
            beyond = verdict(item.name, limits, seen)
            if beyond is not None:
                said.append(beyond)
        failing = [] if self.options.update_baseline or mode != "fail" else [*filter(self.options.fails, new)]
        if failing and not said:
            said.append(accusation(item.name, failing))
        if mode == "warn":
            strict = [finding for finding in new if finding.severity != "info" and not _warned(finding, item)]
            if strict and not said:
                said.append(accusation(item.name, strict))
        return "\n\n".join(said) or None

    def _tell(
        self,
        item: pytest.Item,
        when: str,
        run: Run,
        findings: list[Finding],
        new: list[Finding],
        used: list[str],
        limits: Limits,
    ) -> None:
        """Put what *run* had beside the test's report."""
        payload: dict[str, Any] = {}
        if self._wants_totals:
            payload["totals"] = run.totals()
        if findings or (self._wants_totals and run.scopes):
            named = tuple(
                dataclasses.replace(each, evidence={**each.evidence, "test": item.nodeid}) for each in findings
            )
            scopes = tuple(tally.stats() for tally in run.scopes.values())
            payload["report"] = Report(findings=named, scopes=scopes).to_json()
            payload["new"] = [finding.key for finding in new]
        if self.options.write_budgets:
            payload["scopes"] = [
                [name, calls] for (name, kind), calls in run.scope_calls.items() if kind not in NO_SCOPES and calls
            ]
        if used:
            payload["used"] = used
        if run.plans:
            payload["plans"] = run.plans
        unused = [each.text for each in limits.allow if each.text not in used]
        if unused:
            payload["unused"] = unused
        if payload:
            self._held[item.nodeid, when] = payload

    # --- the run ---------------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output = getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT)
        if output is None:
            self.outcome.lost += 1 if error else 0
            return
        self.outcome.add_worker(json.loads(output))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        statements = self.watch.report() if self._sums is not None and self.watch.opened else None
        self.watch.close()
        if self._explainer is not None:
            self._explainer.close()
        if self.is_worker:
            output = {
                "faults": [f"{each.where}: {each.error}" for each in faults.told()],
                "statements": statements.to_json() if statements else "",
                "deselected": self.outcome.deselected,
            }
            self._config.workeroutput[_WORKER_OUTPUT] = json.dumps(output)  # type: ignore[attr-defined]
            return
        if statements is not None:
            self.outcome.statements.append(statements)
        self.outcome.faults.update(f"{each.where}: {each.error}" for each in faults.told())
        self.outcome.finish(session, exitstatus)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        try:
            self.outcome.show(terminalreporter)
        except Exception as error:  # noqa: BLE001 - ours: the suite's own outcome stands
            terminalreporter.write_line(f"sqlprobe: what was found cannot be shown ({type(error).__name__}: {error})")

    def pytest_unconfigure(self) -> None:
        self.watch.close()


class Fixtures:
    """The hooks around setup and teardown: of a session that observes them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Wrapped:
        return (yield from self._session.observe_fixtures(item, "setup"))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Wrapped:
        return (yield from self._session.observe_fixtures(item, "teardown"))


class Worker:
    """The hook of a worker of xdist: its reports carry what its tests had to tell."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        payload = self._session.pop(item, call.when)
        if payload is not None:
            report.sqlprobe = payload  # type: ignore[attr-defined]
        return report


def _warned(finding: Finding, item: pytest.Item) -> bool:
    """Warn of *finding*; False where warnings are errors."""
    text = render.harmless(f"{finding.rule}: {finding.title}; {finding.advice}")
    path, line, _ = item.location
    file, number = (finding.site.file, finding.site.line) if finding.site else (path, (line or 0) + 1)
    try:
        warnings.warn_explicit(SqlprobeWarning(text), None, file, number)
    except SqlprobeWarning:
        return False
    return True


def _is_benchmark(item: pytest.Item) -> bool:
    """Whether pytest-benchmark runs the test's function again and again, and times it."""
    if "benchmark" not in getattr(item, "fixturenames", ()) or not item.config.pluginmanager.hasplugin("benchmark"):
        return False
    return not item.config.getoption("benchmark_disable", default=False)


def _check_scale(item: pytest.Item, limits: Limits) -> None:
    """
    See to it that *item* can be the action of a scale test.

    Raises:
        UsageError: it cannot.
    """
    where = f"{item.nodeid}: @pytest.mark.{MARKER}(populate=...)"
    if not isinstance(item, pytest.Function) or type(item).__name__ == "TestCaseFunction":
        raise pytest.UsageError(f"{where}: only a test function can be run at each size; use assert_constant() in it")
    if limits.any:
        raise pytest.UsageError(f"{where}: a scale test has no budget beside it; put that on a test of its own")
    if inspect.iscoroutinefunction(limits.populate):
        raise pytest.UsageError(
            f"{where}: an async populate cannot be awaited by a marker; write `await sqlprobe.assert_constant(...)`"
        )
    if isinstance(limits.populate, str) and limits.populate not in item.fixturenames:
        item.fixturenames.append(limits.populate)
