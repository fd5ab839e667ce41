"""The same application as `reviewed`, as its author left it after the audit."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads annotations at run time
from typing import Any
from uuid import UUID, uuid4

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

EMBEDDING_DIMENSIONS = 1024


class Base(DeclarativeBase):
    metadata = MetaData(schema="migration")
    type_annotation_map = {dict[str, Any]: JSONB}  # noqa: RUF012 - SQLAlchemy declares it


class ClientAccount(Base):
    __tablename__ = "client_accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(255))


class Engagement(Base):
    __tablename__ = "engagements"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"))
    name: Mapped[str] = mapped_column(String(255))

    __table_args__ = (UniqueConstraint("client_account_id", "id", name="uq_engagements_client_account_id_id"),)


class MasterFlow(Base):
    __tablename__ = "crewai_flow_state_extensions"

    flow_id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"))
    engagement_id: Mapped[UUID]

    discovery_flows: Mapped[list[DiscoveryFlow]] = relationship(
        back_populates="master_flow",
        lazy="raise_on_sql",
        passive_deletes=True,
        cascade="all, delete-orphan",
        foreign_keys="DiscoveryFlow.master_flow_id",
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["client_account_id", "engagement_id"],
            ["migration.engagements.client_account_id", "migration.engagements.id"],
        ),
        UniqueConstraint("client_account_id", "engagement_id", "flow_id", name="uq_master_flow_tenant"),
    )


class DiscoveryFlow(Base):
    __tablename__ = "discovery_flows"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    master_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("migration.crewai_flow_state_extensions.flow_id", ondelete="CASCADE"), index=True
    )
    client_account_id: Mapped[UUID]
    engagement_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime]
    failed_at: Mapped[datetime | None]
    phase_state: Mapped[dict[str, Any]] = mapped_column(JSONB)

    master_flow: Mapped[MasterFlow | None] = relationship(
        back_populates="discovery_flows", lazy="raise_on_sql", foreign_keys=[master_flow_id]
    )
    assets: Mapped[list[Asset]] = relationship(
        lazy="raise_on_sql", foreign_keys="Asset.discovery_flow_id", passive_deletes=True
    )
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("migration.discovery_flows.id"), index=True)
    children: Mapped[list[DiscoveryFlow]] = relationship(
        lazy="selectin", join_depth=2, foreign_keys=[parent_id], passive_deletes=True
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["client_account_id", "engagement_id", "master_flow_id"],
            [
                "migration.crewai_flow_state_extensions.client_account_id",
                "migration.crewai_flow_state_extensions.engagement_id",
                "migration.crewai_flow_state_extensions.flow_id",
            ],
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["client_account_id", "engagement_id", "parent_id"],
            [
                "migration.discovery_flows.client_account_id",
                "migration.discovery_flows.engagement_id",
                "migration.discovery_flows.id",
            ],
        ),
        UniqueConstraint("client_account_id", "engagement_id", "id", name="uq_discovery_flow_tenant"),
        Index("ix_discovery_flows_tenant_status", "client_account_id", "status", "created_at"),
        Index("ix_discovery_flows_failed", "created_at", postgresql_where=text("failed_at IS NOT NULL")),
        Index("ix_discovery_flows_master", "client_account_id", "engagement_id", "master_flow_id"),
        Index("ix_discovery_flows_parent", "client_account_id", "engagement_id", "parent_id"),
    )


class Asset(Base):
    __tablename__ = "assets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID]
    engagement_id: Mapped[UUID]
    discovery_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("migration.discovery_flows.id", ondelete="SET NULL"), index=True
    )
    name: Mapped[str] = mapped_column(String(255))
    asset_type: Mapped[str] = mapped_column(String(20))

    dependencies: Mapped[list[AssetDependency]] = relationship(
        back_populates="asset",
        foreign_keys="AssetDependency.asset_id",
        cascade="all, delete-orphan",
        passive_deletes=True,
        lazy="raise_on_sql",
    )
    tags: Mapped[list[AssetTag]] = relationship(
        back_populates="asset", cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["client_account_id", "engagement_id"],
            ["migration.engagements.client_account_id", "migration.engagements.id"],
        ),
        ForeignKeyConstraint(
            ["client_account_id", "engagement_id", "discovery_flow_id"],
            [
                "migration.discovery_flows.client_account_id",
                "migration.discovery_flows.engagement_id",
                "migration.discovery_flows.id",
            ],
        ),
        CheckConstraint("asset_type IN ('server', 'database')", name="chk_asset_type"),
        Index("ix_assets_tenant_flow", "client_account_id", "engagement_id", "discovery_flow_id"),
        Index("ix_assets_client_name", "client_account_id", "name"),
    )


class AssetDependency(Base):
    __tablename__ = "asset_dependencies"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)
    depends_on_asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id"), index=True)

    asset: Mapped[Asset] = relationship(back_populates="dependencies", foreign_keys=[asset_id], lazy="raise_on_sql")
    depends_on: Mapped[Asset] = relationship(foreign_keys=[depends_on_asset_id], lazy="joined")


class AssetTag(Base):
    __tablename__ = "asset_tags"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)

    asset: Mapped[Asset] = relationship(back_populates="tags", lazy="raise_on_sql")


class Assessment(Base):
    __tablename__ = "assessments"

    id: Mapped[int] = mapped_column(primary_key=True)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    assessment_type: Mapped[str] = mapped_column(String(20))

    __table_args__ = (CheckConstraint("assessment_type IN ('technical', 'business')", name="chk_assessment_type"),)


class Pattern(Base):
    __tablename__ = "agent_discovered_patterns"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    pattern_id: Mapped[str] = mapped_column(String(255))
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    pattern_data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    embedding: Mapped[list[float] | None] = mapped_column(Vector(EMBEDDING_DIMENSIONS), deferred=True)

    __table_args__ = (
        UniqueConstraint("pattern_id", "client_account_id", name="uq_pattern_client"),
        Index("ix_agent_patterns_data", "pattern_data", postgresql_using="gin"),
        Index(
            "ix_agent_patterns_embedding",
            "embedding",
            postgresql_using="ivfflat",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_with={"lists": 10},
        ),
    )


class AgentMemory(Base):
    __tablename__ = "agent_memory"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    embedding: Mapped[list[float] | None] = mapped_column(Vector(EMBEDDING_DIMENSIONS), deferred=True)


class LLMUsageLog(Base):
    __tablename__ = "llm_usage_logs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"))
    user_id: Mapped[str]
    llm_provider: Mapped[str]
    success: Mapped[bool]
    created_at: Mapped[datetime]

    __table_args__ = (Index("idx_llm_usage_reporting", "client_account_id", "created_at", "success"),)
