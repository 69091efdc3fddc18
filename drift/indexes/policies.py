"""What value a search setting has when a list of some length is asked for."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from drift import InputError

Value = int | float | str
_POLICY = re.compile(
    r"(?P<number>(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?)"
    r"|(?!1k)(?P<multiple>[1-9][0-9]{0,2}|(?:0|[1-9][0-9]{0,2})\.[0-9]{0,3}[1-9])?k"
    r"(?:,(?P<least>[1-9][0-9]{0,8}))?"
    r"|(?P<criterion>overlap|lid)=(?P<level>0\.[0-9]{0,5}[1-9])"
)


class Target(NamedTuple):
    """What a search has to reach: ``overlap`` at least, or a relative error of ``lid`` at most."""

    criterion: str
    level: float


@dataclass(frozen=True)
class Policy:
    """How a setting depends on the length of the list that is searched for.

    ``50`` is that number; ``k``, ``2k``, ``0.25k`` are that length, or a multiple of it rounded
    down, but at least 2; ``k,50`` or ``2k,50`` the same, but at least 50. ``overlap=0.99`` and
    ``lid=0.01`` are the smallest value found that reaches this (`drift.indexes.effort`). Anything
    else is an `InputError`.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.is_one(self.text):
            raise InputError(
                f"{self.text} is no value of a search setting: write a number, k, a multiple like "
                "2k or 0.25k, k,50 for k but at least 50, overlap=0.99 or lid=0.01"
            )

    @staticmethod
    def is_one(text: str) -> bool:
        return _POLICY.fullmatch(text) is not None

    @property
    def number(self) -> int | float | None:
        """The value, where it does not depend on the list."""
        text = self._parts["number"]
        return text and (float(text) if "." in text else int(text))

    @property
    def target(self) -> Target | None:
        """What has to be reached, where the value is yet to be found."""
        criterion, level = self._parts["criterion"], self._parts["level"]
        return Target(criterion, float(level)) if criterion else None

    @property
    def least(self) -> int | float:
        """The value for the shortest lists."""
        return int(self._parts["least"] or 2) if self.number is None else self.number

    def value(self, length: int) -> int | float:
        """The value for lists of some length, of a policy without a target."""
        if self.number is not None:
            return self.number
        # A fraction, since 0.29 of 100 would be 28 in floating point.
        return max(int(Fraction(self._parts["multiple"] or 1) * length), self.least)

    @property
    def _parts(self) -> dict[str, str | None]:
        return _POLICY.fullmatch(self.text).groupdict()
