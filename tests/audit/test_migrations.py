from __future__ import annotations

import pytest

from sqlprobe.audit import mapping, migrations
from sqlprobe.audit.options import Options

HEAD = '''"""{name}

Revision ID: {name}
Create Date: {date} 10:00:00
"""
import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects import postgresql

revision = {name!r}
down_revision = {down!r}


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''


@pytest.fixture
def write(tmp_path):
    """`write(steps)`: a directory with one migration for each (upgrade, downgrade), one after the other."""
    folder = tmp_path / "alembic" / "versions"
    folder.mkdir(parents=True)

    def write(steps, heads=1, date="2025-01-01"):
        for number, step in enumerate(steps):
            upgrade, downgrade = step if isinstance(step, tuple) else (step, "op.drop_table('x')")
            down = f"{number:03}" if number else None
            name = f"{number + 1:03}"
            text = HEAD.format(name=name, down=down, date=date, upgrade=upgrade, downgrade=downgrade)
            (folder / f"{name}_step.py").write_text(text)
        for number in range(1, heads):
            text = HEAD.format(name=f"head{number}", down="001", date=date, upgrade="pass", downgrade="pass")
            (folder / f"head{number}.py").write_text(text)
        return migrations.load(str(tmp_path / "alembic"))

    return write


def check(rule, history, models=None, **options):
    return list(migrations.CHECKS[rule](history, models or mapping.Models(()), Options(**options)))


ADD = "op.add_column('patterns', sa.Column('embedding', {}))"
ALTER = "op.alter_column('patterns', 'embedding', type_={})"


def test_too_many_migrations_can_be_squashed(write):
    history = write(["op.create_table('x')"] * 130)  # 6.3

    (found,) = check("migration-count", history)

    assert ("warning", "130 migrations") == (found.severity, found.title)


def test_migrations_of_the_last_half_year_are_not_squashed(tmp_path, write):
    write(["op.create_table('x')"] * 60)
    folder = tmp_path / "alembic" / "versions"
    for number in range(30, 61):
        file = next(folder.glob(f"{number:03}_*"))
        file.write_text(file.read_text().replace("2025-01-01", "2025-12-01"))

    (found,) = check("migration-count", migrations.load(str(tmp_path / "alembic")))

    assert ("info", 29, "001", "029") == (
        found.severity,
        found.evidence["squashable"],
        found.evidence["first"],
        found.evidence["last"],
    )


def test_silent_on_few_migrations(write):
    assert [] == check("migration-count", write(["op.create_table('x')"] * 49))


def test_several_heads(write):
    (found,) = check("migration-heads", write(["pass", "pass"], heads=2))

    assert "2 heads: 002, head1" == found.title


def test_silent_on_one_head(write):
    assert [] == check("migration-heads", write(["pass", "pass"]))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ADD.format("Vector(1536)"), ALTER.format("Vector(1024)")),
        (ADD.format("postgresql.ARRAY(sa.Float, dimensions=1536)"), ALTER.format("Vector(1024)")),  # 6.4
        (ADD.format("Vector(1536)"), "op.execute('ALTER TABLE patterns ALTER COLUMN embedding TYPE vector(1024)')"),
        (
            "op.execute('ALTER TABLE s.patterns ADD COLUMN IF NOT EXISTS embedding vector(1536)')",
            ALTER.format("Vector(dim=1024)"),
        ),
        (
            "op.execute('CREATE TABLE s.patterns (id int, embedding vector(1536))')",
            "with op.batch_alter_table('patterns') as batch:\n        batch.alter_column('embedding', type_=Vector(3))",
        ),
        (
            "op.create_table('patterns', sa.Column('id', sa.Integer), sa.Column('embedding', Vector(1536)))",
            ALTER.format("Vector(1024)"),
        ),
    ],
)
def test_dimensions_change_and_the_vectors_stay(write, first, second):
    (found,) = check("migration-type-change", write([first, second]))

    assert ("warning", "patterns.embedding", "002") == (found.severity, found.label, found.evidence["revision"])


@pytest.mark.parametrize(
    "second",
    [
        ALTER.format("Vector(1536)"),
        "op.execute('UPDATE patterns SET embedding = NULL')\n    " + ALTER.format("Vector(1024)"),
        "op.drop_column('patterns', 'embedding')\n    " + ADD.format("Vector(1024)"),
        "op.alter_column('patterns', 'embedding', type_=Vector(1024), postgresql_using='NULL::vector')",
        "op.get_bind().execute(patterns.update().values(embedding=None))\n    " + ALTER.format("Vector(1024)"),
        "op.alter_column('patterns', 'embedding', nullable=True)",
        "op.alter_column('other', 'embedding', type_=Vector(1024))",
    ],
)
def test_silent_where_the_vectors_are_seen_to(write, second):
    assert [] == check("migration-type-change", write([ADD.format("Vector(1536)"), second]))


def test_types_that_need_using(write):
    change = "op.alter_column('t', 'c', existing_type={}, type_={}{})"

    def told(before, after, using=""):
        return [each.severity for each in check("migration-type-change", write([change.format(before, after, using)]))]

    assert ["error"] == told("sa.String()", "sa.Integer()")
    assert ["error"] == told("sa.Text()", "postgresql.UUID()")
    assert [] == told("sa.String()", "sa.Integer()", ", postgresql_using='c::integer'")
    assert [] == told("sa.Integer()", "sa.BigInteger()")
    assert [] == told("sa.Integer()", "sa.String()")
    assert [] == told("sa.String(20)", "sa.Text()")
    assert [] == told("sa.JSON()", "postgresql.JSONB()")
    assert [] == told("sa.DateTime()", "sa.DateTime(timezone=True)")


@pytest.mark.parametrize(
    ("downgrades", "expected"),
    [
        (["pass", "op.drop_table('x')"], 1),
        (["op.drop_table('x')", "op.drop_table('x')"], 0),
        (["raise NotImplementedError", "op.drop_table('x')"], 0),
        (["pass"] * 5, 0),  # decided so
    ],
)
def test_downgrades_that_do_nothing(write, downgrades, expected):
    history = write([("op.create_table('x')", each) for each in downgrades])

    assert expected == len(check("migration-downgrade", history))


def test_enum_types_that_the_models_check(write, load_app):
    made = "sa.Enum('TECHNICAL', name='{}').create(op.get_bind())"
    history = write(
        [made.format("severity"), made.format("dropped"), "op.execute('DROP TYPE IF EXISTS dropped CASCADE')"]
    )

    (found,) = check("enum-and-check", history, load_app("reviewed"))

    assert "severity" == found.evidence["types"]


def test_says_where_no_migrations_are(tmp_path):
    with pytest.raises(migrations.MigrationsError, match="there is no such directory"):
        migrations.load(str(tmp_path / "alembic"))
    (tmp_path / "a.py").write_text("revision = 1")
    with pytest.raises(migrations.MigrationsError, match="sets revision"):
        migrations.load(str(tmp_path))


def test_finds_migrations_by_the_ini(tmp_path, write):
    write(["pass"])
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/alembic\n")

    assert ["001"] == [each.revision for each in migrations.load(str(tmp_path / "alembic.ini")).migrations]


def test_a_file_that_cannot_be_read_is_noted(tmp_path, write):
    write(["pass"])
    (tmp_path / "alembic" / "versions" / "broken.py").write_text("def (")

    assert ("migrations: broken.py was not read: SyntaxError",) == migrations.load(str(tmp_path / "alembic")).notes


@pytest.mark.skipif(migrations.squawk() is None, reason="squawk is not installed")
def test_squawk_tells_of_locks(write):
    history = write(["op.create_index('ix', 't', ['a'])", "op.get_bind().execute(sa.text('SELECT 1')).scalar()"])

    assert [("001", "require-concurrent-index-creation")] == [
        (each.label, each.evidence["squawk"]) for each in check("migration-lock", history)
    ]
