"""
The application: its sessions, its routes, and how it turns rows into JSON, which is where the lazy loads happen.

Two routes are written well, `GET /clients` and `GET /flows/{flow_id}/summary`: a profiler has nothing to say there.
"""

# ruff: noqa: D103 - in an application like this one the names are the documentation
from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from sqlprobe.demo import repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from sqlprobe.demo.models import AgentDiscoveredPatterns, Asset, CollectionFlow

Row = TypeVar("Row")


def create_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=20,
        max_overflow=30,
        pool_timeout=30,
        pool_recycle=3600,
        pool_pre_ping=True,
        connect_args={"server_settings": {"search_path": "migration, public"}},
    )


def create_app(engine: AsyncEngine) -> Starlette:
    app = Starlette(
        routes=[
            Route("/clients", clients),
            Route("/clients/{client_id}/active-flows", active_flows),
            Route("/dashboard", dashboard),
            Route("/flows", flows),
            Route("/flows/import", import_flows, methods=["POST"]),
            Route("/flows/{flow_id}", flow_detail),
            Route("/flows/{flow_id}/summary", flow_summary),
            Route("/engagements/{engagement_id}/assets", engagement_assets),
            Route("/assets", assets),
            Route("/assets/search", search_assets),
            Route("/discovery/{phase}", discovery),
            Route("/patterns/similar", similar_patterns, methods=["POST"]),
            Route("/patterns/ranked", ranked_patterns, methods=["POST"]),
            Route("/patterns/with-evidence", patterns_with_evidence),
            Route("/usage", usage),
            Route("/usage/costs", usage_costs),
        ]
    )
    app.state.sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False, autoflush=False)
    return app


@asynccontextmanager
async def get_db(request: Request) -> AsyncIterator[AsyncSession]:
    session: AsyncSession = request.app.state.sessions()
    try:
        await session.execute(text("SELECT 1"))  # health check
        yield session
    except Exception:
        await session.rollback()
        raise
    finally:
        await session.close()


async def authorise(session: AsyncSession, client_id: UUID) -> None:
    client = await repository.get_client(session, client_id)
    if client.industry == "blocked":
        raise HTTPException(403)


