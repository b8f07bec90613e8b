"""A sentence for every animation: from a table the user gives, else from the names of object and clip.

"animals__Fox" and "AnimalArmature|Gallop" become "a fox galloping".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from animate4d.core.errors import ConfigError

CAPTIONS_NAME = "captions.csv"
COLUMNS = ("file", "clip", "caption")

PHRASES = {
    "idle": "standing idle",
    "idle hit react left": "reacting to a hit from the left",
    "idle hit react right": "reacting to a hit from the right",
    "death": "dying",
    "dead": "lying dead",
    "hit react": "reacting to a hit",
    "hit recieve": "reacting to a hit",
    "hit receive": "reacting to a hit",
    "hit": "reacting to a hit",
    "no": "shaking its head",
    "yes": "nodding",
    "hello": "waving hello",
    "thumbs up": "giving a thumbs up",
    "out of water": "flopping out of water",
    "gallop jump": "jumping from a gallop",
    "walk jump": "jumping while walking",
    "jump land": "landing from a jump",
    "jump landing": "landing from a jump",
    "jump no height": "jumping on the spot",
    "sword slash": "slashing with a sword",
    "gun shoot": "shooting a gun",
    "pickup": "picking something up",
    "weapon": "raising a weapon",
    "survey": "looking around",
    "headbutt": "butting with its head",
    "attack headbutt": "attacking with its head",
    "attack kick": "attacking with a kick",
    "on": "switching on",
    "off": "switching off",
    "forward": "driving forward",
    "backwards": "driving backwards",
    "interact": "reaching out",
    "standing": "standing up",
    "sitting": "sitting down",
}
"""Clip names that are not verbs, or read badly as one."""

MANNERS = {
    "left": "to the left",
    "right": "to the right",
    "back": "backwards",
    "front": "forward",
    "in place": "on the spot",
    "inplace": "on the spot",
    "gun": "with a gun",
    "sword": "with a sword",
    "gun shoot": "and shooting a gun",
    "gun pointing": "pointing a gun",
    "shoot": "and shooting",
    "holding": "holding something",
    "headlow": "with its head low",
    "head low": "with its head low",
    "to idle": "to a stand",
    "normal": "",
    "neutral": "",
    "impulse": "in bursts",
    "idle": "in one place",
    "tall": "upright",
    "big": "strongly",
    "small": "weakly",
}
"""What may follow the verb in a clip's name."""

NAMELESS = {
    "clip",
    "take",
    "animation",
    "anim",
    "action",
    "armature",
    "mixamo",
    "scene",
    "layer",
    "default",
    "base",
    "all",
}
"""Words that tools give to animations nobody named."""


def caption_of(object_name: str, clip_name: str) -> str:
    """Make a caption from a file stem and a clip name."""
    noun = words_of(object_name.rsplit("__", 1)[-1])
    while len(noun) > 1 and noun[-1].isdigit():
        noun.pop()
    verb = words_of(clip_name.rsplit("|", 1)[-1])
    # Exporters put the object's name in front of the clip's: "TRex_Jump", "Tank_Forward".
    joined = "".join(noun)
    for length in range(len(verb) - 1, 0, -1):
        if "".join(verb[:length]) in joined:
            verb = verb[length:]
            break
    subject = " ".join(noun) or "object"
    return f"{'an' if subject[0] in 'aeiou' else 'a'} {subject} {phrase_of(verb)}"


def words_of(name: str) -> list[str]:
    """Split a name at case changes, digits and punctuation into lower-case words; trailing copy numbers are dropped."""
    name = re.sub(r"\.\d+$", "", name)
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def phrase_of(words: list[str]) -> str:
    """Turn the words of a clip's name into a verb phrase."""
    words = [word for word in words if not word.isdigit()]
    if not words or words[0] in NAMELESS:
        return "moving"
    for length in range(len(words), 0, -1):
        head = " ".join(words[:length])
        if head in PHRASES:
            return joined_phrase(PHRASES[head], words[length:])
    if len(words) > 1 and words[-1].endswith("ing") and words[-1] not in MANNERS and not words[0].endswith("ing"):
        words = [words[-1], *words[:-1]]  # "Fast_Flying"
    return joined_phrase(gerund(words[0]), words[1:])


def joined_phrase(verb: str, rest: list[str]) -> str:
    """Append the manner to a verb phrase."""
    manner = MANNERS.get(" ".join(rest), " ".join(rest))
    return f"{verb} {manner}".strip()


def gerund(verb: str) -> str:
    """Return the -ing form by the spelling rules of English."""
    if verb.endswith("ing"):
        return verb
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    # One vowel before one final consonant doubles it: run, swim, sit; not walk, eat, show.
    if re.fullmatch(r"[^aeiou]*[aeiou][bdgklmnprt]", verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"


def read_captions(path: Path) -> dict[str, dict[str, str]]:
    """Read a table of captions (columns file, clip, caption; UTF-8, with or without BOM).

    Returns:
        File name -> clip name -> caption. Files that do not exist may be listed.

    Raises:
        ConfigError: a column is missing, or a row lacks a cell; names file and line.
    """
    captions: dict[str, dict[str, str]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}: has no column {', '.join(missing)}; expected file,clip,caption")
            for row in rows:
                file, clip, caption = ((row[column] or "").strip() for column in COLUMNS)
                if not file or not caption:
                    raise ConfigError(f"{path} line {rows.line_num}: file and caption must not be empty")
                captions.setdefault(file, {})[clip] = " ".join(caption.split())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a UTF-8 CSV ({error})") from error
    return captions


def captions_for(path: Path, captions: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the captions of one asset; the table may name files with or without folders in front."""
    for name in (str(path), path.name):
        if name in captions:
            return dict(captions[name])
    for file, clips in captions.items():
        if path.as_posix().endswith("/" + file):
            return dict(clips)
    return {}
