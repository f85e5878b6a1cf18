"""An OpenAPI document as a page: one HTML file that needs no script, no other file and no network."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from markupsafe import Markup, escape

from pipeline import problems
from pipeline.openapi.parts import CORS, STAGES, Part
from pipeline.sse import MEDIA_TYPE

METHODS = ("get", "post", "delete")
_CODE = re.compile(r"`([^`]+)`")


class Served:
    """A document as a stage serves it: as JSON, and as a page with its Content-Security-Policy.

    `document` returns it; it is called once, when the first client asks.
    """

    def __init__(self, document: Callable[[], Part]) -> None:
        self._document = document

    @functools.cached_property
    def json(self) -> bytes:
        """The document."""
        return msgspec.json.encode(self._document())

    @functools.cached_property
    def page(self) -> bytes:
        """The page, HTML in UTF-8."""
        return render(self._document()).encode()

    @functools.cached_property
    def policy(self) -> str:
        """The page's Content-Security-Policy: nothing but its own style."""
        style = re.search("<style>(.*?)</style>", self.page.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256((style[1] if style else "").encode()).digest()).decode()
        return (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )


class _Answer(NamedTuple):
    status: str
    text: str
    stages: Sequence[str]
    bodies: Mapping[str, Markup]
    kinds: Mapping[str, str]
    headers: Sequence[str]


class _Operation(NamedTuple):
    method: str
    path: str
    fields: Part
    parameters: Sequence[Part]
    bodies: Mapping[str, Part]
    answers: Sequence[_Answer]
    stream: Part | None


def render(document: Part) -> str:
    """Return the page of a document that `pipeline.openapi` made."""
    # Not above: a subscriber that nobody asks for its page does without the 3 MB.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.openapi", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"prose": _prose, "code": _code, "type": _type, "pretty": _pretty}
    operations = [
        _operation(document, path, method, item)
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    groups = [(tag, [each for each in operations if tag["name"] in each.fields["tags"]]) for tag in document["tags"]]
    return environment.get_template("page.html.jinja").render(
        document=document,
        groups=groups,
        problems=_problems(operations),
        cors=[(name, document["components"]["headers"][name]) for name in CORS],
    )


def _operation(document: Part, path: str, method: str, item: Part) -> _Operation:
    fields = item[method]
    parameters = [resolved(document, each) for each in (*item.get("parameters", ()), *fields["parameters"])]
    answers = [_answer(status, each) for status, each in fields["responses"].items()]
    bodies = fields.get("requestBody", {}).get("content", {})
    contents = [each.get("content", {}).get(MEDIA_TYPE, {}) for each in fields["responses"].values()]
    stream = next((each for each in contents if "x-events" in each.get("schema", {})), None)
    return _Operation(method.upper(), path, fields, parameters, bodies, answers, stream)


def _answer(status: str, answer: Part) -> _Answer:
    content = answer.get("content", {})
    kinds = {name: each["summary"] for name, each in content.get(problems.CONTENT_TYPE, {}).get("examples", {}).items()}
    bodies = {name: _type(body["schema"]) for name, body in content.items() if name != problems.CONTENT_TYPE}
    headers = [name for name in answer["headers"] if name not in CORS]
    return _Answer(status, answer["description"], answer.get(STAGES, ()), bodies, kinds, headers)


def _problems(operations: Sequence[_Operation]) -> dict[str, Part]:
    """Return every kind of problem by its address on the page, with its status and the operations that have it."""
    found: dict[str, Part] = {}
    for operation in operations:
        for status, answer in operation.fields["responses"].items():
            examples = answer.get("content", {}).get(problems.CONTENT_TYPE, {}).get("examples", {})
            for name, example in examples.items():
                kind = found.setdefault(
                    name,
                    {"status": status, "document": example["value"], "headers": {}, "operations": []},
                )
                kind["operations"].append(operation)
    return dict(sorted(found.items(), key=lambda pair: (pair[1]["status"], pair[0])))


def resolved(document: Part, part: Part) -> Part:
    """Return a part of a document, or the component to which it refers."""
    if "$ref" not in part:
        return part
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)


def _code(text: str) -> Markup:
    """Return text with its `code` marked."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _prose(text: str) -> Markup:
    """Return the paragraphs of a description."""
    return Markup("").join(Markup("<p>{}</p>").format(_code(each)) for each in text.split("\n\n"))


def _pretty(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _type(schema: Part) -> Markup:
    """Return a schema in words, with links to the named ones."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if "enum" in schema:
        return Markup(" or ").join(Markup("<code>{}</code>").format(each) for each in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return Markup(" or ").join(_type(each) for each in schema[several])
    kind = schema.get("type", "any")
    if kind == "array":
        items = schema.get("items")
        return Markup("array of ({})").format(_type(items)) if items else Markup("array")
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("object of ({})").format(_type(schema["additionalProperties"]))
    return escape(f"{kind}{_limits(schema)}")


def _limits(schema: Part) -> str:
    words = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minimum": "from {}",
        "maximum": "to {}",
        "maxItems": "at most {} items",
        "format": "{}",
        "pattern": "{}",
        "default": "by default {}",
    }
    found = [form.format(schema[name]) for name, form in words.items() if schema.get(name) is not None]
    return f" ({', '.join(found)})" if found else ""
