"""
The command line: `sqlprobe run`, `report`, `explain`, `audit`, `snapshot`, `grafana`, `demo` and `doctor`.

Exit status: the program's own; 1 where `--fail-on` names a finding; 2 for wrong use, which one message explains.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sqlprobe import __version__
from sqlprobe.detectors import DETECTORS, POOL_DETECTORS
from sqlprobe.model import RULES, SqlprobeError
from sqlprobe.report import Report, suffix_of
from sqlprobe.settings import Settings, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Engine

    from sqlprobe.advice.snapshot import Snapshot
    from sqlprobe.model import Finding
    from sqlprobe.plans.examine import Answer
    from sqlprobe.report import Comparison
    from sqlprobe.run import Outcome

ANY: Final = "any"
STDOUT: Final = "-"
WRONG_USE: Final = 2
TOP: Final = 10

_RUN_DESCRIPTION: Final = """\
Run a Python program as `python` would, and report on every SQLAlchemy engine that it and the Python processes it starts
use. The report goes to standard error; the exit status is the program's own."""
_RUN_EPILOG: Final = """\
Every setting of sqlprobe can be given in the environment too: SQLPROBE_N_PLUS_ONE_THRESHOLD=5, SQLPROBE_PACKAGES=shop.
Not seen: processes started with -I, -E or -S, with an environment without PYTHONPATH, or by another Python than 3.11+;
what a process killed by SIGKILL did since its last save (a second and more); processes that outlive the program."""


