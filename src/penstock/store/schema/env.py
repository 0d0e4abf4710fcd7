"""Where Alembic meets the store: migrations run inside the transaction that the store opened."""

from alembic import context

from penstock.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
