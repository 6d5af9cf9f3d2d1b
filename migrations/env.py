"""How Alembic reaches the database: on the connection that the emulator hands over, or an address given with -x."""

from alembic import context
from sqlalchemy import create_engine

from emulator.address import DatabaseURL, parse_address
from emulator.store import libpq
from emulator.store.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    address = parse_address(context.get_x_argument(as_dictionary=True).get("database", "job-runtime-local.db"))
    if isinstance(address, DatabaseURL):
        engine = libpq.engine(address, libpq.PATIENT)
    else:
        engine = create_engine(f"sqlite:///{address}")
    connection = engine.connect()

is_part_of_more = connection.in_transaction()
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
if not is_part_of_more:
    connection.commit()