async def clients(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        found = await repository.list_clients_with_engagements(session)
        return Json([{"name": client.name, "engagements": [e.name for e in client.engagements]} for client in found])


async def active_flows(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        found = await repository.active_flows(session, UUID(request.path_params["client_id"]))
        return Json([flow_as_dict(flow) for flow in found])


async def dashboard(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        found = await repository.list_clients(session)
    rows = []
    for client in found[:20]:
        async with get_db(request) as session:
            rows.append(
                {
                    "client": client.name,
                    "flows": await repository.count_flows(session, client.id),
                    "active": await repository.count_active_flows(session, client.id),
                }
            )
    return Json(rows)


async def flows(request: Request) -> JSONResponse:
    client_id = UUID(request.query_params["client"])
    async with get_db(request) as session:
        await authorise(session, client_id)
        found = await repository.latest_flows(session, client_id)
        return Json([await flow_with_children(flow) for flow in found])


async def flow_with_children(flow: CollectionFlow) -> dict[str, Any]:
    responses = await flow.awaitable_attrs.questionnaire_responses
    gaps = await flow.awaitable_attrs.data_gaps
    return flow_as_dict(flow) | {
        "responses": [{"question": r.question_id, "answer": r.response_value.get("answer")} for r in responses],
        "open_gaps": sum(gap.resolution_status != "resolved" for gap in gaps),
    }


async def flow_detail(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        flow = or_404(await repository.get_flow(session, UUID(request.path_params["flow_id"])))
        return Json(await session.run_sync(lambda _: flow_in_full(flow)))


def flow_in_full(flow: CollectionFlow) -> dict[str, Any]:
    master = flow.master_flow
    return flow_as_dict(flow) | {
        "client": flow.engagement.client_account.name,
        "engagement": flow.engagement.name,
        "discoveries": [discovery.flow_name for discovery in master.discovery_flows] if master else [],
        "responses": len(flow.questionnaire_responses),
        "gaps": [gap.field_name for gap in flow.data_gaps],
        "collected": [data.platform for data in flow.collected_data],
    }


async def flow_summary(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        flow = or_404(await repository.get_flow_with_children(session, UUID(request.path_params["flow_id"])))
        return Json(
            flow_as_dict(flow)
            | {
                "engagement": flow.engagement.name,
                "responses": len(flow.questionnaire_responses),
                "gaps": len(flow.data_gaps),
            }
        )


async def import_flows(request: Request) -> JSONResponse:
    body = await request.json()
    async with get_db(request) as session:
        client_id, engagement_id = UUID(body["client_account_id"]), UUID(body["engagement_id"])
        return Json({"imported": await repository.import_flows(session, client_id, engagement_id, body["flows"])})


async def engagement_assets(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        engagement = or_404(await repository.get_engagement(session, UUID(request.path_params["engagement_id"])))
        latest = await repository.latest_assets(session, engagement.id)
        return Json(await session.run_sync(lambda _: [asset_in_full(asset) for asset in latest]))


def asset_in_full(asset: Asset) -> dict[str, Any]:
    return asset_as_dict(asset) | {
        "tags": [tag.tag for tag in asset.tags],
        "needs": [dependency.depends_on.name for dependency in asset.dependencies],
    }


async def assets(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        page = await repository.page_of_assets(session, int(request.query_params.get("page", "0")))
        return Json([asset_as_dict(asset) for asset in page])


async def search_assets(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        hits = await repository.search_assets(session, request.query_params["q"])
        return Json([asset_as_dict(asset) for asset in hits])


async def discovery(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        hits = await repository.discovery_flows_in(session, request.path_params["phase"])
        return Json([{"name": flow.flow_name, "state": flow.phase_state["current_phase"]} for flow in hits])


async def similar_patterns(request: Request) -> JSONResponse:
    body = await request.json()
    async with get_db(request) as session:
        hits = await repository.find_similar_patterns(session, body["embedding"], UUID(body["client_account_id"]))
        return Json([pattern_as_dict(pattern) for pattern in hits])


async def ranked_patterns(request: Request) -> JSONResponse:
    body = await request.json()
    async with get_db(request) as session:
        hits = await repository.rank_patterns(session, body["embedding"])
        return Json([pattern_as_dict(pattern) | {"similarity": similarity} for pattern, similarity in hits])


async def patterns_with_evidence(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        return Json([pattern_as_dict(pattern) for pattern in await repository.patterns_with_evidence(session)])


async def usage(request: Request) -> JSONResponse:
    query = request.query_params
    client_id = UUID(query["client"])
    async with get_db(request) as session:
        await authorise(session, client_id)
        client = await repository.get_client(session, client_id)
        logs = await repository.usage_between(
            session,
            client_id,
            UUID(query["engagement"]),
            datetime.fromisoformat(query["since"]),
            datetime.fromisoformat(query["until"]),
        )
        return Json({"client": client.name, "calls": len(logs), "cost": sum(log.total_cost for log in logs)})


async def usage_costs(request: Request) -> JSONResponse:
    async with get_db(request) as session:
        return Json([row._asdict() for row in await repository.costs_by_month(session)])


def flow_as_dict(flow: CollectionFlow) -> dict[str, Any]:
    return {"id": flow.flow_id, "name": flow.flow_name, "status": flow.status, "created_at": flow.created_at}


def asset_as_dict(asset: Asset) -> dict[str, Any]:
    return {"id": asset.id, "name": asset.name, "type": asset.asset_type, "environment": asset.environment}


def pattern_as_dict(pattern: AgentDiscoveredPatterns) -> dict[str, Any]:
    return {
        "name": pattern.pattern_name,
        "type": pattern.insight_type,
        "evidence": pattern.pattern_data.get("evidence"),
    }


def or_404(row: Row | None) -> Row:
    if row is None:
        raise HTTPException(404)
    return row


class Json(JSONResponse):
    """Takes what rows hold: identifiers, times and decimals become text."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, default=str).encode()
