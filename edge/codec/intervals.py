"""A set of integers as ascending disjoint half-open intervals: which sequences have been received."""

from bisect import bisect_left, bisect_right


class Intervals:
    """Bounded: beyond `count_max` intervals the lowest hole is filled, and its size added to `filled`."""

    __slots__ = ("count_max", "filled", "starts", "stops")

    def __init__(self, pairs=(), *, count_max: int = 4096, filled: int = 0):
        self.starts = [a for a, _ in pairs]
        self.stops = [b for _, b in pairs]
        self.count_max = count_max
        self.filled = filled

    def __iter__(self):
        return zip(self.starts, self.stops)

    def __len__(self):
        return len(self.starts)

    @property
    def total(self) -> int:
        """Members, the filled ones too."""
        return sum(self.stops) - sum(self.starts)

    def lacks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of start..stop that are not in the set."""
        out = []
        i = bisect_right(self.stops, start)
        while start < stop:
            if i == len(self.starts) or self.starts[i] >= stop:
                out.append((start, stop))
                break
            if self.starts[i] > start:
                out.append((start, self.starts[i]))
            start = self.stops[i]
            i += 1
        return out

    def add(self, start: int, stop: int):
        """Adds start..stop."""
        if start >= stop:
            return
        low, high = bisect_left(self.stops, start), bisect_right(self.starts, stop)
        if low < high:
            start, stop = min(start, self.starts[low]), max(stop, self.stops[high - 1])
        self.starts[low:high] = [start]
        self.stops[low:high] = [stop]
        if len(self.starts) > self.count_max:
            self.filled += self.starts[1] - self.stops[0]
            del self.starts[1], self.stops[0]

    def holes(self) -> list[tuple[int, int]]:
        """The intervals between the members."""
        return list(zip(self.stops, self.starts[1:]))
