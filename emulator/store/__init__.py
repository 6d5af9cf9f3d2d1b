"""Where trajectories, turns and client tokens are kept: one writer, many readers."""

from emulator.store.changes import OpenTrajectory
from emulator.store.database import DatabaseError, DatabaseInUse
from emulator.store.schema import now
from emulator.store.store import Store
from emulator.store.turns import Turn
from emulator.store.writer import StoreError

__all__ = ["DatabaseError", "DatabaseInUse", "OpenTrajectory", "Store", "StoreError", "Turn", "now"]
