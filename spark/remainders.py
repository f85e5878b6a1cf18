"""What `carry` goes on from: the remainders after the last windows, rebuilt from the windows themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.messages import Window
from spark.policies import NOTHING

# A replayed window needs those of the one before it; its own are there already.
KEPT = 2


class Remainders:
    """The remainders after each of an epoch's last windows, by the window's number, in ascending order.

    A window's first copy holds for ever, as every stage downstream forwards that one: a replay under other settings
    changes nothing of what the next window starts from.
    """

    def __init__(self) -> None:
        self._after: dict[int, Mapping[str, int]] = {}

    @classmethod
    def of(cls, windows: Iterable[Window], epoch: str) -> Remainders:
        """Return those that `windows`, in the order they were emitted, say of `epoch`."""
        remainders = cls()
        for window in windows:
            if window.epoch == epoch:
                remainders.keep(window.window, window.carried or NOTHING)
        return remainders

    def before(self, number: int) -> Mapping[str, int]:
        """Return what window `number` starts from: the remainders after the last window before it.

        That need not be the window `number` - 1, as one without records is not emitted.
        """
        earlier = [known for known in self._after if known < number]
        return self._after[max(earlier)] if earlier else NOTHING

    def keep(self, number: int, carried: Mapping[str, int]) -> None:
        """Note what is carried on after window `number`, and forget what no replay can need any more."""
        self._after.setdefault(number, carried)
        for old in sorted(self._after)[:-KEPT]:
            del self._after[old]
