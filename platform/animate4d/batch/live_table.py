"""What a terminal shows below the lines of a batch: the rows at work, rewritten in place."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

STAGE_WIDTH, TIME_WIDTH, GAP = 8, 7, 2
SHOWN = 12
"""Rows in the table; a large cluster works on more than a terminal has lines."""


class LiveTable:
    """A table that stays below what is printed, and goes when it is closed."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def say(self, text: str) -> None:
        """Print one line above the table; nothing in it is markup."""
        self._live.console.print(Text(text), soft_wrap=True)

    def show(self, head: str, running: Mapping[str, float], stages: Mapping[str, str]) -> None:
        """Show rows at work.

        Args:
            head: line above them.
            running: seconds by row id, in any order; the longest come first.
            stages: by row id, where known.
        """
        table = Table(box=None, show_header=False, pad_edge=False)
        longest = sorted(running.items(), key=lambda one: -one[1])
        room = self._live.console.width - STAGE_WIDTH - TIME_WIDTH - 2 * GAP
        names = max((len(row) for row, _ in longest[:SHOWN]), default=1)
        table.add_column(width=max(1, min(names, room)), overflow="ellipsis", no_wrap=True)
        table.add_column(width=STAGE_WIDTH)
        table.add_column(width=TIME_WIDTH, justify="right")
        for row, seconds in longest[:SHOWN]:
            table.add_row(Text(row), Text(stages.get(row) or "working"), Text(f"{seconds:.0f} s"))
        more = [Text(f"and {len(longest) - SHOWN} more")] if len(longest) > SHOWN else []
        self._live.start()
        self._live.update(Group(Text(head), table, *more), refresh=True)

    def close(self) -> None:
        """Take the table away."""
        self._live.stop()
