"""The OpenAPI file is the contract: whatever a client sends, the answer is one that it documents, and never a 5xx."""

import pytest

from animate4d.serve.api import create_app
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import JobStore
from animate4d.serve.webhooks import Webhooks

hypothesis = pytest.importorskip("hypothesis")
schemathesis = pytest.importorskip("schemathesis")

TOKEN = {"Authorization": "Bearer secret"}
MANY = 10**9


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return JobStore(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def schema(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "tokens"
    path.write_text("alice:secret\n")
    limits = {"max_queued": MANY, "max_open_per_client": MANY, "requests_per_minute": MANY}
    config = ServeConfig(token_file=path, **limits)
    # Random bytes are no model: here every upload is welcome, as the schema says it is.
    app = create_app(
        config, store, lambda _job: None, check=lambda _store, _job: None, webhooks=Webhooks(b"0123456789abcdef")
    )
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def ended_job(store):
    job = store.create({"prompt": "a box", "seed": 0}, "box.glb", client="alice")
    store.receive(job, b"glTF")
    store.save(job)
    result = store.folder(job.id) / "result"
    result.mkdir()
    (result / "animated.glb").write_bytes(b"glTF" * 100)
    return store.finish(job.id, "done").id


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_what_the_schema_says(schema, store, mode):
    called = 0

    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
        def answers(case):
            nonlocal called
            called += 1
            case.call_and_validate(headers=TOKEN)
            if mode == "positive" and "{job_id}" in case.path:
                case.path_parameters |= {"job_id": ended_job(store)}
                case.path_parameters |= {"name": "animated.glb"} if "{name}" in case.path else {}
                assert case.call_and_validate(headers=TOKEN).status_code < 300 or case.path.endswith("/preview")

        try:
            answers()
        except hypothesis.errors.Unsatisfiable:
            assert mode == "negative"  # nothing that this operation takes can be wrong
    assert called >= 75
