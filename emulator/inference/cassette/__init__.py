"""Cassettes: what a model server answered once, recorded in a file, replayed for ever."""

from emulator.inference.cassette.canonical import field_path
from emulator.inference.cassette.file import CassetteError
from emulator.inference.cassette.server import CassetteServer

__all__ = ["CassetteError", "CassetteServer", "field_path"]
