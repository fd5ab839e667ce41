"""
Is sqlprobe's index advice true? Every situation of tests/advice/ground_truth.py on a server of its own: advice is
asked for, built, and the statement run without and with it. `--write` makes docs/index-accuracy.md of it.

    python bench/index_accuracy.py [--write] [--rows 300000] [--only TEXT]

Takes some ten minutes for all of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "advice"))
PAGE = ROOT / "docs" / "index-accuracy.md"

import ground_truth  # noqa: E402 - it is beside the tests

from sqlprobe.advice import server as servers  # noqa: E402
from sqlprobe.advice import snapshot  # noqa: E402
from sqlprobe.advice.lab import open_lab  # noqa: E402
from sqlprobe.plans import explain  # noqa: E402

_INTRODUCTION = """
{number} statements on tables of {rows} rows (vectors: an eighth of that). sqlprobe is given each statement with its
values, and names indexes by what its lab, which holds no row, says of them. They are then built on the filled tables,
and the statement is run without and with them. *Useful*: the plan uses the index, and the pages touched, or the
processor's time (the mean of two runs without parallel workers), are at least halved; below 50 ms, which the system
cannot tell, the clock's time has to be a quarter. Where sqlprobe proposes
nothing, the index that a person would try is built instead, and measured in the same way.
"""
_NOTE = """
{tempting} of the statements were written with an index that only looks useful: skew, correlation, a table that is
small, an index that is there already, most rows wanted. Statements and tables were written by those who wrote the
advice: expect less on a schema of your own.
Written by `python bench/index_accuracy.py --write`.
"""
SAID = {
    "useful": "given, useful",
    "useless": "**given, useless**",
    "missing": "**missing and possible**",
    "withheld": "rightly withheld",
    "silent": "no index: rewrite",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).strip().splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rows", type=int, default=ground_truth.ROWS)
    parser.add_argument("--only", default="")
    parser.add_argument("--shards", type=int, default=4)
    options = parser.parse_args()
    chosen = [each for each in ground_truth.SITUATIONS if options.only in each.heading + " " + each.name]
    with servers.serve(settings={"shared_buffers": "512MB", "max_wal_size": "8GB"}) as server:
        server.psql("CREATE ROLE truth_app; CREATE DATABASE truth")
        began = time.perf_counter()
        ground_truth.fill(lambda script: server.psql(script, "truth"), options.rows)
        print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        for number in range(options.shards):
            server.psql(f"CREATE DATABASE truth_{number} TEMPLATE truth STRATEGY file_copy")
        shards = [chosen[number :: options.shards] for number in range(options.shards)]
        with ThreadPoolExecutor(options.shards) as pool:
            parts = pool.map(lambda shard: _judged(server, *shard), enumerate(shards))
            verdicts = [verdict for part in parts for verdict in part]
    verdicts.sort(key=lambda verdict: chosen.index(verdict.situation))
    counted = Counter(verdict.outcome for verdict in verdicts)
    print(dict(counted))
    if options.write and not options.only:
        PAGE.write_text(_page(verdicts, counted, options.rows))
    return 0 if not counted["useless"] else 1


def _judged(
    server: servers.Server, number: int, situations: list[ground_truth.Situation]
) -> list[ground_truth.Verdict]:
    """On a database of its own: an index that is being built keeps other work from its table."""
    engine = sa.create_engine(server.url_for("psycopg", f"truth_{number}"))
    taken = explain.on_connection(engine, snapshot.read, explain.Limits(statement_seconds=20))
    verdicts = []
    with open_lab(taken) as lab:
        if lab.notes:
            print(lab.notes, flush=True)
        ground = ground_truth.Ground(engine, lab, taken)
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
                f"{verdict.outcome:8} {situation.name[:100]} | {'; '.join(verdict.advice) or situation.tried} | "
                f"{_figures(verdict)} | {time.perf_counter() - began:.1f} s"
                + (f" | NOT SAID {situation.says!r}, but {verdict.existing}" if missed else ""),
                flush=True,
            )
    engine.dispose()
    return verdicts


def _ms(measured: ground_truth.Measured, beside: ground_truth.Measured | None = None) -> str:
    by_clock = (beside or measured).seconds < ground_truth.LEAST_SECONDS
    return f"{(measured.clock if by_clock else measured.seconds) * 1e3:,.1f}"


def _figures(verdict: ground_truth.Verdict) -> str:
    before, after = verdict.before, verdict.after
    if before is None:
        return ""
    if after is None:
        return f"{before.pages:,.0f} pages, {_ms(before)} ms"
    return f"{before.pages:,.0f} to {after.pages:,.0f} pages, {_ms(before)} to {_ms(after, before)} ms"


def _page(verdicts: list[ground_truth.Verdict], counted: Counter[str], rows: int) -> str:
    possible = counted["useful"] + counted["missing"]
    tempting = sum(each.situation.heading == "An index that only looks useful" for each in verdicts)
    lines = [
        "# Is the index advice true?",
        "",
        *_INTRODUCTION.format(number=len(verdicts), rows=f"{rows:,}").splitlines(),
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
        *_NOTE.format(tempting=tempting).splitlines(),
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


def _shown(verdict: ground_truth.Verdict) -> str:
    shown = "; ".join(verdict.advice) if verdict.advice else verdict.situation.tried
    return f"`{shown.replace('|', chr(92) + '|').replace('ON public.', '')}`" if shown else ""


if __name__ == "__main__":
    sys.exit(main())
