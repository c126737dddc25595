"""Alembic's environment: the connection is always handed in by `Registry.migrate`."""

from alembic import context

from illumidesk.registry.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
