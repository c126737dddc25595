"""Links, columns and deliveries of grades; rosters."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("memberships") as table:
        table.add_column(sa.Column("source", sa.String(8), nullable=False, server_default="admin"))
        table.add_column(sa.Column("rostered", sa.DateTime(), nullable=True))
        table.add_column(sa.Column("left", sa.DateTime(), nullable=True))
    op.execute("UPDATE memberships SET source = 'launch' WHERE name IN (SELECT name FROM identities)")
    with op.batch_alter_table("platforms") as table:
        table.add_column(sa.Column("token_audience", sa.String(1024), nullable=False, server_default=""))
    with op.batch_alter_table("identities") as table:
        table.add_column(sa.Column("given_name", sa.String(255), nullable=False, server_default=""))
        table.add_column(sa.Column("family_name", sa.String(255), nullable=False, server_default=""))
    with op.batch_alter_table("contexts") as table:
        table.add_column(sa.Column("line_items_url", sa.Text(), nullable=False, server_default=""))
        table.add_column(sa.Column("ags_scopes", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("memberships_url", sa.Text(), nullable=False, server_default=""))
        table.add_column(sa.Column("rostered", sa.DateTime(), nullable=True))
    op.create_table(
        "links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("platform_id", sa.Integer(), nullable=False),
        sa.Column("context_id", sa.String(1024), nullable=False),
        sa.Column("resource_link_id", sa.String(1024), nullable=False),
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("assignment", sa.String(100), nullable=False),
        sa.Column("line_item", sa.Text(), nullable=False),
        sa.Column("outcome_url", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_links_platform_id_platforms"),
        sa.ForeignKeyConstraint(
            ["course_id"], ["courses.course_id"], name="fk_links_course_id_courses", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_links"),
        sa.UniqueConstraint("platform_id", "context_id", "resource_link_id", name="uq_links_platform_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_links_course_id", "links", ["course_id"])
    op.create_table(
        "sourcedids",
        sa.Column("link_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("sourcedid", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["link_id"], ["links.id"], name="fk_sourcedids_link_id_links", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["name"], ["people.name"], name="fk_sourcedids_name_people", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("link_id", "name", name="pk_sourcedids"),
    )
    op.create_table(
        "columns",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("platform_id", sa.Integer(), nullable=False),
        sa.Column("context_id", sa.String(1024), nullable=False),
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("assignment", sa.String(100), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("line_item", sa.Text(), nullable=False),
        sa.Column("link_id", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(8), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["platform_id"], ["platforms.id"], name="fk_columns_platform_id_platforms"),
        sa.ForeignKeyConstraint(
            ["course_id"], ["courses.course_id"], name="fk_columns_course_id_courses", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["link_id"], ["links.id"], name="fk_columns_link_id_links", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_columns"),
        sa.UniqueConstraint("platform_id", "context_id", "assignment", name="uq_columns_platform_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_columns_course_id", "columns", ["course_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("column_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("maximum", sa.Float(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("changed", sa.DateTime(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("unsure", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", sa.DateTime(), nullable=True),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.String(32), nullable=False),
        sa.Column("sent_score", sa.Float(), nullable=True),
        sa.Column("sent_maximum", sa.Float(), nullable=True),
        sa.Column("sent_comment", sa.Text(), nullable=False),
        sa.Column("sent_partial", sa.Boolean(), nullable=False),
        sa.Column("sent_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["column_id"], ["columns.id"], name="fk_deliveries_column_id_columns", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["name"], ["people.name"], name="fk_deliveries_name_people", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("column_id", "name", name="uq_deliveries_column_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_name", "deliveries", ["name"])
    op.create_index("ix_deliveries_state", "deliveries", ["state", "due"])


def downgrade() -> None:
    for name in ("deliveries", "columns", "sourcedids", "links"):
        op.drop_table(name)
    with op.batch_alter_table("contexts") as table:
        for column in ("rostered", "memberships_url", "ags_scopes", "line_items_url"):
            table.drop_column(column)
    with op.batch_alter_table("identities") as table:
        for column in ("family_name", "given_name"):
            table.drop_column(column)
    with op.batch_alter_table("platforms") as table:
        table.drop_column("token_audience")
    with op.batch_alter_table("memberships") as table:
        for column in ("left", "rostered", "source"):
            table.drop_column(column)
