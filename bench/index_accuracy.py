"""
Is sqlprobe's index advice true? Every situation of tests/advice/ground_truth.py, tpch.py and hub.py on a server
of its own: advice is asked for, built, and the statement run without and with it. `--write` makes the pages
docs/index-accuracy.md, docs/index-accuracy-tpch.md and docs/index-accuracy-jupyterhub.md of it.

    python bench/index_accuracy.py [own] [tpch] [jupyterhub] [--write] [--rows 300000] [--only TEXT]

Takes some ten minutes for all of the first, a few for the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "advice"))

import ground_truth  # noqa: E402 - they are beside the tests
import hub  # noqa: E402
import judging  # noqa: E402
import tpch  # noqa: E402

from sqlprobe.advice import server as servers  # noqa: E402
from sqlprobe.advice import snapshot  # noqa: E402
from sqlprobe.advice.lab import open_lab  # noqa: E402
from sqlprobe.plans import explain  # noqa: E402

if TYPE_CHECKING:
    from types import ModuleType

_INTRODUCTION = """
{number} statements on {what}. sqlprobe is given each statement with its
values, and names indexes by what its lab, which holds no row, says of them. They are then built on the filled tables,
and the statement is run without and with them. *Useful*: the plan uses the index, and the pages touched, or the
processor's time (the mean of two runs without parallel workers), are at least halved; below 50 ms, which the system
cannot tell, the clock's time, the least of many runs. Where sqlprobe proposes
nothing, the index that a person would try is built instead, and measured in the same way.
"""
_OWN = """
{tempting} of the statements were written with an index that only looks useful: skew, correlation, a table that is
small, an index that is there already, most rows wanted. Statements and tables were written by those who wrote the
advice: [TPC-H](index-accuracy-tpch.md) and [JupyterHub](index-accuracy-jupyterhub.md) are not.
Written by `python bench/index_accuracy.py own --write`.
"""
_TPCH = """
The tables have their primary keys and foreign keys, and no other index. The rows are drawn as the benchmark's generator
draws them, so that the figures are those of its data, not its figures. Several indexes were tried by hand where nothing
is proposed; the best of them is shown.
Written by `python bench/index_accuracy.py tpch --write`.
"""
_JUPYTERHUB = """
The tables are made by JupyterHub's own models, with the indexes that they declare. Most statements were taken down
while functions and relationships of its own ran; those of its request handlers were copied from its source, the lists
with `raiseload` in place of its eager loads. The rows were made up. Several indexes were tried by hand where nothing is
proposed; the best of them is shown. Many of the statements look up a primary key, where no index helps: they are easy.
"members of a group" saves about half of the time, and was useless in two runs of four.
Written by `python bench/index_accuracy.py jupyterhub --write`.
"""


@dataclass(frozen=True)
class Schema:
    module: ModuleType
    title: str
    what: str
    note: str
    page: str

    @property
    def path(self) -> Path:
        return ROOT / "docs" / self.page


SCHEMAS = {
    "own": Schema(
        ground_truth,
        "Is the index advice true?",
        "tables of {rows} rows (vectors: an eighth of that)",
        _OWN,
        "index-accuracy.md",
    ),
    "tpch": Schema(
        tpch,
        "Is the index advice true on TPC-H?",
        "the tables of TPC-H, with about {rows} rows of lineitem",
        _TPCH,
        "index-accuracy-tpch.md",
    ),
    "jupyterhub": Schema(
        hub,
        "Is the index advice true for JupyterHub?",
        "the tables of JupyterHub, with {rows} tokens and as many rows as fit them in the others",
        _JUPYTERHUB,
        "index-accuracy-jupyterhub.md",
    ),
}
SAID = {
    "useful": "given, useful",
    "useless": "**given, useless**",
    "missing": "**missing and possible**",
    "withheld": "rightly withheld",
    "silent": "no index: rewrite",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).strip().splitlines()[0])
    parser.add_argument("schemas", nargs="*", metavar="|".join(SCHEMAS))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", type=int, default=ground_truth.ROWS)
    parser.add_argument("--only", default="")
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    return max(_run(name, options) for name in options.schemas or SCHEMAS)


def _run(name: str, options: argparse.Namespace) -> int:
    schema = SCHEMAS[name]
    chosen = [each for each in schema.module.SITUATIONS if options.only in each.heading + " " + each.name]
    with servers.serve(settings={"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off"}) as server:
        server.psql("CREATE ROLE truth_app; CREATE DATABASE truth")
        began = time.perf_counter()
        schema.module.fill(lambda script: server.psql(script, "truth"), options.rows)
        print(f"{name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
        for number in range(options.shards):
            server.psql(f"CREATE DATABASE truth_{number} TEMPLATE truth STRATEGY file_copy")
        shards = [chosen[number :: options.shards] for number in range(options.shards)]
        with ThreadPoolExecutor(options.shards) as pool:
            parts = pool.map(lambda shard: _judged(server, *shard), enumerate(shards))
            verdicts = [verdict for part in parts for verdict in part]
    verdicts.sort(key=lambda verdict: chosen.index(verdict.situation))
    counted = Counter(verdict.outcome for verdict in verdicts)
    print(f"{name}: {dict(counted)}, in {time.perf_counter() - began:.0f} s", flush=True)
    if options.write and not options.only:
        schema.path.write_text(_page(schema, verdicts, counted, options.rows))
    return 0 if not counted["useless"] else 1


def _judged(server: servers.Server, number: int, situations: list[judging.Situation]) -> list[judging.Verdict]:
    """On a database of its own: an index that is being built keeps other work from its table."""
    engine = sa.create_engine(server.url_for("psycopg", f"truth_{number}"))
    taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=20))
    verdicts = []
    with open_lab(taken) as lab:
        if lab.notes:
            print(lab.notes, flush=True)
        ground = judging.Ground(engine, lab, taken)
        for situation in situations:
            began = time.perf_counter()
            try:
                verdict = ground.judge(situation)
            except Exception as error:  # noqa: BLE001 - told, and the next one is tried
                print(f"FAILED   {situation.name[:110]}: {type(error).__name__} {str(error)[:300]}", flush=True)
                continue
            verdicts.append(verdict)
            missed = situation.says and not any(situation.says in each for each in verdict.existing)
            print(
                f"{verdict.outcome:8} {situation.name[:100]} | {_indexes(verdict)} | "
                f"{_figures(verdict)} | {time.perf_counter() - began:.1f} s"
                + (f" | UNUSED {verdict.unused}" if verdict.unused else "")
                + (f" | NOT SAID {situation.says!r}, but {verdict.existing}" if missed else ""),
                flush=True,
            )
    engine.dispose()
    return verdicts


def _ms(measured: judging.Measured, beside: judging.Measured | None = None) -> str:
    by_clock = (beside or measured).seconds < judging.LEAST_SECONDS
    return f"{(measured.clock if by_clock else measured.seconds) * 1e3:,.1f}"


def _figures(verdict: judging.Verdict) -> str:
    before, after = verdict.before, verdict.after
    if before is None:
        return ""
    if after is None:
        return f"{before.pages:,.0f} pages, {_ms(before)} ms"
    return f"{before.pages:,.0f} to {after.pages:,.0f} pages, {_ms(before)} to {_ms(after, before)} ms"


def _page(schema: Schema, verdicts: list[judging.Verdict], counted: Counter[str], rows: int) -> str:
    possible = counted["useful"] + counted["missing"]
    tempting = sum(each.situation.heading == "An index that only looks useful" for each in verdicts)
    lines = [
        f"# {schema.title}",
        "",
        *_INTRODUCTION.format(number=len(verdicts), what=schema.what.format(rows=f"{rows:,}")).splitlines(),
        "",
        "| | |",
        "|---|---|",
        f"| advice given and useful | {counted['useful']} |",
        f"| advice given and useless | {counted['useless']} |",
        f"| missing, although an index would help | {counted['missing']} |",
        f"| rightly withheld (the index that a person would try is no use) | {counted['withheld']} |",
        f"| no index proposed where only another statement helps | {counted['silent']} |",
        f"| found of what is possible | {counted['useful'] / max(possible, 1):.0%} of {possible} |",
        "",
        *schema.note.format(tempting=tempting).splitlines(),
        "",
    ]
    for outcome, title in (("useless", "Useless advice"), ("missing", "Missing advice")):
        lines += [f"## {title}", ""]
        mine = [each for each in verdicts if each.outcome == outcome]
        lines += [f"- `{each.situation.name}`: {_shown(each)} ({_figures(each)})" for each in mine] or ["None."]
        lines.append("")
    heading = ""
    for each in verdicts:
        if each.situation.heading != heading:
            heading = each.situation.heading
            lines += ["", f"## {heading}", "", "| statement | | index | |", "|---|---|---|---|"]
        lines.append(
            f"| `{each.situation.name.replace('|', chr(92) + '|')}` | {SAID[each.outcome]} | {_shown(each)} "
            f"| {_figures(each)} |"
        )
    text = "\n".join(lines).replace("\n\n\n", "\n\n")
    return f"{text}\n"


def _indexes(verdict: judging.Verdict) -> str:
    shown = "; ".join(verdict.advice or verdict.built) or verdict.situation.tried
    return shown.replace("ON public.", "").removeprefix("ON ").replace("; ON ", "; ")


def _shown(verdict: judging.Verdict) -> str:
    shown = _indexes(verdict).replace("|", chr(92) + "|")
    unused = f" ({len(verdict.unused)} unused)" if verdict.unused else ""
    return f"`{shown}`{unused}" if shown else ""


if __name__ == "__main__":
    sys.exit(main())
