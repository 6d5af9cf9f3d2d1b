"""How Alembic reaches the database: on the connection that the emulator hands over, or a file given with -x."""

from alembic import context
from sqlalchemy import create_engine

from emulator.store.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    database = context.get_x_argument(as_dictionary=True).get("database", "job-runtime-local.db")
    connection = create_engine(f"sqlite:///{database}").connect()

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
