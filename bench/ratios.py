"""
The hot functions beside what they cost when `bench/ratios.json` was written: `python bench/ratios.py [--write]`.

Runs the pytest-benchmark suite `bench/test_hot_path.py` and prints each function's minimum as a multiple of the
calibration loop's, which holds between machines as microseconds do not, and the change since. It never fails for a
figure: on a shared machine a slow minute is no fault of the code. `--write` makes this run the baseline.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "ratios.json"
CALIBRATION = "test_calibration"
NOTABLE = 1.25  # times the baseline; less is noise


def run() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.json"
        plugins = [
            part for name in ("asyncio", "randomly", "rerunfailures", "sqlprobe") for part in ("-p", f"no:{name}")
        ]
        command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib", *plugins]
        options = [f"--benchmark-json={path}", "--benchmark-max-time=0.5", "--benchmark-quiet"]
        done = subprocess.run([*command, *options, str(HERE / "test_hot_path.py")], check=False, cwd=HERE.parent)
        if done.returncode:
            sys.exit(done.returncode)
        least = {each["name"]: each["stats"]["min"] for each in json.loads(path.read_text())["benchmarks"]}
    return {name: seconds / least[CALIBRATION] for name, seconds in least.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make this run the baseline")
    options = parser.parse_args()
    ratios = run()
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    print("\n| function | calibration loops | baseline | change |\n|---|---:|---:|---:|")
    for name, ratio in sorted(ratios.items()):
        if name == CALIBRATION:
            continue
        before = known.get(name)
        change = "" if before is None else f"{ratio / before - 1:+.0%}{' *' if ratio > before * NOTABLE else ''}"
        print(f"| {name.removeprefix('test_')} | {ratio:,.3f} | {before or 0:,.3f} | {change} |")
    if options.write:
        BASELINE.write_text(
            json.dumps({name: round(ratio, 4) for name, ratio in sorted(ratios.items())}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