class WrongUse(SqlprobeError, ValueError):  # noqa: N818 - what it is, not what failed
    """The command was asked for something that cannot be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command *argv* (the process's arguments); the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["demo"]:
            from sqlprobe import demo

            return demo.main(arguments[1:])
        return _perform(_parser().parse_args(arguments))
    except SqlprobeError as error:
        _say(str(error))
        return WRONG_USE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has read enough; the interpreter must not complain when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _perform(options: argparse.Namespace) -> int:
    if options.command == "run":
        return _run(options)
    if options.command == "report":
        return _report(options)
    if options.command == "grafana":
        return _grafana(options)
    if options.command == "explain":
        return _explain(options)
    if options.command == "audit":
        return _audit(options)
    if options.command == "snapshot":
        return _snapshot(options)
    return _doctor(options)


def _run(options: argparse.Namespace) -> int:
    from sqlprobe import run

    _check_outputs(options.output)
    settings = resolve(base=Settings(auto_scope=True, call_sites="all")).settings
    if options.stats:
        _statistics("run", options.stats)  # wrong use is told before the program runs
    given = {
        "slow_seconds": options.slow,
        "call_sites": options.call_sites,
        "explain": options.explain or bool(options.stats) or None,
        "explain_stats": str(Path(options.stats).resolve()) if options.stats else None,  # its folder may change
    }
    settings = _replace(settings, {name: value for name, value in given.items() if value is not None})
    rules = _rules(options.fail_on, _run_looks_for if not settings.explain else _run_with_plans_looks_for)
    if options.module:
        name, *arguments = options.module
        program = run.module(name)
    elif options.program:
        name, *arguments = options.program
        program = run.script(name)
    else:
        raise WrongUse("run: a program is needed, found none; name a script, or a module: sqlprobe run -m module")
    outcome = run.run([*program, *arguments], settings)
    if not settings.enabled:
        _say("SQLPROBE_ENABLED turns sqlprobe off: the program was run and not observed")
        return _status(outcome, failed=False)
    if not options.quiet:
        _show_outcome(outcome, options)
    _write_outputs(outcome.report, options.output)
    failing = _failing(outcome.report.findings, rules)
    if failing and outcome.status == 0:
        _say_failing(failing)
    return _status(outcome, failed=bool(failing))


def _report(options: argparse.Namespace) -> int:
    rules = _rules(options.fail_on)  # a report may be of any command
    _check_outputs(options.output)
    report = Report.merge(*(Report.read(file) for file in options.files))
    findings = report.findings
    comparison = None
    if options.against:
        comparison = report.compare(Report.read(options.against))
        findings = comparison.new_findings
    if not options.quiet and STDOUT not in options.output:
        from rich.console import Console

        from sqlprobe import render

        if comparison is not None:
            render.print_comparison(comparison, Console(), top=options.top)
        else:
            render.print_report(report, Console(), top=options.top)
    if not _write_outputs(report, options.output, comparison):
        return WRONG_USE
    failing = _failing(findings, rules)
    if failing:
        _say_failing(failing)
    return 1 if failing else 0


def _doctor(options: argparse.Namespace) -> int:
    from sqlprobe import doctor

    diagnosis = doctor.examine()
    print(json.dumps(diagnosis.as_json(), indent=2) if options.json else diagnosis)  # noqa: T201 - what was asked for
    return 1 if diagnosis.failed else 0


def _grafana(options: argparse.Namespace) -> int:
    from sqlprobe import grafana

    for file in grafana.export(Path(options.folder), force=options.force):
        print(file)  # noqa: T201 - what was written
    return 0


def _explain(options: argparse.Namespace) -> int:
    from sqlprobe import explaining
    from sqlprobe.advice import prove

    advises = options.advise or options.stats
    rules = _rules(options.fail_on, lambda rule: _is_plan_rule(rule) or bool(advises and _is_advice(rule)))
    _check_outputs(options.output)
    url = options.url or ("" if options.stats else os.environ.get("DATABASE_URL", ""))
    if not url and not options.stats:
        raise WrongUse(
            "explain: a database is needed, found none; give --url, set DATABASE_URL, or name a --stats FILE"
        )
    if options.stats and options.analyze:
        raise WrongUse("explain --stats --analyze: with a snapshot's statistics nothing is run; leave one of them away")
    given = [pair.partition("=")[::2] for pair in options.set]
    if not all(name for name, _ in given):
        raise WrongUse(f"explain --set {options.set[0]}: name=value is needed, such as search_path=shop")
    settings = _replace(resolve().settings, {"explain": True})
    explanation = explaining.explain(
        url, options.sources or [explaining.STDIN], settings, analyze=options.analyze, given=given, top=options.top,
        stats=_statistics("explain", options.stats) if options.stats else None,
    )  # fmt: skip
    advice: list[Finding] = []
    if options.stats:
        found = [each for answer in explanation.answers for each in answer.findings if "verified" in each.evidence]
        advice = sorted(found, key=lambda each: -float(each.evidence.get("share_of_time", 0.0)))
    elif options.advise:
        told = prove.tell(_engine_of("explain", url), prove.cases_of(explanation.answers, few=settings.advice_values))
        advice = [each.finding for each in told]
        answers = tuple(prove.advised(explanation.answers, told))
        report = _replace_findings(explanation.report, explanation.answers, answers)
        explanation = explaining.Explanation(answers, report)
    if not options.quiet and STDOUT not in options.output:
        from rich.console import Console

        explaining.show(explanation, Console())
        # Of what has no plan nobody knows whether an index would help.
        if advises and (advice or all(answer.plan is not None for answer in explanation.answers)):
            prove.show(advice, Console())
    if not _write_outputs(explanation.report, options.output):
        return WRONG_USE
    failing = _failing([each for answer in explanation.answers for each in answer.findings], rules)
    if failing:
        _say_failing(failing)
    return 1 if failing or all(answer.plan is None for answer in explanation.answers) else 0


def _statistics(command: str, file: str) -> Snapshot:
    from sqlprobe.advice import lab, snapshot

    if not lab.is_installed():
        raise WrongUse(f'{command} --stats {file}: it needs a PostgreSQL of its own; pip install "sqlprobe[lab]"')
    return snapshot.Snapshot.load(file)


def _audit(options: argparse.Namespace) -> int:
    from sqlprobe.audit import command

    prometheus = [output for output in options.output if output.endswith(command.SUFFIX)]
    outputs = [output for output in options.output if output not in prometheus]
    _check_outputs(outputs)
    for output in prometheus:
        _check_folder(output)
    rules = _rules(options.fail_on, command.RULES.__contains__)
    done = command.perform(command.Asked.of(options), resolve().settings)
    if not options.quiet and STDOUT not in outputs:
        from rich.console import Console

        from sqlprobe import render

        render.print_report(done.report, Console(), top=options.top, verbose=options.verbose)
    for output in prometheus:
        command.write_metrics(done, output)
    if not _write_outputs(done.report, outputs):
        return WRONG_USE
    failing = _failing(done.report.findings, rules)
    if failing:
        _say_failing(failing)
    return 1 if failing else 0


def _show_outcome(outcome: Outcome, options: argparse.Namespace) -> None:
    """Print what was seen to standard error. The program has ended: whatever fails here does not change its status."""
    if not outcome.met_sqlalchemy:
        _say(
            "SQLAlchemy was not imported, neither by the program nor by a Python process that it started; nothing to "
            "report. Check that the program got as far as its database, and that the process which uses it is not "
            "started with -I, -E or -S or without PYTHONPATH"
        )
        for note in outcome.report.notes:
            _say(note)
        return
    try:
        from rich.console import Console

        from sqlprobe import render

        render.print_report(outcome.report, Console(stderr=True), top=options.top)
    except OSError:
        pass  # the terminal has gone
    except Exception as error:  # noqa: BLE001 - ours: the report is worth writing, the program's status worth keeping
        _say(f"the report cannot be shown ({type(error).__name__}: {error}); -o report.json writes it to a file")


def _engine_of(command: str, url: str) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.ext.asyncio import create_async_engine

    try:
        engine = create_engine(url)
        return create_async_engine(url).sync_engine if engine.dialect.is_async else engine
    except (ArgumentError, ImportError) as error:
        raise WrongUse(
            f"{command} --url: it cannot be used, found: {type(error).__name__}; a URL of SQLAlchemy whose driver is "
            "installed is needed, such as postgresql+psycopg://user@host/database"
        ) from None


def _replace_findings(report: Report, before: Sequence[Answer], after: Sequence[Answer]) -> Report:
    """*report* with what is told of the answers *after* in the place of what was told *before*."""
    import dataclasses

    gone = [finding for answer in before for finding in answer.findings]
    kept = [finding for finding in report.findings if finding not in gone]
    more = [finding for answer in after for finding in answer.findings]
    return dataclasses.replace(report, findings=(*kept, *more))


def _snapshot(options: argparse.Namespace) -> int:
    from sqlprobe.advice import snapshot
    from sqlprobe.plans import explain

    url = options.url or os.environ.get("DATABASE_URL", "")
    if not url:
        raise WrongUse("snapshot: no database; give --url postgresql+psycopg://..., or set DATABASE_URL")
    engine = _engine_of("snapshot", url)
    _check_folder(options.output)
    try:
        taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=20.0))
    except explain.Refused as refused:
        found = f"{refused.reason}, {refused.sqlstate}" if refused.sqlstate else refused.reason
        raise WrongUse(
            f"snapshot --url {engine.url.render_as_string()}: its statistics were asked for, found: {found}; a "
            "PostgreSQL and a role that may connect are needed"
        ) from refused
    taken = taken.private(options.drop_values, options.leave_out)
    taken.write(options.output)
    for note in taken.notes:
        _say(note)
    never = [table.name for table in taken.tables if table.kind in {"r", "m"} and table.known_rows < 0]
    if never:
        were = "1 table was" if len(never) == 1 else f"{len(never)} tables were"
        _say(f"{were} never analysed ({', '.join(never[:3])}): the planner knows nothing there; run ANALYZE first")
    values = sum(each.most_common_vals is not None or each.histogram_bounds is not None for each in taken.statistics)
    _say(
        f"{options.output}: {len(taken.tables)} tables, {len(taken.indexes)} indexes, statistics of "
        f"{len(taken.statistics)} columns, {values} of them with values"
    )
    return 0


def _status(outcome: Outcome, *, failed: bool) -> int:
    """The program's status; where a signal ended it, the same signal ends this process, as a shell expects."""
    if outcome.status == -signal.SIGINT:
        return 128 + signal.SIGINT
    if outcome.status < 0:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            # The program has left a core file if one was wanted: ours would take its place.
            resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if -outcome.status != signal.SIGKILL:
            signal.signal(-outcome.status, signal.SIG_DFL)
        os.kill(os.getpid(), -outcome.status)
        return 128 - outcome.status
    return outcome.status or int(failed)


