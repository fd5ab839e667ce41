"""
Start-up: what `import sqlprobe` costs beyond `import sqlalchemy`: `python bench/imports.py`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
CODE = """
import time, sqlalchemy, sqlalchemy.engine, sqlalchemy.event
started = time.perf_counter()
import sqlprobe
print(time.perf_counter() - started)
"""


def main() -> int:
    times = [float(subprocess.check_output([sys.executable, "-c", CODE])) * 1000 for _ in range(ROUNDS)]
    print(f"import sqlprobe: {statistics.median(times):.1f} ms beyond SQLAlchemy's own import ({ROUNDS} processes)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
