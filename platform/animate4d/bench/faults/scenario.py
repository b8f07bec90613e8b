"""What a fault scenario is, and what it measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from animate4d.bench.faults.workbench import Workbench


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What became of a fault.

    Attributes:
        detected_s: seconds from the fault until the platform said so; None if it never did.
        recovered_s: seconds from the fault until work had gone on past it, with the user's part done where the message
            asks for one; None if it never did.
        lost: units of work that were done for nothing or left out, all of them named or counted by the platform.
        silent: units that are missing, twice there or different from the undisturbed run without a word.
        messages: what the user saw, one for each way in which the fault was made to happen.
    """

    detected_s: float | None
    recovered_s: float | None
    lost: int
    silent: int
    messages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One fault, how to make it happen, and what is documented about it.

    Attributes:
        name: number in the list of faults, with a suffix for a second scenario of the same fault.
        what: happens.
        then: what the platform does, as documented.
        unit: in which loss is counted.
        most_lost: most units that may be lost.
        says: words that each message must hold: which file, sample or step it is, and what to do.
        notices: whether there is something to notice; a case that must simply work has no message.
        needs_ray: whether it takes a running Ray.
        run: makes it happen.
    """

    name: str
    what: str
    then: str
    unit: str
    most_lost: int
    says: tuple[str, ...]
    notices: bool
    needs_ray: bool
    run: Callable[[Workbench], Account]

    def problems(self, account: Account) -> list[str]:
        """Return everything in which a fault went other than documented; empty if nothing did."""
        found = []
        if self.notices and account.detected_s is None:
            found.append("not detected")
        if account.recovered_s is None:
            found.append("not recovered")
        if account.lost > self.most_lost:
            found.append(f"lost {account.lost} {self.unit}, at most {self.most_lost} are documented")
        if account.silent:
            found.append(f"{account.silent} silent losses")
        for message in account.messages:
            found += [f"{message!r} does not say {word!r}" for word in self.says if word not in message]
            if "\n" in message:
                found.append(f"{message!r} is not one line")
        return found


def scenario(
    name: str,
    what: str,
    *,
    then: str,
    unit: str = "clips",
    most_lost: int = 0,
    says: tuple[str, ...] = (),
    needs_ray: bool = False,
) -> Callable[[Callable[[Workbench], Account]], Scenario]:
    """Make a scenario of a function; see `Scenario` for the words. Without `says` there is nothing to notice."""

    def make(run: Callable[[Workbench], Account]) -> Scenario:
        return Scenario(
            name=name,
            what=what,
            then=then,
            unit=unit,
            most_lost=most_lost,
            says=says,
            notices=bool(says),
            needs_ray=needs_ray,
            run=run,
        )

    return make


class Watch:
    """Measures the seconds from a fault to its notice and to its mending."""

    def __init__(self) -> None:
        self.detected_s: float | None = None
        self.recovered_s: float | None = None
        self.message = ""
        self.start()

    def start(self) -> None:
        """Say that the fault happens now; making the watch says so too."""
        self._began = time.perf_counter()

    def started_with(self, file: Path) -> None:
        """Say that the fault happened when a file was made."""
        self._began = time.perf_counter() - (time.time() - file.stat().st_mtime)

    def detected(self, message: str) -> None:
        """Say that the platform has noticed; only the first time counts."""
        if self.detected_s is None:
            self.detected_s, self.message = time.perf_counter() - self._began, message

    def recovered(self) -> None:
        """Say that work has gone on past the fault."""
        self.recovered_s = time.perf_counter() - self._began

    def account(self, *, lost: int, silent: int) -> Account:
        """Return what was measured."""
        return Account(
            detected_s=self.detected_s,
            recovered_s=self.recovered_s,
            lost=lost,
            silent=silent,
            messages=() if self.detected_s is None else (self.message,),
        )

    @contextmanager
    def expecting(self, *errors: type[BaseException]) -> Iterator[None]:
        """Hold a block that should raise one of these; where it does not, nothing was noticed."""
        try:
            yield
        except errors as error:
            self.detected(str(error))


def worst(accounts: Sequence[Account]) -> Account:
    """Return the longest times and the largest loss of several ways in which one fault can happen."""

    def longest(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return max(known) if len(known) == len(values) else None

    return Account(
        detected_s=longest([account.detected_s for account in accounts]),
        recovered_s=longest([account.recovered_s for account in accounts]),
        lost=max(account.lost for account in accounts),
        silent=sum(account.silent for account in accounts),
        messages=tuple(dict.fromkeys(message for account in accounts for message in account.messages)),
    )
