"""Faults that calls suffer on purpose: which there are, whom they strike, and what they do. Off unless given."""

from __future__ import annotations

from emulator.faults.fault import Fault, InvalidFault, fault_of
from emulator.faults.faults import Faults, GivenFault

__all__ = ["Fault", "Faults", "GivenFault", "InvalidFault", "fault_of"]
