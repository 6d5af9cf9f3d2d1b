"""A running emulator inside any process: for test suites, and for anything else that wants one for a while."""

from emulator.inference.scripted import Reply, Request, Rhythm, Rule, ToolCall
from emulator.testing.clients import MissingPackage
from emulator.testing.model import FailedReplies, Model, NotScripted, UnexpectedRequests, UnusedReplies
from emulator.testing.rollout import Rollout
from emulator.testing.runtime import DatabaseInUse, JobRuntime, NoSuchTrajectory
from emulator.testing.server import NotRunning, running_server
from emulator.testing.trajectories import Body, Trajectory, Turn

__all__ = [
    "Body",
    "DatabaseInUse",
    "FailedReplies",
    "JobRuntime",
    "MissingPackage",
    "Model",
    "NoSuchTrajectory",
    "NotRunning",
    "NotScripted",
    "Reply",
    "Request",
    "Rhythm",
    "Rollout",
    "Rule",
    "ToolCall",
    "Trajectory",
    "Turn",
    "UnexpectedRequests",
    "UnusedReplies",
    "running_server",
]
