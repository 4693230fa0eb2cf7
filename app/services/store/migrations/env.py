"""Alembic's entry: runs on the connection, and in the transaction, that `migrate` hands over."""

from alembic import context

# SQLite can roll schema changes back; Alembic assumes that it cannot.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
