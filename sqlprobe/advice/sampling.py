"""
Statistics of expressions that no index holds yet: from a sample of their table's rows, computed by the server.

PostgreSQL knows how often `lower(email)` or `doc ->> 'k'` has which value only once an index on it is there. Until
then it takes 0.5 % for an equality and a third for a range, so a lab without these would refuse good indexes and
recommend poor ones. The server is asked for a sample within a budget of time; values that come back are those that
`ANALYZE` would keep, and go nowhere but into the lab.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlprobe.advice.candidates import quoted
from sqlprobe.advice.lab import sample_key
from sqlprobe.advice.snapshot import Statistic
from sqlprobe.plans import explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlprobe.advice.candidates import Candidate, Key
    from sqlprobe.advice.snapshot import Snapshot, Table
    from sqlprobe.plans.explain import Session

BUDGET_SECONDS: Final = 5.0  # of all samples together; one takes 0.1 to 0.5 s
ROWS: Final = 30_000  # of a sample: as many as ANALYZE takes
VALUES: Final = 100  # most common ones, and bounds of a histogram, as by default_statistics_target


def of_expressions(
    session: Session, snapshot: Snapshot, candidates: Iterable[Candidate], seconds: float = BUDGET_SECONDS
) -> dict[str, Statistic]:
    """
    For `Lab.add()`: the statistics of each expression among the keys of *candidates*, until the *seconds* are used up.

    One that cannot be computed (no permission, a cast that fails on some row) is left out.
    """
    found: dict[str, Statistic] = {}
    ends = time.monotonic() + seconds
    asked: set[str] = set()
    for candidate in candidates:
        table = snapshot.table(candidate.schema, candidate.table)
        if table is None or candidate.method not in {"btree", "hash"}:
            continue
        for key in candidate.keys:
            name = sample_key(candidate, key)
            if not key.is_expression or name in asked or time.monotonic() >= ends:
                continue
            asked.add(name)
            try:
                ((rows,),) = (session.read(_question(table, key)),)
            except explain.Refused as refused:
                if refused.reason == "unavailable":
                    raise
                continue
            statistic = _statistic(candidate, key, table, rows[0])
            if statistic is not None:
                found[name] = statistic
    return found


def _question(table: Table, key: Key) -> str:
    rows = table.known_rows if table.known_rows > 0 else ROWS
    share = min(100.0, max(0.01, 100.0 * ROWS / max(rows, 1.0)))
    # The pages are drawn, not the rows: a tenth of the time, and what stands together is over-counted a little.
    return f"""
WITH s AS MATERIALIZED (
    SELECT {key.expression} AS v FROM ONLY {quoted(table.schema)}.{quoted(table.name)}
    TABLESAMPLE SYSTEM ({share:.4f}) LIMIT {ROWS * 2}
), g AS MATERIALIZED (SELECT v, count(*) AS n FROM s WHERE v IS NOT NULL GROUP BY v),
m AS (SELECT v, n FROM g WHERE n > 1 ORDER BY n DESC, v LIMIT {VALUES}),
h AS (SELECT v, n FROM g WHERE v NOT IN (SELECT v FROM m))
SELECT (SELECT count(*) FROM s), (SELECT count(*) FROM s WHERE v IS NULL),
    (SELECT count(*) FROM g), (SELECT count(*) FROM g WHERE n = 1),
    (SELECT coalesce(avg(pg_column_size(v)), 8)::float8 FROM g),
    (SELECT array_agg(v ORDER BY n DESC, v)::text FROM m),
    (SELECT array_agg(n ORDER BY n DESC, v)::text FROM m),
    CASE WHEN (SELECT count(*) FROM h) > 1 THEN (SELECT percentile_disc(
        ARRAY(SELECT i / {VALUES}.0 FROM generate_series(0, {VALUES}) i)::float8[]) WITHIN GROUP (ORDER BY v)::text
        FROM h) END
"""  # noqa: S608 - an expression that a plan has printed, and names in quotes


def _statistic(candidate: Candidate, key: Key, table: Table, row: Sequence[object]) -> Statistic | None:
    seen, nulls, different, once = (int(str(each)) for each in row[:4])
    width, values, counts, bounds = float(str(row[4])), row[5], row[6], row[7]
    known = seen - nulls
    if seen == 0:
        return None
    numbers = [int(each) for each in str(counts or "{}").strip("{}").split(",") if each]
    return Statistic(
        schema=candidate.schema,
        relation=candidate.table,
        column=key.expression,
        inherited=False,
        null_frac=nulls / seen,
        avg_width=max(1, round(width)),
        n_distinct=_distinct(known, different, once, max(table.known_rows, float(seen)) * known / seen),
        most_common_vals=str(values) if numbers else None,
        most_common_freqs="{" + ",".join(f"{n / seen:.6g}" for n in numbers) + "}" if numbers else None,
        histogram_bounds=str(bounds) if bounds is not None else None,
        correlation=0.0,
    )


def _distinct(sample: int, different: int, once: int, rows: float) -> float:
    """
    How many different values the table has, as `pg_stats.n_distinct`: negative where it is a share of the rows.

    Source: the estimator of Haas and Stokes that ANALYZE uses ("Duj1").
    """
    if sample <= 0 or different == 0:
        return 0.0
    if once == different:
        return -1.0
    if once == 0 or sample >= rows:
        found = float(different)
    else:
        found = sample * different / (sample - once + once * sample / rows)
    return -found / rows if found > 0.1 * rows else found
