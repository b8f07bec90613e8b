"""Every published layout: counts at full size, round trips, what does not fit, and what it looks like."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.models.config import paper, paper_sd21
from animate4d.models.joining import empty_network, shapes_of
from animate4d.models.layouts.checkpoint import Checkpoint, read_checkpoint
from animate4d.models.layouts.groups import group_of
from animate4d.models.layouts.known import NETWORK_LAYOUTS, layout_named, layout_of
from animate4d.models.layouts.layout import match, to_foreign

COUNTS = {
    "mvdream-ldm": 690,
    "mvdream-bare-ldm": 690,
    "mvdream-wrapped-ldm": 690,
    "mvdream-diffusers": 690,
    "mvdream-camera-apart": 690,
    "animatediff": 567,
    "animatediff-original": 588,
    "ip-adapter": 36,
    "animate3d": 888,
    "animate3d-full": 1614,
}
MEANT_FOR = {
    "ldm": ("base", "mvdream-ldm"),
    "pipeline/unet": ("base", "mvdream-diffusers"),
    "bare/unet": ("base", "mvdream-bare-ldm"),
    "wrapped": ("base", "mvdream-wrapped-ldm"),
    "motion": ("motion", "animatediff"),
    "motion_original": ("motion", "animatediff-original"),
    "image": ("ip-adapter", "ip-adapter"),
    "image_pickle": ("ip-adapter", "ip-adapter"),
    "animate3d": ("animate3d", "animate3d"),
    "animate3d_run": ("animate3d", "animate3d-full"),
}


def opened(files, name: str) -> Checkpoint:
    stem, _, inner = name.partition("/")
    return read_checkpoint(getattr(files, stem) / inner if inner else getattr(files, stem))


def on_meta(shapes) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_groups_at_full_size(full_shapes):
    counts: dict[str, int] = {}
    for name in full_shapes:
        counts[group_of(name)] = counts.get(group_of(name), 0) + 1
    assert counts == {"base": 686, "camera": 4, "image": 36, "mv2v": 48, "motion": 546, "space_time": 294}


@pytest.mark.parametrize("layout", NETWORK_LAYOUTS, ids=lambda layout: layout.name)
def test_key_counts_at_full_size(layout, full_shapes):
    table = layout.table(full_shapes)
    assert len(set(table.values())) == COUNTS[layout.name]
    assert all(layout.foreign_shape(theirs, full_shapes[ours]) for ours, theirs in table.items())


def test_the_released_checkpoint_leaves_726_tensors_to_others(full_shapes):
    layout = layout_named("animate3d")
    table = layout.table(full_shapes)
    file = {theirs: torch.empty(full_shapes[ours], device="meta") for ours, theirs in table.items()}
    _, report = match(layout, full_shapes, Checkpoint(None, file))
    assert (report.matched, report.expected, report.elsewhere, report.fits) == (888, 888, 726, True)
    # 642.70 M are trained; the 42 time encodings (buffers) add 1.42 M numbers to the file
    encodings = sum(full_shapes[name][1] * full_shapes[name][2] for name in table if name.endswith(".pe"))
    assert round((report.parameters - encodings) / 1e6, 2) == 642.70


@pytest.mark.parametrize("name", MEANT_FOR)
def test_a_file_in_each_layout_fits_without_a_mismatch_and_gives_equal_tensors(name, files, shapes, weights):
    option, expected = MEANT_FOR[name]
    checkpoint = opened(files, name)
    layout = layout_of(checkpoint, option)
    assert layout.name == expected
    tensors, report = match(layout, shapes, checkpoint)
    assert report.fits
    assert not report.missing
    assert not report.unexpected
    assert not report.misshaped
    assert set(tensors) == set(layout.table(shapes))
    assert all(torch.equal(tensors[ours], weights[ours]) for ours in tensors)


@pytest.mark.parametrize("layout", NETWORK_LAYOUTS, ids=lambda layout: layout.name)
def test_there_and_back_gives_equal_tensors(layout, shapes, weights):
    theirs = dict(to_foreign(layout, weights))
    back, report = match(layout, shapes, Checkpoint(None, theirs))
    assert report.fits
    again = dict(to_foreign(layout, {**weights, **back}))
    assert theirs.keys() == again.keys()
    assert all(torch.equal(theirs[name], again[name]) for name in theirs)


def test_parts_of_an_ldm_file_are_ignored_with_their_reasons(files, shapes):
    checkpoint = opened(files, "ldm")
    _, report = match(layout_of(checkpoint, "base"), shapes, checkpoint)
    reasons = " ".join(report.ignored)
    assert "autoencoder" in reasons
    assert "text encoder" in reasons
    assert "linear betas" in reasons
    assert "elsewhere" in report.table()


def test_a_prefix_of_distributed_training_is_taken_off(files):
    assert opened(files, "animate3d_run").stripped == "module."


def test_reports_name_what_is_missing_surplus_and_misshaped(shapes, weights):
    layout = layout_named("mvdream-diffusers")
    file = dict(to_foreign(layout, weights))
    del file["conv_in.bias"]
    file["surprise.weight"] = torch.zeros(1)
    file["conv_out.weight"] = torch.zeros(3, 3)
    _, report = match(layout, shapes, Checkpoint(None, file))
    assert report.missing == ("conv_in.bias",)
    assert report.unexpected == ("surprise.weight",)
    assert report.misshaped == (("conv_out.weight", (4, 16, 3, 3), (3, 3)),)
    assert not report.fits
    line = report.summary()
    assert "\n" not in line
    assert "1 missing (first conv_in.bias)" in line
    assert "1 unexpected (first surprise.weight)" in line
    assert "expected [4, 16, 3, 3], found [3, 3]" in line
    assert "surprise.weight" in report.table()


def test_long_lists_are_cut_in_the_table(shapes):
    layout = layout_named("animate3d")
    _, report = match(layout, shapes, Checkpoint(None, {}))
    assert len(report.table().splitlines()) < 25
    assert "and 876 more" in report.table()


def advice_for(layout, shapes, file) -> str:
    _, report = match(layout, shapes, Checkpoint(None, file))
    assert not report.fits
    return layout.advise(report)


def test_a_plain_stable_diffusion_is_recognised_by_its_missing_camera(shapes, weights):
    layout = layout_named("mvdream-ldm")
    file = {name: value for name, value in to_foreign(layout, weights).items() if "camera" not in name}
    assert "plain Stable Diffusion" in advice_for(layout, shapes, file)


def test_the_other_stable_diffusion_is_recognised_by_its_text_width(full_shapes):
    other = shapes_of(empty_network(paper_sd21()))
    layout = layout_named("mvdream-ldm")
    file = dict(to_foreign(layout, on_meta(other)))
    assert match(layout, other, Checkpoint(None, file))[1].fits
    advice = advice_for(layout, full_shapes, file)
    assert "1024 (SD-2.1 base)" in advice
    assert "768 (SD-1.5)" in advice


def test_the_older_animatediff_is_recognised_by_its_missing_middle(shapes, weights):
    layout = layout_named("animatediff-original")
    file = {name: value for name, value in to_foreign(layout, weights).items() if not name.startswith("mid_block")}
    assert "v1 or v3" in advice_for(layout, shapes, file)


def test_an_adapter_without_time_encodings_fits(shapes, weights):
    layout = layout_named("animatediff")
    file = {name: value for name, value in to_foreign(layout, weights).items() if not name.endswith(".pe")}
    tensors, report = match(layout, shapes, Checkpoint(None, file))
    assert report.fits
    assert len(tensors) == 546


def test_another_kind_of_ip_adapter_is_recognised(shapes, weights):
    layout = layout_named("ip-adapter")
    file = dict(to_foreign(layout, weights)) | {"image_proj.latents": torch.zeros(1, 16, 768)}
    assert "another kind of IP-Adapter" in advice_for(layout, shapes, file)


def test_an_ip_adapter_for_another_base_is_recognised(shapes, weights):
    layout = layout_named("ip-adapter")
    file = {name: torch.zeros(len(value), 9) if "ip_adapter" in name else value
            for name, value in to_foreign(layout, weights).items()}  # fmt: skip
    assert "another base" in advice_for(layout, shapes, file)


def test_quantised_weights_are_refused(shapes, weights):
    layout = layout_named("ip-adapter")
    file = dict(to_foreign(layout, weights))
    file["ip_adapter.1.to_k_ip.weight"] = file["ip_adapter.1.to_k_ip.weight"].to(torch.int8)
    with pytest.raises(ModelError, match=r"ip_adapter\.1\.to_k_ip\.weight is stored as int8"):
        match(layout, shapes, Checkpoint(None, file))


def test_a_file_given_as_the_wrong_option_is_told_the_right_one(files):
    with pytest.raises(ModelError, match="AnimateDiff v2, original checkpoint: give it as --motion, not as --base"):
        layout_of(opened(files, "motion_original"), "base")
    with pytest.raises(ModelError, match="give it as --animate3d, not as --motion"):
        layout_of(opened(files, "animate3d"), "motion")
    with pytest.raises(ModelError, match=r"not recognised: expected MVDream.* begin with some\.weight"):
        layout_of(Checkpoint(files.folder, {"some.weight": torch.zeros(1)}), "base")


def test_models_of_another_kind_are_refused_by_field():
    layout = layout_named("animate3d")
    layout.require(paper())
    for change, field in (({"blend": "module"}, "blend"), ({"mv2v": False}, "mv2v")):
        with pytest.raises(ConfigError, match=f"model.{field} is"):
            layout.require(replace(paper(), **change))
    layout_named("mvdream-ldm").require(replace(paper(), blend="fixed", mv2v=False))


def test_encodings_that_differ_cannot_share_one_place(weights):
    name = "mid_block.motion_modules.0.transformer_blocks.0.attn2.time_pos_embed.pe"
    with pytest.raises(ModelError, match="which differ in this model"):
        to_foreign(layout_named("animatediff"), weights | {name: weights[name] + 1})
