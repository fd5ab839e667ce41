"""
Runs a program of the corpus, reads what sqlprobe says of it, pastes the fix into its source, and runs it again.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import itertools
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import corpus_models
import jinja2
import pydantic
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import sqlprobe

if TYPE_CHECKING:
    from pathlib import Path

    from corpus_programs import Expected, Program

ROUNDS = 3  # fixes pasted one after the other: first what makes objects stale, then what loads them ahead
_numbers = itertools.count()


@dataclass
class Outcome:
    """One run: what it returned, how many statements, and the findings without those that time alone makes."""

    result: Any
    calls: int
    findings: list[sqlprobe.Finding]


class Place:
    """A database that programs run on, sync and async, as new as it was for each that writes."""

    def __init__(self, folder: Path, url: sa.URL, asynchronous_url: sa.URL, restore: Any) -> None:
        self.folder = folder
        self.url = url
        self.asynchronous_url = asynchronous_url
        self.restore = restore
        self.engine = sa.create_engine(url)
        self.faulty: list[str] = []

    def close(self) -> None:
        self.engine.dispose()

    def run(
        self,
        program: Program,
        source: str,
        n: int,
        *,
        asynchronous: bool = False,
        options: dict[str, Any] | None = None,
        at_end: Any = None,
    ) -> Outcome:
        """Run *source* in a scope; *options* are those of its sessions. *at_end* is given a session that sees all."""
        path = self.folder / f"{program.name.replace('-', '_')}_{next(_numbers)}.py"
        path.write_text(source, encoding="utf-8")
        kept: list[Any] = []

        def keep(value: Any) -> Any:
            kept.append(value)
            return value

        namespace: dict[str, Any] = {
            **vars(orm), **vars(sa), **vars(corpus_models), "sa": sa, "n": n, "kept": keep, "sqlprobe": sqlprobe,
            "jinja2": jinja2, "pydantic": pydantic, "asyncio": asyncio, "__name__": path.stem,
        }  # fmt: skip
        options = options or {}
        try:
            if asynchronous:
                native = program.asynchronous
                return asyncio.run(self._run_async(source, path, namespace, options, at_end, native=native))
            namespace["new_session"] = lambda: Session(self.engine, **options)
            exec(compile(source, str(path), "exec"), namespace)
            with sqlprobe.record() as recording, sqlprobe.scope("work"), Session(self.engine, **options) as session:
                result = namespace["run"](session)
                if at_end is not None:
                    at_end(session)
            return _outcome(result, recording)
        finally:
            kept.clear()
            if program.writes:
                self.restore(self.engine)

    async def _run_async(
        self, source: str, path: Path, namespace: dict[str, Any], options: dict[str, Any], at_end: Any, *, native: bool
    ) -> Outcome:
        engine = create_async_engine(self.asynchronous_url)
        namespace["new_session"] = lambda: Session(engine.sync_engine, **options)
        namespace["new_async_session"] = lambda: AsyncSession(engine, **options)
        exec(compile(source, str(path), "exec"), namespace)
        try:
            async with AsyncSession(engine, **options) as session:
                with sqlprobe.record() as recording, sqlprobe.scope("work"):
                    if native:
                        result = await namespace["run"](session)
                    else:
                        result = await session.run_sync(namespace["run"])
                    if at_end is not None:
                        await session.run_sync(at_end)
        finally:
            await engine.dispose()
        return _outcome(result, recording)


def _outcome(result: Any, recording: sqlprobe.Recording) -> Outcome:
    report = recording.report()
    assert not report.faults, report.faults
    return Outcome(result, recording.calls, [f for f in report.findings if f.rule != "slow-statement"])


def sqlite_place(folder: Path) -> Place:
    """SQLite, filled once and copied back after each program that writes."""
    kept, used = folder / "kept.sqlite", folder / "used.sqlite"
    engine = sa.create_engine(f"sqlite:///{kept}")
    with engine.begin() as connection:
        corpus_models.fill(connection)
    engine.dispose()
    shutil.copy(kept, used)

    def restore(engine: sa.Engine) -> None:
        engine.dispose()
        shutil.copy(kept, used)

    return Place(folder, sa.make_url(f"sqlite:///{used}"), sa.make_url(f"sqlite+aiosqlite:///{used}"), restore)


def postgresql_place(folder: Path, url_for: Any) -> Place:
    """PostgreSQL, whose rows are kept in a second schema."""
    place = Place(folder, url_for("psycopg"), url_for("asyncpg"), None)
    names = [f'"{table.name}"' for table in corpus_models.Base.metadata.sorted_tables]
    with place.engine.connect() as connection:
        corpus_models.fill(connection)
        connection.execute(sa.text("CREATE SCHEMA kept"))
        for name in names:
            connection.execute(sa.text(f"CREATE TABLE kept.{name} AS TABLE public.{name}"))
        connection.execute(sa.text("ANALYZE"))
        connection.commit()

    def restore(engine: sa.Engine) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {', '.join(names)} CASCADE"))
            for name in names:
                connection.execute(sa.text(f"INSERT INTO public.{name} TABLE kept.{name}"))

    place.restore = restore
    return place


# --- what was expected, and what was said -----------------------------------------------------------------------------


def line_of(source: str, marker: str | None) -> int | None:
    if marker is None:
        return None
    (number,) = [number for number, line in enumerate(source.splitlines(), 1) if line.endswith(f"# {marker}")]
    return number


def told(finding: sqlprobe.Finding) -> tuple[Any, ...]:
    origin = finding.origin.line if finding.origin else None
    return finding.rule, finding.label, finding.count, finding.site.line if finding.site else None, origin


def wanted(expected: Expected, source: str, n: int) -> tuple[Any, ...]:
    count = eval(expected.count, {"n": n})
    return expected.rule, expected.label, count, line_of(source, expected.site), line_of(source, expected.origin)


def fits(want: tuple[Any, ...], got: tuple[Any, ...]) -> bool:
    """Rule, label, site and origin; counts may differ by the statement that began it or ended it."""
    return (*want[:2], *want[3:]) == (*got[:2], *got[3:]) and abs(want[2] - got[2]) <= max(1, want[2] // 10)


# --- pasting ------------------------------------------------------------------------------------------------------------


class PasteError(Exception):
    """The program has no place for that code."""


def paste(source: str, finding: sqlprobe.Finding, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """*source* and session *options* with the first fix of *finding* in them: its code as it stands."""
    code = finding.fixes[0].code
    if finding.fixes[0].kind == "setting":
        given = ast.parse(f"f({code})", mode="eval").body.keywords
        return source, {**options, **{word.arg: ast.literal_eval(word.value) for word in given}}
    if finding.fixes[0].kind == "rewrite":
        return _before_loop(source, finding.site.line, code), options
    where = finding.origin or finding.site
    return _into_query(source, where.line, code, at_end=finding.rule == "row-explosion"), options


def _before_loop(source: str, line: int, code: str) -> str:
    """*code* in front of the loop around *line*, or of the statement: its `ids` are those the program asks for."""
    lines = source.splitlines()
    tree = ast.parse(source)
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "run"
    )
    first = function.body[0]
    indent = " " * first.col_offset
    lines[first.lineno - 1 : first.lineno - 1] = [f"{indent}ids = range(1, n + 1)", f"{indent}loaded = {code}"]
    return "\n".join(lines) + "\n"


def _into_query(source: str, line: int, code: str, *, at_end: bool) -> str:
    """*source* with the query on *line* replaced by *code*, and what followed the query's head after it."""
    fix = ast.parse(code, mode="eval").body
    head, _ = _head(fix)
    bare = head is None  # only the options
    tree = ast.parse(source)
    found = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.lineno <= line <= node.end_lineno:
            own, _ = _head(node)
            if own is node and (bare or _same(own, head)):
                found = node if found is None or node.col_offset < found.col_offset else found
    if found is None:
        raise PasteError(f"{code!r} is no query of line {line}:\n{source}")
    lines = source.splitlines(keepends=True)
    if bare:
        # What stands there already is replaced: two options for one attribute would be in conflict.
        text, replaced = lines[line - 1], False
        for each in fix.elts if isinstance(fix, ast.Tuple) else [fix]:
            attribute = re.escape(ast.unparse(each.args[0]))
            text, times = re.subn(rf"\b\w+\({attribute}\)", ast.unparse(each), text)
            replaced = replaced or times > 0
        if replaced:
            lines[line - 1] = text
            return "".join(lines)
    if isinstance(head, ast.Call) and ast.unparse(head.func).endswith(".get"):
        text = lines[found.end_lineno - 1]
        words = ", ".join(f"{word.arg}={ast.unparse(word.value)}" for word in fix.keywords)
        at = found.end_col_offset - 1
        lines[found.end_lineno - 1] = f"{text[:at]}, {words}{text[at:]}"
        return "".join(lines)
    node, end = found, found
    if at_end:
        parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        while (
            isinstance(step := parents.get(end), ast.Attribute)
            and step.attr not in {"all", "one", "first", "unique", "scalars"}
            and isinstance(parents.get(step), ast.Call)
        ):
            end = parents[step]
    text = lines[end.end_lineno - 1]
    suffix = f".options({code})" if bare else code[len(ast.get_source_segment(code, head)) :]
    at = end.end_col_offset
    lines[end.end_lineno - 1] = f"{text[:at]}{suffix}{text[at:]}"
    del node
    return "".join(lines)


