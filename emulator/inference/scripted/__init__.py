"""The scripted model server: what is said (`rules`, `script`) apart from how it is written (`chat`, `completion`)."""

from emulator.inference.scripted.reply import Error, Reply, Rhythm, ToolCall
from emulator.inference.scripted.request import Request
from emulator.inference.scripted.rules import NoRuleMatches, Rule, Rules, Unmatched
from emulator.inference.scripted.script import choose
from emulator.inference.scripted.server import ScriptedServer
from emulator.inference.scripted.wire import BadRequest

__all__ = [
    "BadRequest",
    "Error",
    "NoRuleMatches",
    "Reply",
    "Request",
    "Rhythm",
    "Rule",
    "Rules",
    "ScriptedServer",
    "ToolCall",
    "Unmatched",
    "choose",
]
