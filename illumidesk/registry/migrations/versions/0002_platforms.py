"""Platforms, and whom and which courses they mean."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "platforms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.String(8), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("secret", sa.String(255), nullable=False),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("client_id", sa.String(255), nullable=False),
        sa.Column("auth_url", sa.String(1024), nullable=False),
        sa.Column("token_url", sa.String(1024), nullable=False),
        sa.Column("jwks_url", sa.String(1024), nullable=False),
        sa.Column("deployments", sa.JSON(), nullable=False),
        sa.Column("origins", sa.JSON(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("removed", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_platforms"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_platforms_key", "platforms", ["key"], unique=True, sqlite_where=sa.text("key != ''"))
    op.create_index(
        "ix_platforms_issuer",
        "platforms",
        ["issuer", "client_id"],
        unique=True,
        sqlite_where=sa.text("issuer != ''"),
    )
    op.create_table(
        "identities",
        sa.Column("platform_id", sa.Integer(), nullable=False),
        sa.Column("sub", sa.String(1024), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("email", sa.String(255), nullable=False),
        sa.Column("full_name", sa.String(255), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_identities_platform_id_platforms"),
        sa.ForeignKeyConstraint(["name"], ["people.name"], name="fk_identities_name_people"),
        sa.PrimaryKeyConstraint("platform_id", "sub", name="pk_identities"),
    )
    op.create_index("ix_identities_name", "identities", ["name"])
    op.create_table(
        "contexts",
        sa.Column("platform_id", sa.Integer(), nullable=False),
        sa.Column("context_id", sa.String(1024), nullable=False),
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_contexts_platform_id_platforms"),
        sa.ForeignKeyConstraint(
            ["course_id"], ["courses.course_id"], name="fk_contexts_course_id_courses", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("platform_id", "context_id", name="pk_contexts"),
    )
    op.create_index("ix_contexts_course_id", "contexts", ["course_id"])
    op.create_table(
        "nonces",
        sa.Column("platform_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_nonces_platform_id_platforms"),
        sa.PrimaryKeyConstraint("platform_id", "digest", name="pk_nonces"),
    )
    op.create_index("ix_nonces_expires", "nonces", ["expires"])
    op.create_table(
        "tool_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("private", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tool_keys"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("tool_keys")
    op.drop_table("nonces")
    op.drop_table("contexts")
    op.drop_table("identities")
    op.drop_table("platforms")
