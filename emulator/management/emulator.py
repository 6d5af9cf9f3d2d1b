"""What there is to manage, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from emulator.conduct import Conduct
from emulator.documents import to_json
from emulator.faults import Faults
from emulator.inference.model_server import ModelServer
from emulator.metrics import Metrics
from emulator.protocol.answer import Answer
from emulator.scrape import Scrape
from emulator.settings import Settings
from emulator.store import Store


@dataclass(frozen=True, slots=True)
class Emulator:
    """What there is to manage."""

    store: Store
    model_server: ModelServer
    settings: Settings
    metrics: Metrics
    scrape: Scrape
    faults: Faults
    conduct: Conduct
    reset: Callable[[], Awaitable[None]]  #: breaks off jobs, and forgets everything; raises StoreError


def json_answer(document: object, status: int = 200) -> Answer:
    """A document as an answer."""
    return Answer(to_json(document).encode(), status)
