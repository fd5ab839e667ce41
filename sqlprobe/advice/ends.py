"""
The least and the greatest values of columns as they are now, for histograms that ANALYZE made a while ago.

Where a range goes beyond the histogram, the planner looks the end up in an index (`get_actual_variable_range()`), and
takes it for the histogram's. A lab has no rows to look at: it gets histograms that end where the columns do.

Only an index that is used, or that a constraint has, is asked: it counts who reads it, and one that nobody uses must
stay known as that.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sqlprobe.advice.candidates import quoted
from sqlprobe.plans.explain import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlprobe.advice.snapshot import Statistic
    from sqlprobe.plans.explain import Session

MOST: Final = 2_000  # columns: two look-ups in an index each
_BATCH: Final = 50  # of one statement
_MILLISECONDS: Final = 1_000  # that one statement may take: dead rows at the end of an index are all walked past
_elements: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^,{}]+', re.DOTALL).findall


def brought_up_to_date(session: Session, statistics: Sequence[Statistic]) -> list[Statistic]:
    """
    *statistics* with the first and last bounds of histograms as an index tells them now; what cannot be read stays.

    Raises:
        Refused: the server is away.
    """
    kept = list(statistics)
    with_bounds = {
        (each.schema, each.relation, each.column): number
        for number, each in enumerate(kept)
        if each.histogram_bounds and not each.inherited
    }
    (led,) = session.read(_LED)
    labels = [(str(schema), str(table), str(column)) for schema, table, column in led]
    wanted = [label for label in labels if label in with_bounds]
    for start in range(0, min(len(wanted), MOST), _BATCH):
        batch = wanted[start : start + _BATCH]
        try:
            _, ends = session.read(f"SELECT set_config('statement_timeout', '{_MILLISECONDS}', true)", _question(batch))
        except Refused as refused:
            if refused.reason == "unavailable":
                raise
            continue
        for number, least, greatest in ends:
            place = with_bounds[batch[int(number)]]
            if least is not None and greatest is not None:
                bounds = _between(str(least), str(kept[place].histogram_bounds), str(greatest))
                kept[place] = replace(kept[place], histogram_bounds=bounds)
    return kept


def _question(labels: Iterable[tuple[str, str, str]]) -> str:
    parts = []
    for number, (schema, table, column) in enumerate(labels):
        name = f"x.{quoted(column)}"  # not by itself: ORDER BY would take the text for it
        rows = f"FROM ONLY {quoted(schema)}.{quoted(table)} x WHERE {name} IS NOT NULL ORDER BY {name}"
        parts.append(
            f"SELECT {number}, (SELECT {name}::text {rows} LIMIT 1), (SELECT {name}::text {rows} DESC LIMIT 1)"
        )
    return " UNION ALL ".join(parts)


def _between(least: str, bounds: str, greatest: str) -> str:
    """The array *bounds*, as PostgreSQL prints it, with other first and last elements."""
    inner = _elements(bounds)[1:-1]
    ends = ['"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in (least, greatest)]
    return "{" + ",".join([ends[0], *inner, ends[1]]) + "}"


# Columns that lead B-trees of the column's own order, whole and used, which the role may read, all rows of them.
_LED: Final = """
SELECT n.nspname::text, c.relname::text, a.attname::text
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0] AND o.opcdefault
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND i.indisvalid AND i.indisready AND i.indpred IS NULL AND i.indcollation[0] = a.attcollation
    AND NOT pg_catalog.row_security_active(c.oid) AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
GROUP BY n.nspname, c.relname, a.attname
HAVING bool_and(pg_catalog.pg_stat_get_numscans(i.indexrelid) > 0
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')))
ORDER BY 1, 2, 3
"""
