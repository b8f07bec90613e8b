"""What a foreign file and the network have in common, and what not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 12
"""Names listed per kind of mismatch before the rest is only counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchReport:
    """How one file fits the tensors it should provide. Names are those of the file, as its users know them.

    Attributes:
        part: what the file was given as ("base", "motion", ...).
        layout: title of the layout it was read as.
        path: the file or folder.
        matched: tensors that fit.
        parameters: numbers in them.
        expected: tensors this layout provides for this network.
        elsewhere: tensors of the network that the layout does not hold, so that other files or the start must.
        missing: names the network needs and the file lacks.
        unexpected: names in the file that nothing explains.
        misshaped: name, expected shape, found shape.
        ignored: reason -> how many names of the file are knowingly left out.
        advice: what the mismatch looks like and what to do, or "".
    """

    part: str
    layout: str
    path: Path
    matched: int
    parameters: int
    expected: int
    elsewhere: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    advice: str = ""

    @property
    def fits(self) -> bool:
        """Whether every tensor is there, has its shape, and nothing is left unexplained."""
        return not (self.missing or self.unexpected or self.misshaped)

    def summary(self) -> str:
        """Return one line."""
        line = f"{self.part}: {self.layout}: {self.matched} of {self.expected} tensors, {self.parameters / 1e6:.2f} M"
        if not self.fits:
            counts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.misshaped))
            wrong = [f"{len(names)} {word} (first {_name(names[0])})" for word, names in counts if names]
            line = f"{self.path}: does not fit as {self.part} ({self.layout}): {', '.join(wrong)}"
            return f"{line}; {self.advice}" if self.advice else line
        return line

    def table(self) -> str:
        """Return the whole report as lines of text, long lists cut."""
        lines = [
            f"{self.part}: {self.path}",
            f"  layout      {self.layout}",
            f"  matched     {self.matched} of {self.expected} tensors, {self.parameters / 1e6:.2f} M parameters",
            f"  elsewhere   {self.elsewhere} tensors of the network are not part of this layout",
        ]
        lines += [f"  ignored     {count} {reason}" for reason, count in self.ignored.items()]
        rows = [f"{name}: expected {list(wanted)}, found {list(found)}" for name, wanted, found in self.misshaped]
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected), ("misshaped", rows)):
            if names:
                lines.append(f"  {title:<11} {len(names)}")
                lines += [f"    {name}" for name in names[:SHOWN]]
                lines += [f"    and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
        return "\n".join(lines)


def _name(entry: str | tuple[str, tuple[int, ...], tuple[int, ...]]) -> str:
    if isinstance(entry, str):
        return entry
    name, wanted, found = entry
    return f"{name}: expected {list(wanted)}, found {list(found)}"
