"""
Options: what an audit takes for granted, and from which numbers on it speaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Matters of taste: told only where they are asked for.
STYLE: Final = frozenset({"enum-and-check"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What an audit is told.

    Attributes:
        tenants: names of the columns that say whose a row is; empty: inferred from what several tables share.
        natural_keys: columns (`countries.code`) that are meant to be referred to although they are no primary key.
        enabled: rules of taste to apply all the same.
        disabled: rules that say nothing.
        unused_days: statistics younger than this do not tell that an index is unused.
        unused_bytes: size from which on an index without use is told.
        few_rows: tables with fewer are scanned as fast as they are looked up in.
        migrations: number of migrations from which on squashing is advised; half of it is told as information.
        keep_days: migrations younger than this, counted from the youngest, are not to be squashed.
    """

    tenants: tuple[str, ...] = ()
    natural_keys: tuple[str, ...] = ()
    enabled: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    unused_days: float = 30.0
    unused_bytes: int = 1 << 20  # below a megabyte an index costs less than the talk about it
    few_rows: int = 10_000
    migrations: int = 100
    keep_days: float = 180.0

    def wants(self, rule: str) -> bool:
        return rule not in self.disabled and (rule not in STYLE or rule in self.enabled)
