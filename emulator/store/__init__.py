"""Where trajectories, turns and client tokens are kept: one writer, many readers."""

from emulator.store.database import DatabaseError
from emulator.store.store import OpenTrajectory, Store, StoreError, now

__all__ = ["DatabaseError", "OpenTrajectory", "Store", "StoreError", "now"]
