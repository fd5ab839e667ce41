"""The application of the review, in small, with every fault that its sections name."""

from __future__ import annotations

import enum
from datetime import datetime  # noqa: TC003 - SQLAlchemy reads annotations at run time
from typing import Any
from uuid import UUID, uuid4

from pgvector.sqlalchemy import Vector
from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


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
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id"), index=True)
    name: Mapped[str] = mapped_column(String(255))


class MasterFlow(Base):
    __tablename__ = "crewai_flow_state_extensions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    flow_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("engagements.id"), index=True)

    discovery_flows: Mapped[list[DiscoveryFlow]] = relationship(back_populates="master_flow")


class DiscoveryFlow(Base):
    __tablename__ = "discovery_flows"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    master_flow_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("crewai_flow_state_extensions.flow_id", ondelete="CASCADE"), index=True
    )
    client_account_id: Mapped[UUID] = mapped_column(index=True)
    engagement_id: Mapped[UUID] = mapped_column(index=True)
    status: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime]
    failed_at: Mapped[datetime | None]
    phase_state: Mapped[dict[str, Any]] = mapped_column(JSONB)

    master_flow: Mapped[MasterFlow | None] = relationship(back_populates="discovery_flows")
    assets: Mapped[list[Asset]] = relationship(lazy="joined")
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("discovery_flows.id"), index=True)
    children: Mapped[list[DiscoveryFlow]] = relationship(lazy="selectin")


class Asset(Base):
    __tablename__ = "assets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    engagement_id: Mapped[UUID] = mapped_column(ForeignKey("migration.engagements.id"), index=True)
    discovery_flow_id: Mapped[UUID | None] = mapped_column(ForeignKey("discovery_flows.id", ondelete="SET NULL"))
    name: Mapped[str] = mapped_column(String(255))
    asset_type: Mapped[str] = mapped_column(String(20))

    dependencies: Mapped[list[AssetDependency]] = relationship(
        back_populates="asset", foreign_keys="AssetDependency.asset_id", cascade="all, delete-orphan"
    )
    tags: Mapped[list[AssetTag]] = relationship(cascade="all, delete-orphan")

    __table_args__ = (
        CheckConstraint("asset_type IN ('server', 'database')", name="chk_asset_type"),
        Index("ix_assets_client", "client_account_id"),
        Index("ix_assets_client_name", "client_account_id", "name"),
    )


class AssetDependency(Base):
    __tablename__ = "asset_dependencies"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"))
    depends_on_asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id"), index=True)

    asset: Mapped[Asset] = relationship(back_populates="dependencies", foreign_keys=[asset_id])
    depends_on: Mapped[Asset] = relationship(foreign_keys=[depends_on_asset_id])


class AssetTag(Base):
    __tablename__ = "asset_tags"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    asset_id: Mapped[UUID] = mapped_column(ForeignKey("migration.assets.id", ondelete="CASCADE"), index=True)

    asset: Mapped[Asset] = relationship()


class AssessmentType(enum.Enum):
    TECHNICAL = "technical"
    BUSINESS = "business"


class Assessment(Base):
    __tablename__ = "assessments"

    id: Mapped[int] = mapped_column(primary_key=True)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id"), index=True)
    assessment_type: Mapped[AssessmentType]


class Pattern(Base):
    __tablename__ = "agent_discovered_patterns"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    pattern_id: Mapped[str] = mapped_column(String(255), index=True)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("migration.client_accounts.id"), index=True)
    pattern_data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    embedding: Mapped[list[float] | None] = mapped_column(Vector(1024))

    __table_args__ = (
        UniqueConstraint("pattern_id", "client_account_id", name="uq_pattern_client"),
        Index(
            "ix_agent_patterns_embedding",
            "embedding",
            postgresql_using="ivfflat",
            postgresql_ops={"embedding": "vector_cosine_ops"},
            postgresql_with={"lists": 100},
        ),
    )


class AgentMemory(Base):
    __tablename__ = "agent_memory"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    embedding: Mapped[list[float] | None] = mapped_column(Vector(1536))


class LLMUsageLog(Base):
    __tablename__ = "llm_usage_logs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    client_account_id: Mapped[UUID] = mapped_column(ForeignKey("client_accounts.id"), index=True)
    user_id: Mapped[str] = mapped_column(index=True)
    llm_provider: Mapped[str] = mapped_column(index=True)
    model_name: Mapped[str] = mapped_column(index=True)
    feature_context: Mapped[str] = mapped_column(index=True)
    success: Mapped[bool] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime] = mapped_column(index=True)
