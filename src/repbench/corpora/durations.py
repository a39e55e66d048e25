"""Starts and durations that give ends back bit for bit, for formats that write no end. Times are seconds.

In float64 not every end is a sum of its start and a duration: where the two lie half way between doubles, rounding to
even skips every second end. A sum whose ties are rounded up reaches all of them, because durations are at least as
close together as ends.
"""

from __future__ import annotations

import math


def end_of(start_s: float, duration_s: float) -> float:
    """The sum of start and duration, ties rounded up: `start_s + duration_s`, or the double after it.

    Example:
        >>> end_of(0.46975, 1.4171874999999998), 0.46975 + 1.4171874999999998
        (1.8869375, 1.8869374999999997)
    """
    end_s = start_s + duration_s
    # the exact rest of the sum (Knuth, "The Art of Computer Programming", volume 2, 4.2.2, theorem B)
    added = end_s - start_s
    rest = (start_s - (end_s - added)) + (duration_s - added)
    after = math.nextafter(end_s, math.inf)
    return after if rest > 0 and rest == (after - end_s) / 2 else end_s


def duration_to(start_s: float, end_s: float) -> float:
    """The duration for which `end_of` gives exactly `end_s`, for 0 <= start_s < end_s."""
    duration_s = end_s - start_s
    for candidate in (duration_s, math.nextafter(duration_s, math.inf), math.nextafter(duration_s, 0.0)):
        if end_of(start_s, candidate) == end_s:
            return candidate
    raise ValueError(f"no duration leads from {start_s!r} to {end_s!r}")
