"""
Where sqlprobe's numbers go: one module an exporter, each reading the public names of `sqlprobe` and nothing below them.

An exporter is found through the entry-point group `sqlprobe.exporters`, so that others can ship theirs.
"""
