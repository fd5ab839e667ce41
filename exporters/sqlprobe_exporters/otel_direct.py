"""
Finished spans at a third of the SDK's price, where what the SDK would do is known beforehand.

`Tracer.start_span()` and `Span.end()` ask the sampler, copy and check each attribute, and lock for changes that a span
made after the fact never sees. Where the sampler keeps every child of a sampled span, and no span processor looks at
spans that start, the outcome is certain: a `ReadableSpan` for the processors. Everything else goes the usual way.
"""

from __future__ import annotations

from contextvars import ContextVar
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNSET: Final = Status(StatusCode.UNSET)
# Of a parent's flags: sampled and, in an SDK that knows it, that its trace id is random.
_KEPT: Final = TraceFlags.SAMPLED | getattr(TraceFlags, "RANDOM_TRACE_ID", 0)
_FLAGS: Final = tuple(TraceFlags(flags) for flags in range(_KEPT + 1))
_PROBE: Final = SpanContext(1, 2, is_remote=False, trace_flags=_FLAGS[1])  # what an SDK's fields are found by
_LAID_OUT: Final = tuple(_PROBE) == (1, 2, False, _FLAGS[1], _PROBE.trace_state, True)  # a tuple, as we know it
# Half the price of the properties, which are Python's.
span_id_of: Final[Callable[[Any], int]] = itemgetter(1) if _LAID_OUT else attrgetter("span_id")
flags_of: Final[Callable[[Any], int]] = itemgetter(3) if _LAID_OUT else attrgetter("trace_flags")
is_valid: Final[Callable[[Any], bool]] = itemgetter(5) if _LAID_OUT else attrgetter("is_valid")
_BATCH_END: Final = ("context", "trace_flags", "sampled", "_batch_processor", "emit")
_new: Final = object.__new__
_tuple: Final = tuple.__new__


def context_reader() -> Callable[[], Mapping[str, Any]]:
    """What `opentelemetry.context.get_current` comes to, less two calls where the context is a ContextVar."""
    variable = getattr(getattr(otel_context, "_RUNTIME_CONTEXT", None), "_current_context", None)
    read: Callable[[], Mapping[str, Any]] = otel_context.get_current
    if isinstance(variable, ContextVar) and variable.get() is read():
        read = variable.get
    return read


class Direct:
    """For one tracer; made by `direct_of()`."""

    __slots__ = (
        "_ends",
        "_ids",
        "_is_enabled",
        "_limits",
        "_multi",
        "_processors",
        "_scope",
        "_span",
        "_tracer",
        "bound",
    )

    def __init__(self, tracer: Any, processors: tuple[Any, ...], mine: Any) -> None:
        from opentelemetry.attributes import BoundedAttributes
        from opentelemetry.sdk.trace import ReadableSpan

        self._tracer = tracer
        self._multi = tracer.span_processor
        self._processors = processors
        # Ours flushes what is pending below the span that ends: nothing is below a statement's.
        self._ends = tuple(_end_of(each) for each in processors if type(each) is not mine)
        self._is_enabled = getattr(tracer, "_is_enabled", lambda: True)  # older tracers cannot be turned off
        self._ids = tracer.id_generator.generate_span_id
        self._scope = tracer._instrumentation_scope  # noqa: SLF001 - checked by direct_of()
        self._limits = tracer._span_limits  # noqa: SLF001 - as above
        self._span = ReadableSpan
        self.bound = BoundedAttributes

    def serves(self) -> bool:
        """Whether everything is still as it was."""
        return self._multi._span_processors is self._processors and self._is_enabled()  # noqa: SLF001

    def template(self, name: str, kind: SpanKind, values: dict[str, Any]) -> dict[str, Any]:
        """
        The fields of every span of one statement from one line, *values* within the provider's limits.

        Raises:
            ValueError: this SDK's spans keep their fields otherwise.
        """
        limits = self._limits
        attributes = self.bound(
            limits.max_span_attributes, values, immutable=True, max_value_len=limits.max_span_attribute_length
        )
        span = self._span(
            name,
            context=_PROBE,
            parent=_PROBE,
            resource=self._tracer.resource,
            attributes=attributes,
            kind=kind,
            status=_UNSET,
            start_time=-1,
            end_time=-2,
            instrumentation_scope=self._scope,
        )
        fields = dict(vars(span))
        found = [fields.get(field) for field in ("_context", "_parent", "_start_time", "_end_time")]
        if found != [_PROBE, _PROBE, -1, -2]:
            raise ValueError(found)
        return fields

    def emit(self, template: dict[str, Any], parent: SpanContext, start_ns: int, end_ns: int) -> SpanContext:
        """A span below *parent*, which is sampled."""
        trace_id, _, _, flags, state, _ = parent
        context: SpanContext = _tuple(SpanContext, (trace_id, self._ids(), False, _FLAGS[flags & _KEPT], state, True))
        span = _new(self._span)
        span.__dict__ = {
            **template,
            "_context": context,
            "_parent": parent,
            "_start_time": start_ns,
            "_end_time": end_ns,
        }
        for on_end in self._ends:
            on_end(span)
        return context


def _end_of(processor: Any) -> Callable[[Any], None]:
    """Its `on_end`; of a batch processor what that does for a span that is sampled, which these are."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own: Callable[[Any], None] = processor.on_end
    if type(processor) is BatchSpanProcessor and "on_end" not in vars(processor):
        emit = getattr(getattr(processor, "_batch_processor", None), "emit", None)
        # One of another make, or patched: by the names that its code uses.
        if emit is not None and BatchSpanProcessor.on_end.__code__.co_names == _BATCH_END:
            return emit  # type: ignore[no-any-return]
    return own


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
        if not _LAID_OUT:
            return None
        direct = Direct(tracer, processors, mine)
        direct.template("", SpanKind.CLIENT, {})
        return direct if direct.serves() else None
    except Exception:  # noqa: BLE001 - an SDK of another make: the usual way is always right
        return None