def _head(node: ast.expr) -> tuple[ast.Call | None, str]:
    """The call that a chain of calls begins with: `select(...)`, `session.query(...)`, `session.get(...)`."""
    while isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name == "select" or name.endswith(("session.query", "session.get", "session.get_one")):
            return node, name
        if not isinstance(node.func, ast.Attribute):
            return None, ""
        node = node.func.value
    return None, ""


def _same(own: ast.Call, head: ast.Call) -> bool:
    """Whether both ask for the same, in the same form."""
    mine, theirs = ast.unparse(own.func), ast.unparse(head.func)
    if mine != theirs:
        return False
    if theirs.endswith(".get"):
        return ast.unparse(own.args[0]) == ast.unparse(head.args[0])
    return [ast.unparse(arg) for arg in own.args] == [ast.unparse(arg) for arg in head.args]


def mend(place: Place, program: Program, expected: Expected, n: int, before: Outcome, *, asynchronous: bool) -> str:
    """
    Paste the first fix of the finding, up to ROUNDS times; what is wrong then, empty if it is gone.

    A query that is to stand before a loop has to return what the loop's queries do, all of it and nothing else.
    """
    source, options, calls = program.source, {}, before.calls
    outcome = before
    for _ in range(ROUNDS):
        finding = next((f for f in outcome.findings if (f.rule, f.label) == (expected.rule, expected.label)), None)
        if finding is None:
            break
        if not finding.fixes:
            return f"no fix: {finding.title}"
        if finding.rule == "write-loop":
            return write_all(place, program, n, finding, asynchronous=asynchronous)
        if "(values)" in finding.fixes[0].code:
            return ask_for_all(place, program, n, finding, asynchronous=asynchronous)
        try:
            source, options = paste(source, finding, options)
            outcome = place.run(program, source, n, asynchronous=asynchronous, options=options)
        except (PasteError, SyntaxError, sa.exc.SQLAlchemyError) as error:
            return f"{finding.fixes[0].code}: {type(error).__name__}: {error}"
    if any((f.rule, f.label) == (expected.rule, expected.label) for f in outcome.findings):
        return f"still there after {source}"
    if outcome.result != before.result:
        return f"another result: {outcome.result!r} instead of {before.result!r}"
    if outcome.calls >= calls and n > 2 and expected.rule != "row-explosion":
        return f"{outcome.calls} statements instead of {calls}"
    return ""


