"""The scripted model server: what is said (`script`) apart from how it is written (`chat`, `completion`)."""

from emulator.inference.scripted.script import Reply, Script, ToolCall, choose
from emulator.inference.scripted.server import ScriptedServer
from emulator.inference.scripted.wire import BadRequest

__all__ = ["BadRequest", "Reply", "Script", "ScriptedServer", "ToolCall", "choose"]
