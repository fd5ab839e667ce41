"""
The tables of a migration planner with many tenants, as a review of a real application found them.

Faithfully wrong: relationships load lazily, nearly every column has an index of its own while the queries want
composite, partial, JSONB and text ones, and foreign keys name their schema or do not, as whoever wrote them liked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal  # noqa: TC003 - SQLAlchemy reads annotations at run time
from typing import Any
from uuid import UUID, uuid4

from pgvector.sqlalchemy import Vector
from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, MetaData, Numeric, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# The reviewed application embeds into 1024 numbers. These rows fit a page, so filling takes a second, and the planner's
# choices are the same: it knows the number of rows and pages, not what a distance costs.
EMBEDDING_DIMENSIONS = 64


def now() -> datetime:
    """The time in UTC, aware."""
    return datetime.now(UTC)


class Base(AsyncAttrs, DeclarativeBase):
    """Everything is in the schema `migration`; sessions have `search_path = migration, public`."""

    metadata = MetaData(schema="migration")
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy declares it
        datetime: DateTime(timezone=True),
        list[float]: Vector(EMBEDDING_DIMENSIONS),
    }


class ClientAccount(Base):
    """A tenant."""

    __tablename__ = "client_accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(255), index=True)
    industry: Mapped[str] = mapped_column(String(100), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)

    engagements: Mapped[list[Engagement]] = relationship(back_populates="client_account")


class Engagement(Base):
    """A project for a tenant; most rows of the application belong to one."""

    __tablename__ = "engagements"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(20), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

    client_account: Mapped[ClientAccount] = relationship(back_populates="engagements")
    assets: Mapped[list[Asset]] = relationship(back_populates="engagement")


class CrewAIFlowStateExtensions(Base):
    """The master of a flow. Others refer to `flow_id`, which is unique and not the primary key."""

    __tablename__ = "crewai_flow_state_extensions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    flow_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id", ondelete="CASCADE"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("engagements.id", ondelete="CASCADE"), index=True)
    flow_type: Mapped[str] = mapped_column(String(50), index=True)
    flow_status: Mapped[str] = mapped_column(String(50), index=True)
    flow_persistence_data: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)

    discovery_flows: Mapped[list[DiscoveryFlow]] = relationship(back_populates="master_flow")
    collection_flows: Mapped[list[CollectionFlow]] = relationship(back_populates="master_flow")


class DiscoveryFlow(Base):
    """Finds out what a tenant runs; `phase_state` says how far it is."""

    __tablename__ = "discovery_flows"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    master_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("crewai_flow_state_extensions.flow_id", ondelete="CASCADE"), index=True
    )
    client_account_id: Mapped[UUID] = mapped_column(index=True)
    engagement_id: Mapped[UUID] = mapped_column(index=True)
    user_id: Mapped[str] = mapped_column(String(100))
    flow_name: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(20), index=True)
    progress_percentage: Mapped[float] = mapped_column(default=0.0)
    phase_state: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

    master_flow: Mapped[CrewAIFlowStateExtensions | None] = relationship(back_populates="discovery_flows")


class CollectionFlow(Base):
    """Collects what is still unknown about a tenant's assets, by questionnaires. Nine of ten are completed."""

    __tablename__ = "collection_flows"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    flow_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    master_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("crewai_flow_state_extensions.flow_id", ondelete="CASCADE"), index=True
    )
    discovery_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("discovery_flows.id", ondelete="SET NULL"), index=True
    )
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id", ondelete="CASCADE"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("engagements.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[str] = mapped_column(String(100))
    flow_name: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(20), index=True)
    automation_tier: Mapped[str] = mapped_column(String(20), index=True)
    flow_metadata: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    updated_at: Mapped[datetime] = mapped_column(default=now)

    client_account: Mapped[ClientAccount] = relationship()
    engagement: Mapped[Engagement] = relationship()
    discovery_flow: Mapped[DiscoveryFlow | None] = relationship()
    master_flow: Mapped[CrewAIFlowStateExtensions | None] = relationship(back_populates="collection_flows")
    questionnaire_responses: Mapped[list[CollectionQuestionnaireResponse]] = relationship(
        back_populates="collection_flow", cascade="all, delete-orphan"
    )
    data_gaps: Mapped[list[CollectionDataGap]] = relationship(
        back_populates="collection_flow", cascade="all, delete-orphan"
    )
    collected_data: Mapped[list[CollectedDataInventory]] = relationship(
        back_populates="collection_flow", cascade="all, delete-orphan"
    )


class CollectionQuestionnaireResponse(Base):
    """An answer."""

    __tablename__ = "collection_questionnaire_responses"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    collection_flow_id: Mapped[UUID] = mapped_column(ForeignKey("collection_flows.id", ondelete="CASCADE"), index=True)
    question_id: Mapped[str] = mapped_column(String(100), index=True)
    response_value: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    confidence_score: Mapped[float | None]
    responded_at: Mapped[datetime] = mapped_column(default=now)

    collection_flow: Mapped[CollectionFlow] = relationship(back_populates="questionnaire_responses")


