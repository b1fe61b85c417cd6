"""One frame of each interval of a video. Apart, as photos have no use for fractions."""

from fractions import Fraction


class Intervals:
    """Takes the first frame of each interval of `every` seconds, counted from time 0."""

    def __init__(self, every: float) -> None:
        # As it is written: the double next to 0.1 is above it, and the frame at 0.1 would be late.
        self._every = Fraction(str(every))
        self._last: int | None = None

    def is_due(self, time: Fraction) -> bool:
        """Tell whether no frame was taken of the interval that holds this time."""
        return not self._every or time // self._every != self._last

    def take(self, time: Fraction) -> bool:
        """Tell the same, and take the frame if so."""
        due = self.is_due(time)
        if due and self._every:
            self._last = time // self._every
        return due