def ask_for_all(place: Place, program: Program, n: int, finding: sqlprobe.Finding, *, asynchronous: bool) -> str:
    """Run the fix, one query for all `values` that the loop asks for one by one; what is wrong with its rows, or ""."""
    code, table = finding.fixes[0].code, finding.label.split()[0]
    asked: list[tuple[str, Any, dict[str, Any]]] = []

    def note(connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        if text.startswith("SELECT") and f"FROM {table}" in text:
            asked.append((text, context.compiled.statement, context.compiled_parameters[0]))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        place.run(program, program.source, n, asynchronous=asynchronous)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    ((looped, _),) = Counter(text for text, *_ in asked).most_common(1)
    calls = {next(iter(bound.values())): (query, bound) for text, query, bound in asked if text == looped}
    names = {**vars(corpus_models), "select": sa.select, "func": sa.func, "values": list(calls)}
    with Session(place.engine) as session, place.engine.connect() as connection:
        query = eval(code, {**names, "session": session})
        together = [tuple(row) for row in connection.execute(getattr(query, "statement", query))]
        single = {value: [tuple(row) for row in connection.execute(*call)] for value, call in calls.items()}
    apart = [row for rows in single.values() for row in rows]
    if ".group_by(" in code:
        worked_out = {value: tuple(row) for value, *row in together}
        wrong = {value: row for value, (row,) in single.items() if worked_out.get(value, row) != row}
        wrong |= {value: row for value, (row,) in single.items() if value not in worked_out and any(row)}
        return f"{code}: {worked_out} instead of {single}" if wrong or not worked_out else ""
    added = len(together[0]) - len(apart[0]) if together and apart else 0
    if Counter(row[added:] for row in together) != Counter(apart):
        return f"{code}: {together} instead of {apart}"
    return "" if apart or not together else f"{code}: {together} instead of nothing"


def write_all(place: Place, program: Program, n: int, finding: sqlprobe.Finding, *, asynchronous: bool) -> str:
    """
    Run the fix, one statement for what the loop wrote row by row, in place of it; what the table has not then, or "".

    `rows` and `ids` are what the loop changed in the table. Keys that the database gave are none of its results.
    """
    code, table = finding.fixes[0].code, corpus_models.Base.metadata.tables[finding.label]
    parents = [key.column.table for key in table.foreign_keys]
    contents: list[dict[str, dict[Any, Any]]] = []

    def look(session: Session) -> None:
        session.flush()
        found = {}
        for each in (table, *parents):
            rows = session.connection().execute(sa.select(each).order_by(each.c.id)).mappings()
            found[each.name] = {row["id"]: dict(row) for row in rows}
        contents.append(found)

    def add_parents(session: Session) -> None:
        """Those that the loop has made too, for its rows to belong to."""
        for each in parents:
            rows = [
                contents[1][each.name][key] for key in contents[1][each.name].keys() - contents[0][each.name].keys()
            ]
            if rows:
                session.connection().execute(each.insert(), rows)
        sent.clear()

    with Session(place.engine) as session:
        look(session)
    place.run(program, program.source, n, asynchronous=asynchronous, at_end=look)
    before, after = (each[table.name] for each in contents)
    new = [after[key] for key in after.keys() - before.keys()]
    changed = [after[key] for key in after.keys() & before.keys() if after[key] != before[key]]
    ids = sorted(before.keys() - after.keys())
    wanted = re.findall(r'"(\w+)":', code)
    rows = [{key: row[key] for key in wanted} for row in (new if "insert(" in code else changed)]
    if not rows and not ids:
        return f"{code}: the loop has changed nothing"
    sent: list[str] = []

    def note(connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: bool) -> None:
        sent.append(text)

    names = {**vars(corpus_models), "insert": sa.insert, "update": sa.update, "delete": sa.delete}
    compiled = compile(code, "<fix>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        engine = create_async_engine(place.asynchronous_url)
        async with AsyncSession(engine) as session:
            await session.run_sync(add_parents)
            await eval(compiled, {**names, "rows": rows, "ids": ids, "session": session})
            await session.run_sync(look)
        await engine.dispose()

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        if "await " in code:
            asyncio.run(run())
        else:
            with Session(place.engine) as session:
                add_parents(session)
                eval(compiled, {**names, "rows": rows, "ids": ids, "session": session})
                look(session)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
        place.restore(place.engine)
    together = contents[-1][table.name]
    if len(sent) != 2 + len(parents):  # the statement, and the looks at the tables
        return f"{code}: sent {sent}"
    if "insert(" in code:
        made = [{**together[key], "id": None} for key in together.keys() - before.keys()]
        same = Counter(map(repr, made)) == Counter(repr({**row, "id": None}) for row in new)
    else:
        same = together == after
    return "" if same else f"{code}: another table than the loop's"


@contextlib.contextmanager
def closing(place: Place):
    try:
        yield place
    finally:
        place.close()
