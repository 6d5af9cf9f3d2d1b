"""The model's own words in the body of an error."""

from __future__ import annotations

import json

import pytest

from emulator.completion import error_message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": " too long ", "type": "BadRequestError", "code": 400}}', "too long"),
        (b'{"error": "overloaded", "error_type": "overloaded"}', "overloaded"),
        (b'{"object": "error", "message": "no such model", "code": 404}', "no such model"),
        (b'{"error": "Not Found", "message": "no such route"}', "no such route"),
        (b'{"Message": "denied"}', "denied"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (
            b'{"detail": [{"type": "missing", "loc": ["body", "n", 0], "msg": "Field required"}, {"msg": "more"}]}',
            "body.n.0: Field required; more",
        ),
        (b'"boom"', "boom"),
        (b"\xef\xbb\xbf Internal\r\n Server Error\n", "Internal Server Error"),
        (b"<!DOCTYPE html><html><head><TITLE lang=en>502 &amp; Bad\nGateway</title>", "502 & Bad Gateway"),
        (b'{"error": {"message": "cut sho', None),
        (b'{"error": {"message": "a \\"b\\"", "type": "x', 'a "b"'),
        (rb'{"message": "\ud800"}', "\ufffd"),
        (b"<html><body>no title", None),
        (b"", None),
        (b"{}", None),
        (b"null", None),
        (b"500", None),
        (b'{"error": {}, "message": "", "detail": []}', None),
        (b'{"choices": [{"message": {"role": "assistant"}}]}', None),
        (b"x" * 1001, None),
        (b"\x1f\x8b\x08\x00", None),
        (b'{"error": ' * 50 + b'"x"' + b"}" * 50, None),
        (b"[" * 100_000, None),
    ],
)
def test_an_error_message_is_the_models_own(body: bytes, message: str | None) -> None:
    assert error_message(body) == message


def test_of_a_large_error_only_the_beginning_is_looked_at() -> None:
    body = json.dumps({"detail": [{"loc": ["body"], "msg": "Field required", "input": "x" * (1 << 20)}]}).encode()
    assert error_message(body) == "Field required"
    assert error_message(b'{"x": "' + b"x" * (1 << 20) + b'", "message": "late"}') is None