def _rules(wanted: Sequence[str], looks_for: Callable[[str], bool] | None = None) -> frozenset[str]:
    """
    The rules that fail the run; `any` among them stands for all. What the command does not look for is said.

    Raises:
        WrongUse: there is no rule of that name.
    """
    rules = [rule.strip() for text in wanted for rule in text.split(",")]
    for rule in rules:
        if rule not in {*RULES, ANY}:
            near = difflib.get_close_matches(rule, [*RULES, ANY], 1)
            hint = f"did you mean {near[0]}?" if near else f"rules are: {', '.join(RULES)}; {ANY} stands for all"
            raise WrongUse(f"--fail-on {rule or repr(rule)}: no rule has this name; {hint}")
        if looks_for is not None and rule != ANY and not looks_for(rule):
            _say(f"--fail-on {rule}: this command does not look for it, so it will not fail; {_who_looks_for(rule)}")
    return frozenset(rules)


def _run_looks_for(rule: str) -> bool:
    return rule in {*DETECTORS, *POOL_DETECTORS}


def _run_with_plans_looks_for(rule: str) -> bool:
    return _run_looks_for(rule) or _is_plan_rule(rule) or _is_advice(rule)


def _who_looks_for(rule: str) -> str:
    if _run_looks_for(rule):
        return "sqlprobe run does"
    if _is_plan_rule(rule):
        return "sqlprobe explain does, and sqlprobe run --explain"
    from sqlprobe import audit

    return (
        "sqlprobe audit does" if rule in audit.RULES else "sqlprobe explain --advise does, and sqlprobe run --explain"
    )


