"""One answer of a cassette as people read it: a YAML document.

```yaml
request:
  path: /v1/chat/completions      # and method, where that is not POST
  trajectory: t-1                 # where it is known
  turn: 1
  continues: 0                    # the messages of that turn's request come before these
  json: {…}                       # the body: json, text or base64
answer:
  status: 200
  content-type: application/json
  after: 0.412
  json: {…}                       # the body: json, text, base64 or stream
```
"""

from __future__ import annotations

import json
from typing import Any

from emulator.inference.cassette.tape import RecordedAnswer

#: How model servers write JSON: what is written so is shown as its value, and comes back as the same bytes.
STYLES: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"ensure_ascii": False},
    "indented": {"indent": 2, "ensure_ascii": False},
    "compact ascii": {"separators": (",", ":")},
    "spaced ascii": {},
    "indented ascii": {"indent": 2},
}
#: What is read as more than a text: tag, pattern, and the characters that it may begin with ("": it is empty).
SCALARS = (
    ("tag:yaml.org,2002:bool", r"(?:true|false)\Z", ("t", "f")),
    ("tag:yaml.org,2002:null", r"(?:null|~|)\Z", ("n", "~", "")),
    ("tag:yaml.org,2002:int", r"-?(?:0|[1-9][0-9]*)\Z", tuple("-0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|-?\.inf|\.nan)\Z",
        tuple("-0123456789."),
    ),
)
EVENT, EVENT_END = b"data: ", b"\n\n"


class Recorded:
    """What a block says."""

    __slots__ = ("answer", "body", "method", "path", "trajectory", "turn")

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes,
        answer: RecordedAnswer,
        trajectory: str | None = None,
        turn: int | None = None,
    ) -> None:
        self.method, self.path, self.body = method, path, body
        self.answer = answer
        self.trajectory, self.turn = trajectory, turn

    @property
    def messages(self) -> Any:
        """Those of the request, if it is a JSON object that has some."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value.get("messages") if isinstance(value, dict) else None
