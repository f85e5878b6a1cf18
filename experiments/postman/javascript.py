"""The tests of the collection's requests, as lines of JavaScript for Postman. Pure."""

from __future__ import annotations

import json

Lines = tuple[str, ...]


def answers(status: int) -> Lines:
    """Return the test of a status."""
    return (f'pm.test("the answer is {status}", () => pm.response.to.have.status({status}));',)


def is_problem(slug: str) -> Lines:
    """Return the test of a problem document whose kind is `slug`; empty for `about:blank`."""
    kind = f"to.match(/#{slug}$/)" if slug else 'to.eql("about:blank")'
    return check(
        "a problem document gives the reason",
        'pm.response.to.have.header("Content-Type", "application/problem+json");',
        "const problem = pm.response.json();",
        f"pm.expect(problem.type).{kind};",
        "pm.expect(problem.status).to.eql(pm.response.code);",
        "pm.expect(problem.title).to.be.a('string').that.is.not.empty;",
        "pm.expect(problem.detail).to.be.a('string').that.is.not.empty;",
    )


def check(name: str, *lines: str) -> Lines:
    """Return a test of several lines."""
    return (f"pm.test({json.dumps(name)}, () => {{", *(f"    {line}" for line in lines), "});")


def has_header(name: str, value: str = "") -> Lines:
    """Return the test of a header, with a value if one is given."""
    given = f"{json.dumps(name)}, {json.dumps(value)}" if value else json.dumps(name)
    return (f'pm.test("{name} is set", () => pm.response.to.have.header({given}));',)


def keep(name: str, value: str) -> Lines:
    """Return the line that keeps the value of an expression for later requests."""
    return (f"pm.collectionVariables.set({json.dumps(name)}, {value});",)


def repeated(until: str, turns: int, then: Lines) -> Lines:
    """Return lines that send this request again until the expression `until` holds, and do `then` in the end.

    After `turns` turns `then` is done in any case, so that its tests say what is missing.
    """
    return (
        'const turn = Number(pm.collectionVariables.get("turn") || 0) + 1;',
        f"if (!({until}) && turn < {turns}) {{",
        '    pm.collectionVariables.set("turn", turn);',
        "    pm.execution.setNextRequest(pm.info.requestName);",
        "} else {",
        '    pm.collectionVariables.unset("turn");',
        *(f"    {line}" for line in then),
        "}",
    )
