"""Where trajectories, turns and client tokens are kept: one writer, many readers."""

from emulator.store.changes import OpenTrajectory, Turn
from emulator.store.database import DatabaseError
from emulator.store.store import Store, now
from emulator.store.writer import StoreError

__all__ = ["DatabaseError", "OpenTrajectory", "Store", "StoreError", "Turn", "now"]
