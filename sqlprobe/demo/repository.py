"""The application's queries, as the review found them: they are right, and were fast with a hundred rows."""

# ruff: noqa: D103 - in an application like this one the names are the documentation
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import joinedload, selectinload

from sqlprobe.demo.models import (
    AgentDiscoveredPatterns,
    Asset,
    ClientAccount,
    CollectionDataGap,
    CollectionFlow,
    DiscoveryFlow,
    Engagement,
    LLMUsageLog,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

ACTIVE = ("active", "running", "paused")


async def get_client(session: AsyncSession, client_id: UUID) -> ClientAccount:
    return (await session.scalars(select(ClientAccount).where(ClientAccount.id == client_id))).one()


async def list_clients(session: AsyncSession) -> Sequence[ClientAccount]:
    return (await session.scalars(select(ClientAccount).order_by(ClientAccount.name))).all()


async def list_clients_with_engagements(session: AsyncSession) -> Sequence[ClientAccount]:
    statement = select(ClientAccount).options(selectinload(ClientAccount.engagements)).order_by(ClientAccount.name)
    return (await session.scalars(statement)).all()


async def latest_flows(session: AsyncSession, client_id: UUID, limit: int = 50) -> Sequence[CollectionFlow]:
    statement = (
        select(CollectionFlow)
        .where(CollectionFlow.client_account_id == client_id)
        .order_by(CollectionFlow.created_at.desc())
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def active_flows(session: AsyncSession, client_id: UUID, limit: int = 50) -> Sequence[CollectionFlow]:
    statement = (
        select(CollectionFlow)
        .where(CollectionFlow.client_account_id == client_id, CollectionFlow.status.in_(ACTIVE))
        .order_by(CollectionFlow.created_at.desc())
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def get_flow(session: AsyncSession, flow_id: UUID) -> CollectionFlow | None:
    return (await session.scalars(select(CollectionFlow).where(CollectionFlow.flow_id == flow_id))).one_or_none()


async def get_flow_with_children(session: AsyncSession, flow_id: UUID) -> CollectionFlow | None:
    statement = (
        select(CollectionFlow)
        .where(CollectionFlow.flow_id == flow_id)
        .options(
            joinedload(CollectionFlow.engagement),
            selectinload(CollectionFlow.questionnaire_responses),
            selectinload(CollectionFlow.data_gaps),
        )
    )
    return (await session.scalars(statement)).one_or_none()


async def import_flows(
    session: AsyncSession, client_id: UUID, engagement_id: UUID, rows: Sequence[dict[str, Any]]
) -> int:
    for row in rows:
        flow = CollectionFlow(
            client_account_id=client_id,
            engagement_id=engagement_id,
            user_id="importer",
            flow_name=row["name"],
            status="active",
            automation_tier="tier_1",
        )
        session.add(flow)
        await session.flush()
        session.add(CollectionDataGap(collection_flow=flow, field_name="owner", priority=1, resolution_status="open"))
        await session.flush()
    await session.commit()
    return len(rows)


async def count_flows(session: AsyncSession, client_id: UUID) -> int:
    statement = select(func.count()).select_from(CollectionFlow).where(CollectionFlow.client_account_id == client_id)
    return (await session.scalars(statement)).one()


async def count_active_flows(session: AsyncSession, client_id: UUID) -> int:
    statement = (
        select(func.count())
        .select_from(CollectionFlow)
        .where(CollectionFlow.client_account_id == client_id, CollectionFlow.status.in_(ACTIVE))
    )
    return (await session.scalars(statement)).one()


async def discovery_flows_in(session: AsyncSession, phase: str) -> Sequence[DiscoveryFlow]:
    statement = (
        select(DiscoveryFlow)
        .where(DiscoveryFlow.phase_state["current_phase"].astext == phase)
        .order_by(DiscoveryFlow.created_at.desc())
    )
    return (await session.scalars(statement)).all()


async def latest_assets(session: AsyncSession, engagement_id: UUID, limit: int = 40) -> Sequence[Asset]:
    statement = select(Asset).where(Asset.engagement_id == engagement_id).order_by(Asset.name).limit(limit)
    return (await session.scalars(statement)).all()


async def page_of_assets(session: AsyncSession, page: int, size: int = 50) -> Sequence[Asset]:
    return (await session.scalars(select(Asset).order_by(Asset.name).offset(page * size).limit(size))).all()


async def search_assets(session: AsyncSession, words: str) -> Sequence[Asset]:
    statement = select(Asset).where(Asset.description.ilike(f"%{words}%")).limit(50)
    return (await session.scalars(statement)).all()


async def usage_between(
    session: AsyncSession, client_id: UUID, engagement_id: UUID, since: datetime, until: datetime
) -> Sequence[LLMUsageLog]:
    statement = select(LLMUsageLog).where(
        LLMUsageLog.client_account_id == client_id,
        LLMUsageLog.engagement_id == engagement_id,
        LLMUsageLog.created_at.between(since, until),
    )
    return (await session.scalars(statement)).all()


async def costs_by_month(session: AsyncSession) -> Sequence[Any]:
    month = func.date_trunc("month", LLMUsageLog.created_at)
    statement = (
        select(
            ClientAccount.name,
            month.label("month"),
            func.count(func.distinct(LLMUsageLog.user_id)).label("users"),
            func.sum(LLMUsageLog.total_cost).label("cost"),
            func.percentile_cont(0.95).within_group(LLMUsageLog.response_time_ms).label("p95_ms"),
        )
        .join(ClientAccount, ClientAccount.id == LLMUsageLog.client_account_id)
        .group_by(ClientAccount.name, month)
        .order_by(ClientAccount.name, month)
    )
    return (await session.execute(statement)).all()


async def find_similar_patterns(
    session: AsyncSession,
    query_embedding: list[float],
    client_id: UUID,
    insight_type: str | None = None,
    limit: int = 10,
    similarity_threshold: float = 0.7,
) -> list[AgentDiscoveredPatterns]:
    statement = select(AgentDiscoveredPatterns).where(
        AgentDiscoveredPatterns.client_account_id == client_id, AgentDiscoveredPatterns.embedding.is_not(None)
    )
    if insight_type:
        statement = statement.where(AgentDiscoveredPatterns.insight_type == insight_type)
    statement = statement.order_by(text(f"embedding <=> ARRAY{query_embedding}::vector")).limit(limit)

    results = []
    for pattern in await session.scalars(statement):
        if pattern.embedding is not None and similarity(pattern.embedding, query_embedding) >= similarity_threshold:
            results.append(pattern)  # noqa: PERF401 - as the review found it
    return results


async def rank_patterns(session: AsyncSession, query_embedding: list[float], limit: int = 10) -> Sequence[Any]:
    distance = AgentDiscoveredPatterns.embedding.cosine_distance(query_embedding)
    score = (1 - distance).label("similarity")
    return (await session.execute(select(AgentDiscoveredPatterns, score).order_by(score.desc()).limit(limit))).all()


async def patterns_with_evidence(session: AsyncSession) -> Sequence[AgentDiscoveredPatterns]:
    statement = select(AgentDiscoveredPatterns).where(AgentDiscoveredPatterns.pattern_data["evidence"].is_not(None))
    return (await session.scalars(statement)).all()


async def get_engagement(session: AsyncSession, engagement_id: UUID) -> Engagement | None:
    return await session.get(Engagement, engagement_id)


def similarity(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine: 1 in the same direction, -1 in the opposite one."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
