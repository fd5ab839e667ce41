"""
Plans: what PostgreSQL does with a statement, read on a connection of our own, and what is wrong with it.

To follow one: `sampling` keeps a statement with its values, `explain` asks for its plan, `plan` holds that and
`conditions` what its conditions say, `catalog` knows the relations in it, `rules` judge, `judge` makes findings.
"""
