"""What a client may ask of an animation: the form fields of POST /v1/animations, with the service's own limits.

Names and meanings are those of `pipeline.config.AnimateOptions`; what one request may cost is bounded more here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Form, HTTPException
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from animate4d.core.errors import ConfigError
from animate4d.export.formats import FormatWord
from animate4d.pipeline.config import PROMPT_LIMIT, SEED_LIMIT, AnimateOptions, Loop, Request
from animate4d.serve.webhooks import ADDRESS, MAX_URL

MAX_CLIPS, MAX_STEPS = 4, 100
Fit = Literal["draft", "standard"]
FIT: Fit = "draft"
"""A service answers soon rather than well unless asked."""

# Bounds inside of a union with None are kept in the schema; None itself, which a form cannot say, is left out of it.
Unset = SkipJsonSchema[None]
Rate = Annotated[float, Field(ge=1, le=240, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Guidance = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]

OPTIONS = ("fit", "clips", "strength", "loop", "fps", "formats", "steps", "guidance", "negative_prompt")


def submitted_request(
    prompt: Annotated[
        str,
        Form(
            min_length=1,
            max_length=PROMPT_LIMIT,
            description="What it should do, for example: a fox running",
            json_schema_extra={"pattern": r"\S"},
        ),
    ],
    seed: Annotated[int, Form(ge=0, lt=SEED_LIMIT, description="Another seed gives another motion.")] = 0,
    fit: Annotated[Fit, Form(description="Effort of the motion fit: draft is quick, standard better.")] = FIT,
    clips: Annotated[int, Form(ge=1, le=MAX_CLIPS, description="Clips one after the other.")] = 1,
    strength: Annotated[
        float, Form(ge=0, le=3, allow_inf_nan=False, description="Scales the motion; 1 is as fitted.")
    ] = 1.0,
    loop: Annotated[Loop, Form(description="How the motion ends.")] = "auto",
    fps: Annotated[Rate | Unset, Form(description="Keyframes per second of the GLB.")] = None,
    formats: Annotated[
        list[FormatWord] | Unset, Form(description="Files besides the GLB and the videos; repeat the field.")
    ] = None,
    steps: Annotated[Steps | Unset, Form(description="Denoising steps of the video model.")] = None,
    guidance: Annotated[Guidance | Unset, Form(description="Classifier-free guidance.")] = None,
    negative_prompt: Annotated[str, Form(max_length=PROMPT_LIMIT, description="What to steer away from.")] = "",
    webhook: Annotated[
        str,
        Form(
            max_length=MAX_URL,
            description="Where to POST how it ended, once; where the service has a secret to sign with.",
            json_schema_extra={"pattern": f"^{ADDRESS}$"},
        ),
    ] = "",
) -> dict[str, Any]:
    """Return the form as a job keeps it; a value out of range is a 422 that names its field."""
    if not prompt.strip():
        raise HTTPException(422, "prompt: is empty; say what the object should do")
    request = {
        "prompt": prompt.strip(),
        "seed": seed,
        "fit": fit,
        "clips": clips,
        "strength": strength,
        "loop": loop,
        "fps": fps,
        "formats": formats or ["default"],
        "steps": steps,
        "guidance": guidance,
        "negative_prompt": negative_prompt,
        "webhook": webhook,
    }
    try:
        pipeline_request(request, Path("asset"))
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error
    return request


def pipeline_request(request: dict[str, Any], asset: Path) -> Request:
    """Return what the pipeline is to do for a job's request.

    Raises:
        ConfigError: an option has a value the pipeline does not know.
    """
    options = {name: request[name] for name in OPTIONS if name in request}
    if "formats" in options:
        options["formats"] = tuple(options["formats"])
    return Request(asset=asset, prompt=request["prompt"], seed=request["seed"], options=AnimateOptions(**options))
