"""The commands: each module adds its arguments in `configure` and names what runs as `run`."""


class Refused(Exception):
    """A command cannot be done as it was called; the message is one line that says why and what to do."""