def _is_plan_rule(rule: str) -> bool:
    from sqlprobe.plans.judge import CHECKS

    return rule in {*CHECKS, "plan-regression"}


def _is_advice(rule: str) -> bool:
    from sqlprobe.advice import PAGES

    return rule in PAGES


def _failing(findings: Sequence[Finding], rules: frozenset[str]) -> list[Finding]:
    return [finding for finding in findings if finding.rule in rules or ANY in rules]


def _say_failing(findings: Sequence[Finding]) -> None:
    counts = {rule: sum(finding.rule == rule for finding in findings) for rule in {each.rule for each in findings}}
    _say(f"exit status 1, as --fail-on asks: {', '.join(f'{count} {rule}' for rule, count in sorted(counts.items()))}")


def _check_outputs(outputs: Sequence[str]) -> None:
    """
    Say now what would only be found when the program has ended.

    Raises:
        ReportError: no report has such a suffix.
        WrongUse: the file cannot be written.
    """
    for output in outputs:
        if output == STDOUT:
            continue
        suffix_of(output)
        _check_folder(output)


def _check_folder(output: str) -> None:
    file = Path(output)
    folder = file.resolve().parent
    if file.is_dir():
        raise WrongUse(f"-o {output}: a folder of that name is there; name a file")
    if not folder.is_dir():
        raise WrongUse(f"-o {output}: there is no folder {folder}; make it first, or name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WrongUse(f"-o {output}: the folder {folder} is not yours to write; name another")


def _write_outputs(report: Report, outputs: Sequence[str], comparison: Comparison | None = None) -> bool:
    """
    Write *report* to each of *outputs*; whether all could be. What cannot is said.

    Pages (.html, .md) are of the *comparison* where there is one.
    """
    written = True
    for output in outputs:
        try:
            if output == STDOUT:
                sys.stdout.write(report.to_json() + "\n")
                sys.stdout.flush()
            elif comparison is not None and suffix_of(output) in {".html", ".md"}:
                comparison.write(output)
            else:
                report.write(output)
        except SqlprobeError as error:
            _say(str(error))
            written = False
    return written


def _replace(settings: Settings, given: dict[str, Any]) -> Settings:
    import dataclasses

    return dataclasses.replace(settings, **given)


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal has gone, or standard error is closed
        sys.stderr.write(f"sqlprobe: {message}\n")
        sys.stderr.flush()


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise WrongUse(f"{self.prog.removeprefix('sqlprobe').strip()}: {message}; see {self.prog} --help".lstrip(": "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sqlprobe",
        description="Which queries of an SQLAlchemy application hurt, where each comes from, and what mends it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sqlprobe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_report(commands)
    _add_grafana(commands)
    _add_explain(commands)
    _add_audit(commands)
    _add_snapshot(commands)
    commands.add_parser("demo", help="profile a sample application on a PostgreSQL of its own", add_help=False)
    doctor = commands.add_parser(
        "doctor",
        help="what is observed here, by which hook, and what is degraded",
        description="Try capture on a private SQLite engine and say what works here. Exit status 1 if it does not.",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="for a program to read")
    return parser


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="run a program and report on it",
        usage="sqlprobe run [options] script.py [args ...]\n       sqlprobe run [options] -m module [args ...]",
        description=_RUN_DESCRIPTION,
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_shared(run)
    run.add_argument(
        "--slow", type=_seconds, metavar="SECONDS", help="a statement that takes so long is slow (default: 0.1)"
    )
    run.add_argument(
        "--call-sites",
        choices=("all", "first", "off"),
        help="look up the line of every call, of a statement's first and slowest calls, or of none (default: all)",
    )
    run.add_argument(
        "--explain", action="store_true", help="when the program ends, ask PostgreSQL for its statements' plans"
    )
    run.add_argument(
        "--stats", metavar="FILE", help="plan as production would: a file of `sqlprobe snapshot`; implies --explain"
    )
    run.add_argument("-m", dest="module", nargs=argparse.REMAINDER, metavar="module", help="run a module, as python -m")
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="script.py", help="the program and its arguments")


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="show reports that were written to files",
        description="Show a report, several as one, or what has changed since an earlier one.",
        allow_abbrev=False,
    )
    report.add_argument("files", nargs="+", metavar="FILE", help="a report's .json; several are added up")
    report.add_argument(
        "--against", metavar="BASE", help="compare with this earlier report; --fail-on then heeds new findings only"
    )
    _add_shared(report)


def _add_grafana(commands: Any) -> None:
    grafana = commands.add_parser(
        "grafana",
        help="write the Grafana dashboard, alerts and provisioning files",
        usage="sqlprobe grafana export [--force] DIR",
        description="Write the dashboard, Prometheus rules and their tests, provisioning files and a compose.yaml.",
        allow_abbrev=False,
    )
    grafana.add_argument("action", choices=("export",), metavar="export")
    grafana.add_argument("folder", metavar="DIR", help="made if it is not there")
    grafana.add_argument("--force", action="store_true", help="replace files that are there and differ")


def _add_explain(commands: Any) -> None:
    explain = commands.add_parser(
        "explain",
        help="plans and advice for statements, or a report's statements, on a PostgreSQL",
        description="Ask a PostgreSQL for the plans of statements, and say what is wrong with them. Nothing is run, "
        "unless --analyze is given and it can do no harm; constants are not shown.",
        allow_abbrev=False,
    )
    explain.add_argument(
        "sources", nargs="*", metavar="SQL", help="a statement, a .sql file, a report's .json, or - for standard input"
    )
    explain.add_argument(
        "--url", metavar="URL", help="of the database, as SQLAlchemy takes it (default: $DATABASE_URL)"
    )
    explain.add_argument(
        "--advise", action="store_true", help="name indexes, each proven in a lab of its own (sqlprobe[lab])"
    )
    explain.add_argument(
        "--stats",
        metavar="FILE",
        help="plan with the statistics of a file of `sqlprobe snapshot`, instead of a database; implies --advise. With "
        "--url, indexes that only that database has count too",
    )
    explain.add_argument("--analyze", action="store_true", help="run SELECTs that write and call nothing harmful")
    explain.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="plan with this setting; may be repeated"
    )
    _add_shared(explain)


