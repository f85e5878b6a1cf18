"""The collection and the environment as Postman reads them (format v2.1).

`python -m experiments.postman.collection` writes both files again from `experiments.postman.requests`.
"""

from __future__ import annotations

import argparse
import json
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.postman.javascript import Lines
from experiments.postman.requests import Request, folders

FOLDER = Path(__file__).parent
COLLECTION = FOLDER / "emostream.postman_collection.json"
ENVIRONMENT = FOLDER / "emostream.postman_environment.json"

SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
ADDRESSES = {"ingest": "http://127.0.0.1:8000", "registry": "http://127.0.0.1:8080"}
"""The environment's two addresses, as `python -m pipeline up` prints them by default."""

ABOUT = """\
Every route of EmoStream's three services, with the answers to good and to bad requests.

Set the environment's two addresses, and run the collection from its beginning: the first folder registers a client
whose id and token the others use, the sixth removes it. The chain has its default settings, except for the addresses
and `trigger_s`. A run sends some two hundred reactions.

`GET /openapi.json` and `/docs` of each service describe what is tested here."""

_PARAMETER = re.compile(r"\{(\w+)\}")


def collection() -> dict[str, Any]:
    """Return the collection."""
    requests = folders()
    return {
        "info": {
            "_postman_id": _id("collection"),
            "name": "EmoStream",
            "description": ABOUT,
            "schema": SCHEMA,
        },
        "item": [
            {"name": folder, "item": [_item(folder, request) for request in requests[folder]]} for folder in requests
        ],
        "variable": [{"key": name, "value": ""} for name in sorted(_variables(requests.values()))],
    }


def environment() -> dict[str, Any]:
    """Return the environment."""
    return {
        "id": _id("environment"),
        "name": "EmoStream on this machine",
        "values": [
            {"key": name, "value": address, "type": "default", "enabled": True} for name, address in ADDRESSES.items()
        ],
        "_postman_variable_scope": "environment",
    }


def write(folder: Path = FOLDER) -> None:
    """Write both files into `folder`."""
    for path, document in ((COLLECTION, collection()), (ENVIRONMENT, environment())):
        (folder / path.name).write_text(text(document), encoding="utf-8")


def text(document: dict[str, Any]) -> str:
    """Return a document as the text of its file."""
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _id(*names: str) -> str:
    """Return an id that is the same every time, so that an import replaces what was imported before."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("emostream", *names))))


def _item(folder: str, request: Request) -> dict[str, Any]:
    events = {"prerequest": request.before, "test": request.all_tests}
    behavior = {"disableCookies": True, **({} if request.follow else {"followRedirects": False})}
    made: dict[str, Any] = {
        "method": request.method,
        "header": [{"key": name, "value": value} for name, value in request.headers.items()],
        "url": _url(request),
    }
    if request.body is not None:
        made["body"] = {"mode": "raw", "raw": request.body}
    if request.about:
        made["description"] = request.about
    return {
        "id": _id(folder, request.name),
        "name": request.name,
        "event": [_script(event, lines) for event, lines in events.items() if lines],
        "protocolProfileBehavior": behavior,
        "request": made,
    }


def _script(event: str, lines: Lines) -> dict[str, Any]:
    return {"listen": event, "script": {"type": "text/javascript", "exec": list(lines)}}


def _url(request: Request) -> dict[str, Any]:
    host = f"{{{{{request.stage}}}}}"
    path = _PARAMETER.sub(r":\1", request.path)
    made: dict[str, Any] = {
        "raw": f"{host}{path}{'?' if request.query else ''}{request.query}",
        "host": [host],
        "path": path.split("/")[1:],
    }
    if request.query:
        pairs = (pair.partition("=") for pair in request.query.split("&"))
        made["query"] = [{"key": key, "value": value} for key, _, value in pairs]
    names = _PARAMETER.findall(request.path)
    if names:
        made["variable"] = [{"key": name, "value": request.values.get(name, f"{{{{{name}}}}}")} for name in names]
    return made


def _variables(requests: Iterable[list[Request]]) -> set[str]:
    """Return the names of the variables that scripts set."""
    lines = (line for folder in requests for each in folder for line in (*each.before, *each.all_tests))
    return {name for line in lines for name in re.findall(r'collectionVariables\.set\("(\w+)"', line)}


def main() -> None:
    """`python -m experiments.postman.collection`."""
    argparse.ArgumentParser(
        prog="python -m experiments.postman.collection",
        description="Write the Postman collection and its environment again, from the requests and the OpenAPI "
        "documents.",
    ).parse_args()
    write()


if __name__ == "__main__":
    main()
