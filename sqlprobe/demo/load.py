"""The users: a fixed sequence of requests, a few at a time, through ASGI and without a network."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from sqlprobe.demo.data import CLIENTS, ENGAGEMENTS_EACH, key
from sqlprobe.demo.models import EMBEDDING_DIMENSIONS
from sqlprobe.model import SqlprobeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp

CONCURRENCY = 4  # one event loop, one processor: more of them would only wait for one another
PATIENCE = 60.0  # seconds for one request; the slowest takes less than one


@dataclass(frozen=True, slots=True)
class Call:
    """A request to be sent; `route` is the template that will serve it."""

    route: str
    path: str
    method: str = "GET"
    body: dict[str, Any] | None = None


class LoadError(SqlprobeError):
    """A request was not answered with 200."""


def calls(count: int, flows: int) -> list[Call]:
    """*count* requests, each route among the first 16 of them; *flows* is the number of collection flows."""
    # Seeded, and not for secrets: two demos show the same requests.
    chance = random.Random(20251108)  # noqa: S311
    makers: Sequence[tuple[int, Callable[[random.Random, int], Call]]] = (
        (10, _flows),
        (12, _flow_detail),
        (12, _flow_summary),
        (12, _active_flows),
        (8, _clients),
        (2, _dashboard),
        (2, _import_flows),
        (5, _engagement_assets),
        (8, _assets),
        (6, _search),
        (6, _discovery),
        (8, _similar),
        (4, _ranked),
        (4, _evidence),
        (8, _usage),
        (1, _costs),
    )
    weighted = chance.choices([make for _, make in makers], [weight for weight, _ in makers], k=count)
    return [make(chance, flows) for make in [*(make for _, make in makers), *weighted][:count]]


async def drive(app: ASGIApp, sequence: Sequence[Call], answered: Callable[[Call, Any], None]) -> None:
    """
    Send *sequence* to *app*, `CONCURRENCY` at a time; *answered* gets each request with the JSON of its answer.

    Raises:
        LoadError: an answer was not 200; the rest is not sent.
    """
    waiting = iter(sequence)
    transport = httpx.ASGITransport(app=app)

    async def user(client: httpx.AsyncClient) -> None:
        for call in waiting:
            response = await client.request(call.method, call.path, json=call.body)
            if response.status_code != httpx.codes.OK:
                raise LoadError(f"{call.method} {call.path} was answered with {response.status_code}: {response.text}")
            answered(call, response.json())

    try:
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://demo", timeout=PATIENCE) as client,
            asyncio.TaskGroup() as users,
        ):
            for _ in range(CONCURRENCY):
                users.create_task(user(client))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _tenant(chance: random.Random) -> int:
    return math.floor(CLIENTS * chance.random() ** 3)


def _engagement(chance: random.Random, tenant: int) -> int:
    return tenant * ENGAGEMENTS_EACH + chance.randrange(ENGAGEMENTS_EACH)


def _embedding(chance: random.Random) -> list[float]:
    subject = chance.randrange(50) + 1
    return [round(math.sin(subject * d) + 0.4 * chance.random(), 4) for d in range(1, EMBEDDING_DIMENSIONS + 1)]


def _clients(_: random.Random, __: int) -> Call:
    return Call("/clients", "/clients")


def _active_flows(chance: random.Random, _: int) -> Call:
    return Call("/clients/{client_id}/active-flows", f"/clients/{key('client', _tenant(chance))}/active-flows")


def _dashboard(_: random.Random, __: int) -> Call:
    return Call("/dashboard", "/dashboard")


def _flows(chance: random.Random, _: int) -> Call:
    return Call("/flows", f"/flows?client={key('client', _tenant(chance))}")


def _flow_detail(chance: random.Random, flows: int) -> Call:
    return Call("/flows/{flow_id}", f"/flows/{key('collection flow', chance.randrange(flows))}")


def _flow_summary(chance: random.Random, flows: int) -> Call:
    return Call("/flows/{flow_id}/summary", f"/flows/{key('collection flow', chance.randrange(flows))}/summary")


def _import_flows(chance: random.Random, _: int) -> Call:
    tenant = _tenant(chance)
    body = {
        "client_account_id": str(key("client", tenant)),
        "engagement_id": str(key("engagement", _engagement(chance, tenant))),
        "flows": [{"name": f"Imported {n}"} for n in range(25)],
    }
    return Call("/flows/import", "/flows/import", "POST", body)


def _engagement_assets(chance: random.Random, _: int) -> Call:
    engagement = key("engagement", _engagement(chance, _tenant(chance)))
    return Call("/engagements/{engagement_id}/assets", f"/engagements/{engagement}/assets")


def _assets(chance: random.Random, _: int) -> Call:
    return Call("/assets", f"/assets?page={chance.choice([0, 1, 2, 300, 600, 900])}")


def _search(chance: random.Random, _: int) -> Call:
    subject = chance.choice(["number 4821", "osaka, number 777", "payroll in perth, number 1234"])
    return Call("/assets/search", f"/assets/search?q={subject}")


def _discovery(chance: random.Random, _: int) -> Call:
    phase = chance.choice(["dependency_analysis", "data_cleansing"])
    return Call("/discovery/{phase}", f"/discovery/{phase}")


def _similar(chance: random.Random, _: int) -> Call:
    body = {"client_account_id": str(key("client", _tenant(chance))), "embedding": _embedding(chance)}
    return Call("/patterns/similar", "/patterns/similar", "POST", body)


def _ranked(chance: random.Random, _: int) -> Call:
    return Call("/patterns/ranked", "/patterns/ranked", "POST", {"embedding": _embedding(chance)})


def _evidence(_: random.Random, __: int) -> Call:
    return Call("/patterns/with-evidence", "/patterns/with-evidence")


def _usage(chance: random.Random, _: int) -> Call:
    tenant = _tenant(chance)
    month = chance.randrange(1, 10)
    query = {
        "client": str(key("client", tenant)),
        "engagement": str(key("engagement", _engagement(chance, tenant))),
        "since": f"2025-{month:02}-01T00:00:00Z",
        "until": f"2025-{month + 1:02}-01T00:00:00Z",
    }
    return Call("/usage", f"/usage?{httpx.QueryParams(query)}")


def _costs(_: random.Random, __: int) -> Call:
    return Call("/usage/costs", "/usage/costs")
