import shutil
from dataclasses import replace

import pytest

from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.receipt import content_key, matching_receipt, model_version


@pytest.fixture
def bundle(truth_bundle, tmp_path):
    return shutil.copytree(truth_bundle[0].folder, tmp_path / "bundle")


def test_a_whole_result_matches_what_made_it_and_a_moved_asset(truth_request, bundle, tmp_path):
    assert matching_receipt(bundle, truth_request, "any")
    moved = shutil.copy(truth_request.asset, tmp_path / "renamed.glb")
    assert matching_receipt(bundle, replace(truth_request, asset=tmp_path / "renamed.glb"), "any")
    assert moved


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a barrel rolling"},
        {"seed": 1},
        {"clip": "spin"},
        {"options": AnimateOptions(fit="draft", frames=3, strength=0.5)},
        {"options": AnimateOptions(fit="draft", frames=5)},
        {"options": AnimateOptions(fit="standard", frames=3)},
        {"options": AnimateOptions(fit="draft", frames=3, formats=("default", "spz"))},
        {"options": AnimateOptions(fit="draft", frames=3, loop="close")},
        {"options": AnimateOptions(fit="draft", frames=3, tracker="exact")},
    ],
)
def test_another_request_does_not_match(truth_request, bundle, change):
    assert matching_receipt(bundle, replace(truth_request, **change), "any") is None


def test_the_same_files_in_other_words_match(truth_request, bundle):
    words = ("turntable", "viewer", "npz", "ply")
    assert matching_receipt(
        bundle, replace(truth_request, options=replace(truth_request.options, formats=words)), "any"
    )


def test_naming_what_is_meant_anyway_changes_nothing(truth_request, bundle):
    options = replace(truth_request.options, tracker="none")
    assert matching_receipt(bundle, replace(truth_request, options=options), "any")


def test_weights_of_a_tracker_count_by_content(truth_request, tmp_path):
    keys = []
    for name, content in (("a.pth", b"one"), ("b.pth", b"one"), ("a.pth", b"two")):
        (tmp_path / name).write_bytes(content)
        options = replace(truth_request.options, tracker="cotracker3", tracker_checkpoint=tmp_path / name)
        keys.append(content_key(replace(truth_request, options=options), "asset", ""))
    assert keys[0] == keys[1] != keys[2]


def test_other_asset_bytes_do_not_match(truth_request, bundle, tmp_path):
    other = tmp_path / "other.glb"
    other.write_bytes(truth_request.asset.read_bytes() + b"\0\0\0\0")
    assert matching_receipt(bundle, replace(truth_request, asset=other), "any") is None


@pytest.mark.parametrize("name", ["animated.glb", "splats/static.ply", "views.mp4", "receipt.json"])
def test_a_missing_or_cut_file_does_not_match(truth_request, bundle, name):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: len(data) // 2])
    assert matching_receipt(bundle, truth_request, "any") is None
    (bundle / name).unlink()
    assert matching_receipt(bundle, truth_request, "any") is None


def test_a_folder_that_is_not_there_or_not_ours_does_not_match(truth_request, tmp_path):
    assert matching_receipt(tmp_path / "none", truth_request, "") is None
    (tmp_path / "receipt.json").write_text("[]")
    assert matching_receipt(tmp_path, truth_request, "") is None


def test_the_model_counts_for_generated_videos_only(truth_request):
    generated = Request(asset=truth_request.asset, prompt="a barrel")
    assert content_key(generated, "a", "m1") != content_key(generated, "a", "m2")
    assert content_key(truth_request, "a", "m1") == content_key(truth_request, "a", "m2")


def test_model_version_follows_the_bytes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = model_version(tmp_path)
    (tmp_path / "README.md").write_text("a card")
    assert model_version(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert model_version(tmp_path) != before
