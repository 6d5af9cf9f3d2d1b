"""What one OpenAI-compatible exchange says, read from its raw bytes on demand. Pure; never raises on bad bytes."""

from emulator.completion.errors import error_message
from emulator.completion.reading import Choice, Completion, TokenLogprob, Usage, is_token_ids, read_completion
from emulator.completion.stream import is_stream, reports_error

__all__ = [
    "Choice",
    "Completion",
    "TokenLogprob",
    "Usage",
    "error_message",
    "is_stream",
    "is_token_ids",
    "read_completion",
    "reports_error",
]
