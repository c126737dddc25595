"""Invitations for platforms to register themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "invites",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("expires", sa.DateTime(), nullable=False),
        sa.Column("platform_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_invites_platform_id_platforms"),
        sa.PrimaryKeyConstraint("id", name="pk_invites"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_invites_digest", "invites", ["digest"], unique=True)


def downgrade() -> None:
    op.drop_table("invites")
