"""
Advice: which index would mend a plan, and whether it really would.

`candidates` reads them off a plan's conditions, `snapshot` holds what the planner knows of a database (its schema, its
statistics and sizes, none of its rows), `lab` plans with that on a throwaway server, `prove` ties them together.
"""