class CollectionDataGap(Base):
    """Something nobody has answered yet."""

    __tablename__ = "collection_data_gaps"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    collection_flow_id: Mapped[UUID] = mapped_column(ForeignKey("collection_flows.id", ondelete="CASCADE"), index=True)
    field_name: Mapped[str] = mapped_column(String(100))
    priority: Mapped[int] = mapped_column(index=True)
    resolution_status: Mapped[str] = mapped_column(String(20), index=True)

    collection_flow: Mapped[CollectionFlow] = relationship(back_populates="data_gaps")


class CollectedDataInventory(Base):
    """A file or an answer of an API that a flow has collected."""

    __tablename__ = "collected_data_inventory"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    collection_flow_id: Mapped[UUID] = mapped_column(ForeignKey("collection_flows.id", ondelete="CASCADE"), index=True)
    platform: Mapped[str] = mapped_column(String(50), index=True)
    data_type: Mapped[str] = mapped_column(String(50), index=True)
    quality_score: Mapped[float | None]
    collected_at: Mapped[datetime] = mapped_column(default=now)

    collection_flow: Mapped[CollectionFlow] = relationship(back_populates="collected_data")


class Asset(Base):
    """A server, a database or an application of the tenant."""

    __tablename__ = "assets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("migration.engagements.id"), index=True)
    name: Mapped[str] = mapped_column(String(255), index=True)
    description: Mapped[str] = mapped_column(Text)
    asset_type: Mapped[str] = mapped_column(String(50), index=True)
    environment: Mapped[str] = mapped_column(String(50), index=True)
    business_criticality: Mapped[str] = mapped_column(String(20), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

    engagement: Mapped[Engagement] = relationship(back_populates="assets")
    tags: Mapped[list[AssetTag]] = relationship(back_populates="asset", cascade="all, delete-orphan")
    dependencies: Mapped[list[AssetDependency]] = relationship(
        back_populates="asset", foreign_keys="AssetDependency.asset_id", cascade="all, delete-orphan"
    )


class AssetDependency(Base):
    """An asset needs another one."""

    __tablename__ = "asset_dependencies"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)
    depends_on_asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)
    dependency_type: Mapped[str] = mapped_column(String(50), index=True)

    asset: Mapped[Asset] = relationship(back_populates="dependencies", foreign_keys=[asset_id])
    depends_on: Mapped[Asset] = relationship(foreign_keys=[depends_on_asset_id])


class AssetTag(Base):
    """A word on an asset."""

    __tablename__ = "asset_tags"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)
    tag: Mapped[str] = mapped_column(String(50), index=True)

    asset: Mapped[Asset] = relationship(back_populates="tags")


class AgentDiscoveredPatterns(Base):
    """What an agent has learned, with its embedding. One in a hundred has `evidence` in `pattern_data`."""

    __tablename__ = "agent_discovered_patterns"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    pattern_id: Mapped[str] = mapped_column(String(255), index=True)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("migration.engagements.id"), index=True)
    pattern_name: Mapped[str] = mapped_column(String(255))
    insight_type: Mapped[str | None] = mapped_column(String(50), index=True)
    confidence_score: Mapped[float]
    pattern_data: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    embedding: Mapped[list[float] | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

    __table_args__ = (
        UniqueConstraint(
            "pattern_id",
            "client_account_id",
            "engagement_id",
            name="uq_agent_discovered_patterns_pattern_client_engagement",
        ),
        CheckConstraint(
            "confidence_score >= 0 AND confidence_score <= 1", name="chk_agent_discovered_patterns_confidence_score"
        ),
        Index(
            "ix_agent_patterns_embedding",
            "embedding",
            postgresql_using="ivfflat",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_with={"lists": 100},
        ),
    )


class LLMUsageLog(Base):
    """A call of a language model, with its price. The one table whose composite indexes somebody thought about."""

    __tablename__ = "llm_usage_logs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("engagements.id"), index=True)
    user_id: Mapped[str] = mapped_column(String(100), index=True)
    llm_provider: Mapped[str] = mapped_column(String(50), index=True)
    model_name: Mapped[str] = mapped_column(String(100), index=True)
    feature_context: Mapped[str] = mapped_column(String(100), index=True)
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    total_cost: Mapped[Decimal] = mapped_column(Numeric(10, 6))
    response_time_ms: Mapped[int]
    success: Mapped[bool] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)

    __table_args__ = (
        Index("idx_llm_usage_reporting", "client_account_id", "created_at", "success"),
        Index("idx_llm_usage_cost_analysis", "client_account_id", "llm_provider", "model_name", "created_at"),
    )
