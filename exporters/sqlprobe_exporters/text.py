"""
The text formats of Prometheus, written from a reading at once: a tenth of what a client library takes for it, while it
holds the interpreter's lock.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from sqlprobe_exporters.metrics import METRICS, Histogram, Labels, Metric, Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlprobe_exporters.exemplars import Exemplar

_MAX_CACHED: Final = 20_000  # series; as many as a careless configuration has
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def edge(bound: float) -> str:
    """A bucket's upper bound as Prometheus' clients write it: "0.05", "1.0"."""
    return repr(float(bound))


class Renderer:
    """Remembers the text of labels between scrapes: they seldom change."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, Labels], tuple[str, ...]] = {}

    def render(
        self,
        reading: Reading,
        *,
        openmetrics: bool = False,
        exemplars: Callable[[str, str], dict[int, Exemplar]] | None = None,
    ) -> str:
        """
        *reading* in Prometheus' text format 0.0.4, or as OpenMetrics without its last line "# EOF".

        *exemplars* gives those of an engine and fingerprint; OpenMetrics only has them.
        """
        parts: list[str] = []
        if len(self._series) > _MAX_CACHED:
            self._series.clear()
        for metric in METRICS:
            values = reading.get(metric.name)
            if not values:
                continue
            parts.append(_head(metric, openmetrics=openmetrics))
            for labels, value in values.items():
                names = self._series.get((metric.name, labels)) or self._names(metric, labels)
                if isinstance(value, Histogram):
                    counts = list(accumulate(value.buckets))
                    found = exemplars(labels[0], labels[1]) if exemplars and metric.labels[1:2] == _HAS else None
                    if found:
                        parts.extend(
                            f"{name}{number}{_exemplar(found[index])}\n" if index in found else f"{name}{number}\n"
                            for index, (name, number) in enumerate(zip(names, counts, strict=False))
                        )
                    else:
                        parts.extend([f"{name}{number}\n" for name, number in zip(names, counts, strict=False)])
                    parts.append(f"{names[-2]}{counts[-1]}\n{names[-1]}{value.sum!r}\n")
                else:
                    parts.append(f"{names[0]}{value!r}\n")
        return "".join(parts)

    def _names(self, metric: Metric, labels: Labels) -> tuple[str, ...]:
        """The beginnings of a series' lines: of its buckets, its count and its sum, or of its one sample."""
        pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(metric.labels, labels, strict=True)]
        whole = f"{{{','.join(pairs)}}}" if pairs else ""
        if metric.kind == "histogram":
            edges = [*map(edge, metric.bounds), "+Inf"]
            start = "".join(f"{pair}," for pair in pairs)
            names = [f'{metric.name}_bucket{{{start}le="{each}"}} ' for each in edges]
            names += [f"{metric.name}_count{whole} ", f"{metric.name}_sum{whole} "]
        else:
            names = [f"{metric.samples[0]}{whole} "]
        self._series[metric.name, labels] = tuple(names)
        return tuple(names)


_HAS: Final = ("fingerprint",)


def _head(metric: Metric, *, openmetrics: bool) -> str:
    if not openmetrics:
        name = metric.samples[0] if metric.kind == "counter" else metric.name
        return f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    unit = f"# UNIT {metric.name} {metric.unit}\n" if metric.unit else ""
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n{unit}"


def _exemplar(told: Exemplar) -> str:
    labels = f'trace_id="{told.trace_id}",span_id="{told.span_id}"'
    return f" # {{{labels}}} {told.seconds!r} {told.timestamp:.3f}"
