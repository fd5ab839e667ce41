"""
Judging advice: sqlprobe is given a statement and its values, never an index; what it then says is done, and measured.

`Ground.judge()` applies sqlprobe's advice to the server, runs the statement without and with it, and compares. An index
is useful where the plan uses it and the pages touched, or the time, are at least halved. Where nothing is advised, what
a person would try is built instead.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlprobe.advice import candidates, prove, sampling, snapshot
from sqlprobe.plans import explain
from sqlprobe.plans.catalog import Reader
from sqlprobe.plans.sampling import Sample

if TYPE_CHECKING:
    import sqlalchemy as sa


@dataclass(frozen=True)
class Situation:
    """
    `tried` is the index that a person would try: what stands behind CREATE INDEX … ON, several with ";" between, and
    " | " between one try and the next. "" is none: nobody could name one. `kind` is "rewrite" where the statement has
    to change, and no index is to be proposed. `says` is what a finding has to say of an index that is there. `label` is
    what a long statement is called.
    """

    heading: str
    statement: str
    tried: str
    values: tuple[dict[str, Any], ...] = ({},)
    kind: str = ""
    says: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    role: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or " ".join(self.statement.split())

    @property
    def tries(self) -> list[list[str]]:
        """What stands behind CREATE INDEX and its name, of each try."""
        return [[f"ON {each.strip()}" for each in one.split(";")] for one in self.tried.split(" | ") if one.strip()]


LEAST_SECONDS = 0.05
LEAST_CLOCK = 0.0005
AGAIN = 3  # takes
RUNS = 3  # of a take, of which the first fills the cache; two where they are
LONG_SECONDS = 2.0
SHORT_RUNS = 10  # where one is shorter than `LEAST_SECONDS`


@dataclass(frozen=True)
class Measured:
    """
    What a run of the statement took: `pages` of 8 kB touched, `seconds` of a processor, the mean of two runs without
    parallel workers (of the clock, where the system does not tell), and the indexes used.
    """

    pages: float
    seconds: float
    indexes: frozenset[str]
    clock: float = 0.0  # seconds of the faster run

    def halves(self, before: Measured) -> bool:
        # The system counts in hundredths of a second; what is shorter is told by the clock: the least of many runs.
        if before.seconds >= LEAST_SECONDS:
            faster = self.seconds * 2 <= before.seconds
        else:
            faster = before.clock >= LEAST_CLOCK and self.clock * 2 <= before.clock
        return self.pages * 2 <= before.pages or faster


@dataclass(frozen=True)
class Verdict:
    """
    `outcome` is "useful", "useless", "missing", "withheld" or "silent" (possible only by another statement).

    `advice` are the DDL statements that sqlprobe gave, `unused` those of them that the plan does without: one is enough
    to be useless. `tried` is what the person's indexes did, "useful" or "useless", and `built` which of them `after`
    tells of: the best try.
    """

    situation: Situation
    outcome: str
    advice: tuple[str, ...] = ()
    before: Measured | None = None
    after: Measured | None = None
    tried: str = ""
    existing: tuple[str, ...] = field(default=())
    unused: tuple[str, ...] = ()
    built: tuple[str, ...] = ()


class Ground:
    """A filled database, its snapshot, and the lab made of it."""

    def __init__(self, engine: sa.Engine, lab: Any, taken: snapshot.Snapshot) -> None:
        self.engine = engine
        self.lab = lab
        self.taken = taken
        self._measured: dict[tuple[str, str], Measured] = {}

    def case(self, situation: Situation) -> prove.Case:
        samples = [
            Sample(situation.statement, values or None, settings=situation.settings) for values in situation.values
        ]

        def work(session: explain.Session) -> prove.Case:
            explained = [session.explain(sample) for sample in samples]
            catalog = Reader().read(session, explained[0].plan, explained[0].secured)
            seen = candidates.Seen.of([each.plan for each in explained], few=True)
            return prove.Case(
                samples[0], explained[0].plan, catalog, situation.name, role=situation.role, seen=seen,
                others=tuple(samples[1:]),
            )  # fmt: skip

        return explain.on_connection(self.engine, work)

    def advice(self, situation: Situation) -> list[prove.Advice]:
        case = self.case(situation)
        sampled = explain.on_connection(
            self.engine,
            lambda session: sampling.of_expressions(session, self.taken, case.candidates),
            explain.Limits(statement_seconds=10),
        )
        outcome = prove.prove(self.lab, [case], sampled)
        if outcome.withheld:
            raise AssertionError(f"{situation.name}: {outcome.withheld[0][1]}")
        return list(outcome.advice)

    def judge(self, situation: Situation) -> Verdict:
        """What came of the advice. Where figures speak against it, the least of several: the machine may be busy."""
        verdict = self._judged(situation, 1)
        return self._judged(situation, AGAIN) if verdict.outcome in ("missing", "useless") else verdict

    def _judged(self, situation: Situation, times: int) -> Verdict:
        before = self.least(situation, [], times)
        advised = self.advice(situation)
        existing = tuple(str(each.evidence.get("existing", "")) for each in map(prove._finding, advised))
        made = [each.target for one in advised for each in (one.candidate, *one.beside)]
        if made:
            after = self.least(situation, made, times)
            unused = tuple(target for number, target in enumerate(made) if f"truth_{number}" not in after.indexes)
            outcome = "useful" if not unused and after.halves(before) else "useless"
            return Verdict(situation, outcome, tuple(made), before, after, existing=existing, unused=unused)
        if situation.kind == "rewrite":
            return Verdict(situation, "silent", (), before)
        best: tuple[bool, Measured | None, list[str]] = (False, None, [])
        for targets in situation.tries:
            after = self.least(situation, targets, times)
            good = any(name.startswith("truth_") for name in after.indexes) and after.halves(before)
            if best[1] is None or (good, -after.clock) > (best[0], -best[1].clock):
                best = (good, after, targets)
        good, best_after, built = best
        outcome, tried = ("missing", "useful") if good else ("withheld", "useless")
        return Verdict(situation, outcome, (), before, best_after, tried, built=tuple(built))

    def least(self, situation: Situation, targets: list[str], times: int) -> Measured:
        """What `measure()` tells of that many takes at the least."""
        takes = [self.measure(situation, targets) for _ in range(times)]
        seconds, clock = min(take.seconds for take in takes), min(take.clock for take in takes)
        return replace(takes[-1], seconds=seconds, clock=clock)

    def measure(self, situation: Situation, targets: list[str]) -> Measured:
        """With the indexes of *targets* built, by the statement's first values; all is undone."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '512MB'")
            # Only expressions have statistics that are not there yet.
            tables = {
                target.split()[1] for target in targets if "((" in target or "(lower" in target or "(upper" in target
            }
            for number, target in enumerate(targets):
                connection.exec_driver_sql(f"CREATE INDEX truth_{number} {target.replace('%', '%%')}")
            for table in sorted(tables):
                connection.exec_driver_sql(f"ANALYZE {table}")
            for statement, _ in situation.settings:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")
            ((server,),) = connection.exec_driver_sql("SELECT pg_backend_pid()").all()
            runs, spent = [], []
            cursor = connection.connection.cursor()
            for number in range(SHORT_RUNS):
                began = _processor_seconds(server)
                cursor.execute(
                    f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {situation.statement}",
                    situation.values[0] or None,
                )
                ((found,),) = cursor.fetchall()
                runs.append((found if isinstance(found, list) else json.loads(found))[0])
                ended = _processor_seconds(server)
                spent.append(runs[-1]["Execution Time"] / 1000 if began is None or ended is None else ended - began)
                seconds = runs[-1]["Execution Time"] / 1000
                if seconds > LEAST_SECONDS and number + 1 >= (2 if seconds > LONG_SECONDS else RUNS):
                    break
            cursor.close()
            connection.rollback()
        warm = runs[1:]
        plan = warm[-1]["Plan"]
        return Measured(
            pages=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
            seconds=sum(spent[1:]) / len(warm),
            indexes=frozenset(_indexes(plan)),
            clock=min(run["Execution Time"] for run in warm) / 1000,
        )


def _processor_seconds(process: int) -> float | None:
    """That *process* has run so far: what it waited for others on the machine is not in it."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _indexes(plan: dict[str, Any]) -> list[str]:
    mine = [plan["Index Name"]] if "Index Name" in plan else []
    return mine + [name for child in plan.get("Plans", ()) for name in _indexes(child)]
