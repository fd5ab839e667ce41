"""
Finished spans at a third of the SDK's price, where what the SDK would do is known beforehand.

`Tracer.start_span()` and `Span.end()` ask the sampler, copy and check each attribute, and lock for changes that a span
made after the fact never sees. Where the sampler keeps every child of a sampled span, and no span processor looks at
spans that start, the outcome is certain: a `ReadableSpan` for the processors. Everything else goes the usual way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.trace import SpanKind

_UNSET: Final = Status(StatusCode.UNSET)
_KEPT: Final = 0x03  # of a parent's flags: sampled, and that its trace id is random


class Direct:
    """For one tracer; made by `direct_of()`."""

    __slots__ = ("_ids", "_limits", "_multi", "_processors", "_scope", "_span", "_tracer", "bound")

    def __init__(self, tracer: Any, processors: tuple[Any, ...]) -> None:
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import ReadableSpan

        self._tracer = tracer
        self._multi = tracer.span_processor
        self._processors = processors
        self._ids = tracer.id_generator
        self._scope = tracer._instrumentation_scope  # noqa: SLF001 - checked by direct_of()
        self._limits = tracer._span_limits  # noqa: SLF001 - as above
        self._span = ReadableSpan
        self.bound = BoundedAttributes

    def serves(self) -> bool:
        """Whether everything is still as it was."""
        return self._multi._span_processors is self._processors and self._tracer._is_enabled()  # noqa: SLF001

    def attributes(self, values: dict[str, Any]) -> Any:
        """*values* within the provider's limits, for any number of spans."""
        limits = self._limits
        return self.bound(
            limits.max_span_attributes, values, immutable=True, max_value_len=limits.max_span_attribute_length
        )

    def emit(
        self, name: str, kind: SpanKind, attributes: Any, parent: SpanContext, start_ns: int, end_ns: int
    ) -> SpanContext:
        """A span below *parent*, which is sampled."""
        flags = TraceFlags(parent.trace_flags & _KEPT)
        context = SpanContext(parent.trace_id, self._ids.generate_span_id(), False, flags, parent.trace_state)  # noqa: FBT003
        span = self._span(
            name,
            context=context,
            parent=parent,
            resource=self._tracer.resource,
            attributes=attributes,
            kind=kind,
            status=_UNSET,
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=self._scope,
        )
        self._multi.on_end(span)
        return context


def direct_of(tracer: Any, mine: Any) -> Direct | None:
    """
    The short way for *tracer*; None where it is not certain to come out the same.

    *mine* is the class of a processor of ours, which looks at no span that starts.
    """
    try:
        from opentelemetry.sdk import trace as sdk
        from opentelemetry.sdk.trace import export
        from opentelemetry.sdk.trace.sampling import Decision, ParentBased, StaticSampler

        def keeps(sampler: Any) -> bool:
            return type(sampler) is StaticSampler and sampler._decision is Decision.RECORD_AND_SAMPLE  # noqa: SLF001

        if type(tracer) is not sdk.Tracer or type(tracer.span_processor) is not sdk.SynchronousMultiSpanProcessor:
            return None
        sampler = tracer.sampler
        if type(sampler) is ParentBased:
            kept = keeps(sampler._local_parent_sampled) and keeps(sampler._remote_parent_sampled)  # noqa: SLF001
        else:
            kept = keeps(sampler)
        processors = tracer.span_processor._span_processors  # noqa: SLF001
        blind = {
            kind.on_start for kind in (sdk.SpanProcessor, export.BatchSpanProcessor, export.SimpleSpanProcessor, mine)
        }
        if not kept or any(type(each).on_start not in blind for each in processors):
            return None
        direct = Direct(tracer, processors)
        return direct if direct.serves() else None
    except Exception:  # noqa: BLE001 - an SDK of another make: the usual way is always right
        return None
