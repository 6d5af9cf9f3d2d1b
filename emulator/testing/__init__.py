from emulator.testing.server import running_server

__all__ = ["running_server"]
