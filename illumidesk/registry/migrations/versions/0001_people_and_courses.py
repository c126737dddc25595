"""People, courses and memberships."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.Column("retired", sa.DateTime(), nullable=True),
        sa.Column("password_hash", sa.String(100), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_people"),
    )
    op.create_table(
        "courses",
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("course_id", name="pk_courses"),
    )
    op.create_table(
        "memberships",
        sa.Column("course_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["course_id"], ["courses.course_id"], name="fk_memberships_course_id_courses", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["name"], ["people.name"], name="fk_memberships_name_people", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("course_id", "name", name="pk_memberships"),
    )
    op.create_index("ix_memberships_name", "memberships", ["name"])


def downgrade() -> None:
    op.drop_table("memberships")
    op.drop_table("courses")
    op.drop_table("people")
