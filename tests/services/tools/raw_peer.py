"""An MCP server without the SDK, which starts at once and does what the SDK would not let it: it floods, lies about its
schemas, hangs with its whole process and ignores being told to end.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ANY = {"type": "object"}
PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
WORD = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
TOOLS = {
    "say": WORD,
    "keep": WORD,
    "flood": ANY,
    "freeze": PATH,
    "linger": PATH,
    "wound": ANY,
    "far": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}},
    "slow": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}},
    "ahead": {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)"}}},
}


def say(arguments: dict[str, Any]) -> str:
    return f"heard {arguments['word']}"


keep = say  # what is said of its risk is the file's matter


def flood(_: dict[str, Any]) -> str:
    for _ in range(100):
        sys.stdout.write("x" * (1 << 20))
    return "never ends"


def freeze(arguments: dict[str, Any]) -> str:
    """Answers nobody any more, once."""
    marker = Path(arguments["path"])
    if not marker.exists():
        marker.touch()
        time.sleep(3_600)
    return "thawed"


def linger(arguments: dict[str, Any]) -> str:
    """Has its effect, says who it is, and stays."""
    with Path(arguments["path"]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(3_600)
    return "never"


def wound(_: dict[str, Any]) -> str:
    """Neither this process nor its child ends when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], stdin=subprocess.DEVNULL)
    return f"{os.getpid()} {child.pid}"


def answered(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [{"name": name, "description": name, "inputSchema": rule} for name, rule in TOOLS.items()]}
    text = globals()[params["name"]](params.get("arguments", {}))
    return {"content": [{"type": "text", "text": text}]}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] in {"initialize", "tools/list", "tools/call"}:
            reply["result"] = answered(asked["method"], asked.get("params", {}))
        else:
            reply["error"] = {"code": -32601, "message": "there is no such method"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    if "--stubborn" in sys.argv:
        time.sleep(3_600)


if __name__ == "__main__":
    main()
