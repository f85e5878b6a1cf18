"""The remainders that policy `carry` continues from, rebuilt from the last windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.messages import Window
from spark.policies import NOTHING

# The next window needs the last window's remainders; a replay of the last window needs those before it.
KEPT = 2


class Remainders:
    """The remainders after each of an epoch's last windows, by window number, in ascending order.

    The first copy of a window counts, because later stages forward only that one. A replay with other settings does not
    change what the next window starts from.
    """

    def __init__(self) -> None:
        self._after: dict[int, Mapping[str, int]] = {}

    @classmethod
    def of(cls, windows: Iterable[Window], epoch: str) -> Remainders:
        """Return the remainders in those `windows`, in order of emission, that belong to `epoch`."""
        remainders = cls()
        for window in windows:
            if window.epoch == epoch:
                remainders.keep(window.window, window.carried or NOTHING)
        return remainders

    def before(self, number: int) -> Mapping[str, int]:
        """Return the remainders that window `number` starts from: those after the last window before it.

        That is not always window `number` - 1, because a window without records is not emitted.
        """
        earlier = [known for known in self._after if known < number]
        return self._after[max(earlier)] if earlier else NOTHING

    def keep(self, number: int, carried: Mapping[str, int]) -> None:
        """Store the remainders after window `number`, and drop those that no replay can need."""
        self._after.setdefault(number, carried)
        for old in sorted(self._after)[:-KEPT]:
            del self._after[old]
