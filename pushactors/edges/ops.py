"""The operations endpoint: small answers over HTTP for whoever runs the server. Nothing secret.

1. `/healthz`: the process turns. `/readyz`: it takes visits; 503 while it starts or drains. `/metrics`: what was
   counted, and what is now, in the Prometheus text format.
2. One request per connection, of bounded size, in bounded time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import h11
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from pushactors.actors.tally import Tally
from pushactors.edges.stream import BROKEN, Stream

PREFIX = "pushactors_"
WITHIN_S = 5.0
PLAIN = "text/plain; charset=utf-8"


class Operations:
    """See the law on top. `now`: what is counted afresh at each look, by name."""

    def __init__(self, tally: Tally, is_ready: Callable[[], bool], now: Callable[[], Mapping[str, int]]) -> None:
        self._tally = tally
        self._is_ready = is_ready
        self._now = now
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def serve(self, stream: Stream) -> None:
        """Answers one request and closes."""
        with trio.move_on_after(WITHIN_S):
            peer = h11.Connection(h11.SERVER, max_incomplete_event_size=8_192)
            try:
                request = await _request(stream, peer)
            except h11.RemoteProtocolError as fault:
                _put(stream, peer, fault.error_status_hint, PLAIN, b"This is not an HTTP request.\n")
            except BROKEN:
                pass  # it went away without a question
            else:
                _put(stream, peer, *self._answer(request), is_head=request.method == b"HEAD")
            await stream.flushed()
        with trio.CancelScope(shield=True):
            await stream.aclose()

    def _answer(self, request: h11.Request) -> tuple[int, str, bytes]:
        if request.method not in (b"GET", b"HEAD"):
            return 405, PLAIN, b"GET only.\n"
        match request.target.partition(b"?")[0]:
            case b"/healthz":
                return 200, PLAIN, b"ok\n"
            case b"/readyz":
                return (200, PLAIN, b"ready\n") if self._is_ready() else (503, PLAIN, b"not ready\n")
            case b"/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case _:
                return 404, PLAIN, b"There are /healthz, /readyz and /metrics.\n"

    def collect(self) -> Iterable[Metric]:
        """For the registry, at each look."""
        counters: dict[str, CounterMetricFamily] = {}
        for name, label, count in self._tally:
            labels = ["kind"] if label else []
            counter = counters.setdefault(
                name, CounterMetricFamily(PREFIX + name, f"{name.replace('_', ' ')}.", labels=labels)
            )
            counter.add_metric([label] if label else [], count)
        yield from counters.values()
        for name, value in sorted(self._now().items()):
            yield GaugeMetricFamily(PREFIX + name, f"{name.replace('_', ' ')}, now.", value=value)


async def _request(stream: Stream, peer: h11.Connection) -> h11.Request:
    """Raises `h11.RemoteProtocolError`, or one of `BROKEN` if the peer goes away."""
    while (event := peer.next_event()) is h11.NEED_DATA:
        peer.receive_data(await stream.receive())
    if not isinstance(event, h11.Request):
        raise trio.BrokenResourceError
    return event


def _put(
    stream: Stream, peer: h11.Connection, status: int, content_type: str, body: bytes, is_head: bool = False
) -> None:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
    events = [h11.Response(status_code=status, headers=headers), h11.EndOfMessage()]
    if not is_head:
        events.insert(1, h11.Data(data=body))
    for event in events:
        stream.put(peer.send(event) or b"")
