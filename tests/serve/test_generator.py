"""The generator without Ray: what shares a batch is what it would be alone, models come and go between batches."""

import asyncio
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.core.errors import ConfigError, ModelError
from animate4d.models.sampler_config import SamplerConfig
from animate4d.serve import generator as generator_module
from animate4d.serve.generator import Generator
from animate4d.serve.shared_model import Order
from animate4d.videos.maker import GeneratedVideo

RIG = Rig.even(2)


@pytest.fixture(scope="module")
def model_folder(save_model, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def batches(monkeypatch):
    """Sizes of the batches that were generated."""
    sizes = []
    generate = generator_module.generate_videos

    def counted(model, first_frames, *args, **settings):
        sizes.append(len(first_frames))
        return generate(model, first_frames, *args, **settings)

    monkeypatch.setattr(generator_module, "generate_videos", counted)
    return sizes


def order(number=0, **changes):
    frames = np.random.default_rng(number).integers(0, 256, (2, 16 * (1 + number % 2), 16 * (1 + number % 2), 4))
    prompt = ("a box bouncing", "a fox running", "a barrel")[number % 3]
    base = Order(
        id=f"order{number}",
        first_frames=frames.astype(np.uint8),
        rig=RIG,
        prompt=prompt,
        seed=7 * number,
        config=SamplerConfig(steps=2),
        alone=False,
    )
    return replace(base, **changes)


def make(generator, *orders):
    async def run():
        return await asyncio.gather(*map(generator.generate, orders))

    return asyncio.run(run())


def generator(folder, batch=3):
    return Generator(str(folder), None, 1, batch)


def same(one, other):
    for name in ("flow", "flow_weight", "times"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
    for name in ("rgb", "alpha"):
        assert np.abs(getattr(one, name).astype(int) - getattr(other, name)).max() <= 1


def test_each_of_a_batch_is_what_it_would_be_alone(model_folder, batches):
    shared = generator(model_folder)
    orders = [order(number) for number in range(3)]
    together = make(shared, *orders)
    assert batches == [3]
    version = asyncio.run(shared.status())["version"]
    for one, (video, made_by) in zip(orders, together, strict=True):
        ((alone, _),) = make(shared, one)
        same(video, alone)
        assert made_by == version
    assert batches == [3, 1, 1, 1]
    assert np.abs(together[0][0].flow - together[2][0].flow).max() > 1e-3


def test_other_settings_and_what_asks_to_be_alone_do_not_share(model_folder, batches):
    guided = SamplerConfig(steps=2, guidance=2.0)
    made = make(generator(model_folder), order(), order(1, config=guided), order(2), order(3, alone=True))
    assert batches == [2, 1, 1]
    assert all(isinstance(video, GeneratedVideo) for video, _ in made)


def test_a_bad_order_fails_alone(model_folder, batches):
    bad = order(1, first_frames=order().first_frames[:1])
    good, refused, other = make(generator(model_folder), order(), bad, order(2))
    assert isinstance(refused, ConfigError)
    assert "1 views" in str(refused)
    assert batches == [3, 1, 1, 1]
    for number, (video, _) in ((0, good), (2, other)):
        same(video, make(generator(model_folder), order(number))[0][0])


def test_a_batch_that_does_not_fit_into_memory_is_made_in_parts(model_folder, monkeypatch):
    generate, sizes = generator_module.generate_videos, []

    def small(model, first_frames, *args, **settings):
        sizes.append(len(first_frames))
        if len(first_frames) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(model, first_frames, *args, **settings)

    monkeypatch.setattr(generator_module, "generate_videos", small)
    shared = generator(model_folder, batch=4)
    for _ in range(2):
        assert all(isinstance(video, GeneratedVideo) for video, _ in make(shared, *map(order, range(4))))
    assert sizes == [4, 1, 1, 1, 1, 2, 2]


def test_what_breaks_in_the_model_is_an_error_of_its_order(model_folder, monkeypatch):
    monkeypatch.setattr(generator_module, "generate_videos", lambda *_, **__: 1 / 0)
    (broken,) = make(generator(model_folder), order())
    assert (type(broken), str(broken)) == (RuntimeError, "ZeroDivisionError: division by zero")


def test_a_gpu_that_has_failed_makes_the_replica_unhealthy(model_folder, monkeypatch):
    shared = generator(model_folder)
    shared.check_health()

    def fail():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with pytest.raises(torch.AcceleratorError):
        shared.check_health()


def test_a_batch_that_nobody_waits_for_ends_and_tells_its_steps_until_then(model_folder, monkeypatch):
    stepped, go_on, ended = threading.Event(), threading.Event(), []

    def endless(*_, progress, **__):
        try:
            for done in range(1, 1000):
                progress(done, 1000)
                stepped.set()
                assert go_on.wait(30)
        except Exception as error:
            ended.append((done, type(error)))
            raise

    monkeypatch.setattr(generator_module, "generate_videos", endless)

    async def leave():
        shared = generator(model_folder)
        tasks = [asyncio.create_task(shared.generate(order(number))) for number in range(2)]
        assert await asyncio.to_thread(stepped.wait, 30)
        assert [await shared.steps(f"order{number}") for number in range(3)] == [(1, 1000), (1, 1000), None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        go_on.set()
        while not ended:
            await asyncio.sleep(0.01)
        assert await shared.steps("order0") is None

    asyncio.run(asyncio.wait_for(leave(), 60))
    assert ended == [(2, generator_module.Abandoned)]


def test_a_missing_model_is_told_and_loaded_once_it_is_there(model_folder, tmp_path):
    late = generator(tmp_path / "late")
    assert "no model folder" in asyncio.run(late.status())["reason"]
    (refused,) = make(late, order())
    assert isinstance(refused, ModelError)
    shutil.copytree(model_folder, tmp_path / "late")
    (tmp_path / "late" / "model.safetensors").unlink()
    assert "cannot be loaded" in asyncio.run(late.status())["reason"]
    shutil.copy(model_folder / "model.safetensors", tmp_path / "late")
    assert set(asyncio.run(late.status())) == {"name", "version"}
    assert isinstance(make(late, order())[0][0], GeneratedVideo)


@pytest.fixture
def register(tmp_path):
    """Returns a function that makes a model folder the champion of a real MLflow store, and the store's URI."""
    from animate4d.runs.registry import register_model
    from animate4d.runs.store import connect

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    experiment = client.create_experiment("training", artifact_location=(tmp_path / "artifacts").as_uri())

    def champion(folder):
        run = client.create_run(experiment).info.run_id
        client.log_artifacts(run, str(folder), "model")
        return register_model(client, run)

    champion.uri = uri
    return champion


@pytest.mark.slow
def test_a_new_champion_is_taken_between_two_batches_and_drops_no_order(
    save_model, register, batches, tmp_path, monkeypatch
):
    register(save_model(tmp_path / "a", seed=1))
    shared = Generator("models:/mv-vdm@champion", register.uri, 1, 2)
    first = asyncio.run(shared.status())
    at_work, go_on = threading.Event(), threading.Event()
    counted = generator_module.generate_videos

    def held(*args, **settings):
        at_work.set()
        assert go_on.wait(60)
        return counted(*args, **settings)

    monkeypatch.setattr(generator_module, "generate_videos", held)

    async def swap():
        early = [asyncio.create_task(shared.generate(order(number))) for number in range(2)]
        assert await asyncio.to_thread(at_work.wait, 60)
        late = [asyncio.create_task(shared.generate(order(number))) for number in range(2, 5)]
        assert await asyncio.to_thread(register, save_model(tmp_path / "b", seed=2)) == "2"
        monkeypatch.setattr(generator_module, "MODEL_SECONDS", 0.0)
        assert await asyncio.wait_for(shared.status(), 60) == first  # at once, and not in the middle of a batch
        go_on.set()
        return await asyncio.gather(*early), await asyncio.gather(*late)

    early, late = asyncio.run(swap())
    second = asyncio.run(shared.status())
    assert first["version"] != second["version"]
    assert [version for _, version in early] == [first["version"]] * 2
    assert [version for _, version in late] == [second["version"]] * 3
    assert batches == [2, 2, 1]
    same(late[0][0], make(generator(tmp_path / "b"), order(2))[0][0])

    shutil.copytree(tmp_path / "b", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"")
    assert register(tmp_path / "broken") == "3"
    assert asyncio.run(shared.status()) == second
    assert [version for _, version in make(shared, order(1))] == [second["version"]]


def test_the_alias_is_looked_up_once_a_minute(model_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(generator_module, "resolve_model", lambda *_, **__: asked.append(time.time()) or model_folder)
    shared = Generator("models:/mv-vdm@champion", None, 1, 1)
    for _ in range(3):
        asyncio.run(shared.status())
    assert len(asked) == 1
