"""A running emulator inside any process: for test suites, and for anything else that wants one for a while."""

from emulator.testing.clients import MissingPackage
from emulator.testing.rollout import Rollout
from emulator.testing.runtime import DatabaseInUse, JobRuntime, NoSuchTrajectory
from emulator.testing.server import running_server
from emulator.testing.trajectories import Body, Trajectory, Turn

__all__ = [
    "Body",
    "DatabaseInUse",
    "JobRuntime",
    "MissingPackage",
    "NoSuchTrajectory",
    "Rollout",
    "Trajectory",
    "Turn",
    "running_server",
]
