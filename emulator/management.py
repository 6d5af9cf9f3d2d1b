from __future__ import annotations
from typing import Any
from starlette.routing import BaseRoute


def routes(store: Any, model_server: Any, settings: Any) -> list[BaseRoute]:
    return []