def _add_snapshot(commands: Any) -> None:
    snapshot = commands.add_parser(
        "snapshot",
        help="keep what the planner knows of a PostgreSQL in a file: definitions, sizes and statistics, no rows",
        description="Read a PostgreSQL's definitions, sizes and statistics into a file that only you can read. "
        "Statistics hold values (the most common ones, bounds of histograms): --drop-values and --leave-out keep them "
        "out. Nothing is written to the database.",
        allow_abbrev=False,
    )
    snapshot.add_argument(
        "--url", metavar="URL", help="of the database, as SQLAlchemy takes it (default: $DATABASE_URL)"
    )
    snapshot.add_argument("-o", "--output", required=True, metavar="FILE", help=".json, or .json.gz")
    snapshot.add_argument(
        "--drop-values", action="append", default=[], metavar="COLUMN",
        help="keep counts of this column, and none of its values; table.column, with * for any; may be repeated",
    )  # fmt: skip
    snapshot.add_argument(
        "--leave-out", action="append", default=[], metavar="COLUMN",
        help="keep no statistics of this column; may be repeated",
    )  # fmt: skip


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser(
        "audit",
        help="review models, a database's catalog and migrations",
        usage="sqlprobe audit [options] [MODELS ...]",
        description="Review models (shop.models, shop.models:Base), a PostgreSQL catalog and an Alembic directory. The "
        "catalog is read by a read-only connection; nothing is written.",
        allow_abbrev=False,
    )
    audit.add_argument("models", nargs="*", metavar="MODELS", help="a module with models, or module:Base")
    audit.add_argument("--url", metavar="URL", help="read the catalog of this PostgreSQL, compare the models with it")
    audit.add_argument("--stats", metavar="FILE", help="read the catalog from a file that --save-stats wrote")
    audit.add_argument("--save-stats", metavar="FILE", help="keep what was read of the catalog: names and counts")
    audit.add_argument("--migrations", metavar="DIR", help="an Alembic directory, or its alembic.ini")
    audit.add_argument("--with", dest="report", metavar="REPORT", help="weigh the findings by this report of a run")
    audit.add_argument(
        "--tenant", action="append", default=[], metavar="COLUMN,...", help="columns that say whose a row is"
    )
    audit.add_argument(
        "--natural-key",
        action="append",
        default=[],
        metavar="TABLE.COLUMN,...",
        help="columns that are meant to be referred to, although they are no primary key",
    )
    audit.add_argument("--enable", action="append", default=[], metavar="RULE,...", help="rules that are off")
    audit.add_argument("--disable", action="append", default=[], metavar="RULE,...", help="rules that say nothing")
    audit.add_argument("--ignore-file", metavar="FILE", help="TOML with [[ignore]] tables, as for pytest")
    audit.add_argument("--baseline", metavar="FILE", help="findings that are known: they are counted and not told")
    audit.add_argument("--update-baseline", action="store_true", help="write --baseline with what is found now")
    audit.add_argument("--no-compare", action="store_true", help="do not compare models and database by Alembic")
    audit.add_argument(
        "--unused-days", type=_days, metavar="DAYS", help="an index is unused after so many days (default: 30)"
    )
    audit.add_argument(
        "--max-migrations", type=_count, metavar="N", help="migrations from which on to squash them (default: 100)"
    )
    audit.add_argument("-v", "--verbose", action="store_true", help="show every finding with its numbers")
    _add_shared(audit, ", .prom (metrics)")


def _add_shared(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="FILE",
        help=f"write the report too: .json, .html, .md, .sarif{more}; - is JSON to standard output; may be repeated",
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="RULE,...",
        help=f"exit with 1 if a finding of these rules is reported; {ANY} stands for all",
    )
    parser.add_argument("--top", type=_count, default=TOP, metavar="N", help="rows to show (default: %(default)s)")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no report")


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"a number of days is needed, such as 30, found {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is needed, such as 0.2, found {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, found {text!r}")
    return int(text)
