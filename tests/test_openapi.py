from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemonkit.web.routes import ROUTES

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "openapi.yaml").read_text("utf-8"))
OPERATIONS = {
    (path[1:], method.upper()): operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}


NOT_JSON = {"", "metrics", "page/{name}"}


def followed(found: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to, or what isn't one."""
    if "$ref" not in found:
        return found
    target = DOCUMENT
    for name in found["$ref"].removeprefix("#/").split("/"):
        target = target[name]
    return target


def schemas_in(found: Any) -> Iterator[Any]:
    """All schemas in a part of the document."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "schema":
                yield value
            elif key == "schemas":
                yield from value.values()
            else:
                yield from schemas_in(value)


def test_the_document_is_valid() -> None:
    openapi = pytest.importorskip("schemathesis.openapi", reason="it needs Python 3.11")
    openapi.from_dict(DOCUMENT).validate()
    # The document's own schema has no say about these.
    json_schema = pytest.importorskip("jsonschema_rs", reason="schemathesis brings it")
    for schema in schemas_in(DOCUMENT):
        json_schema.meta.validate(schema)

    assert DOCUMENT["openapi"].startswith("3.1.")


def test_it_has_the_library_s_routes_with_their_methods_and_rights() -> None:
    assert {
        path.replace("{", "<").replace("}", ">"): (
            method,
            operation["security"][0]["bearer"][0] if operation["security"] else None,
        )
        for (path, method), operation in OPERATIONS.items()
    } == {path: (route.method, route.right) for path, route in ROUTES.items()}
    scheme = DOCUMENT["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_it_describes_every_answer_to_events() -> None:
    page = (DOCS / "events.md").read_text("utf-8")
    table = re.findall(r"^\| [^|]+ \| ([1-5]\d\d)\b", page, re.M)
    described = OPERATIONS["events", "POST"]["responses"]

    assert len(table) >= 10
    # The only one that isn't an answer to this method.
    assert {*table, "200", "401", "403"} - {"405"} == set(described)
    assert "MethodNotAllowed" in DOCUMENT["components"]["responses"]


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_who_may_not_is_answered_so_on_each_route_that_needs_a_right(path: str) -> None:
    right = ROUTES[path].right
    described = path.replace("<", "{").replace(">", "}")
    responses = OPERATIONS[described, ROUTES[path].method]["responses"]

    assert ({"401", "403"} <= set(responses)) is (right is not None)


def test_each_answer_but_those_of_ping_is_an_envelope() -> None:
    for (path, _), operation in OPERATIONS.items():
        for code, response in operation["responses"].items():
            contents = followed(response)["content"]
            kind, content = next(iter(contents.items()))
            if path != "ping" and not (path in NOT_JSON and code == "200"):
                assert len(contents) == 1
                assert kind == "application/json", (path, code)
                schema = followed(content["schema"])
                base = followed(schema.get("allOf", [schema])[0])
                assert base["required"][:2] == ["message", "result"], (path, code)


def test_an_answer_that_asks_to_come_back_says_when() -> None:
    for operation in OPERATIONS.values():
        for code in operation["responses"].keys() & {"503"}:
            response = followed(operation["responses"][code])
            is_envelope = "application/json" in response["content"]
            assert ("Retry-After" in response.get("headers", {})) is is_envelope
