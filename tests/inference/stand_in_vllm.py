"""Acts as an interpreter that has vLLM, whose server answers with what it knows of itself.

A test copies it to a directory of its own, where `alive` is a pipe that it and its child hold open: whoever reads that
to the end knows that both are gone. A file `lacks-vllm` there makes it an interpreter without vLLM.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ARGUMENTS = sys.argv[1:]
HERE = Path(__file__).parent


def option(name: str) -> str:
    return ARGUMENTS[ARGUMENTS.index(name) + 1] if name in ARGUMENTS else ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    child: int

    def do_GET(self) -> None:
        loaded = option("--loaded")
        self.answer(503 if loaded and not Path(loaded).exists() else 200, b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        facts = {"pid": os.getpid(), "child": self.child, "arguments": ARGUMENTS, "environment": dict(os.environ)}
        self.answer(200, json.dumps(facts).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    if ARGUMENTS[0] == "-c":
        sys.exit((HERE / "lacks-vllm").exists())
    if option("--stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    alive = os.open(HERE / "alive", os.O_RDWR)  # write-only would wait for a reader
    sleeper = [sys.executable, "-IS", "-c", "import signal; signal.pause()"]
    Handler.child = subprocess.Popen(sleeper, pass_fds=[alive]).pid
    print("(APIServer pid=1) INFO 11-21 12:02:17 [api.py:1] Loading the model", flush=True)
    if option("--fail"):
        print("ValueError: " + option("--fail"), flush=True)
        os._exit(3)
    http.server.ThreadingHTTPServer((option("--host"), int(option("--port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
