"""The server against its own OpenAPI document, by schemathesis: whatever is sent, nothing breaks."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .served import here, random_served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document() -> Iterator[schemathesis.schemas.BaseSchema]:
    with here(random_served(positions=96)) as url:
        root = url.removesuffix("/v1")
        yield schemathesis.openapi.from_url(f"{root}/openapi.json")


def test_the_document_names_every_route(document: schemathesis.schemas.BaseSchema) -> None:
    assert set(document) == {
        "/health",
        "/metrics",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/chat/completions",
        "/v1/completions",
    }


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)
def test_whatever_is_sent_nothing_breaks(
    document: schemathesis.schemas.BaseSchema, mode: GenerationMode
) -> None:
    """Most requests name the model that is there, or none would get far."""
    for result in document.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing in it could be wrong

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
                case.body["model"] = "random-fox"
            case.call_and_validate(checks=CHECKS)

        send()
