"""Packages that instructors ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "package_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("requirement", sa.String(200), nullable=False),
        sa.Column("asked_by", sa.String(32), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("answer", sa.String(8), nullable=True),
        sa.Column("answered", sa.DateTime(), nullable=True),
        sa.Column("reason", sa.String(300), nullable=False),
        sa.ForeignKeyConstraint(
            ["course_id"], ["courses.course_id"], name="fk_package_requests_course_id_courses", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_package_requests"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_package_requests_course_id", "package_requests", ["course_id"])


def downgrade() -> None:
    op.drop_table("package_requests")
