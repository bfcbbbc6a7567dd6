"""Survey: what was heard, in bounded memory. Topics with their counts, and of each topic's messages a part that is spread evenly over the time.

At a bound: a topic beyond TOPICS_MAX or TOPIC_BYTES_MAX is counted, no more (`beyond`). A payload above PAYLOAD_BYTES_MAX is counted as `large` and not
kept. When all that is kept is above KEPT_BYTES_MAX, the topics that keep most keep every second of their messages from then on, and so on.
Topics that begin with $ are the broker's own and left out.
"""

TOPICS_MAX = 10_000
TOPIC_BYTES_MAX = 1024
PAYLOAD_BYTES_MAX = 64 << 10
KEPT_BYTES_MAX = 24 << 20
MESSAGE_BYTES = 200                      # what a kept message takes in Python beside its payload
LEVELS_MAX = 64


class Topic:
    """One topic. levels: of its name; kept: [(received_ns, payload, retained)]."""

    __slots__ = ("name", "levels", "count", "bytes", "retained", "large", "qos", "kept", "weight", "stride", "_turn")

    def __init__(self, name):
        self.name, self.levels = name, tuple(name.decode().split("/"))
        self.count = self.bytes = self.retained = self.large = self.weight = self._turn = 0
        self.qos = [0, 0, 0]
        self.kept = []
        self.stride = 1              # every how many-th message is kept

    def add(self, payload, flags, received_ns):
        """Count a message and keep it if it is its turn; the bytes that this takes. flags: edge/mqtt/_intake.pxd."""
        retained = bool(flags & 4)
        self.count += 1
        self.bytes += len(payload)
        self.retained += retained
        self.qos[flags & 3] += 1
        if len(payload) > PAYLOAD_BYTES_MAX:
            self.large += 1
            return 0
        self._turn += 1
        if self._turn % self.stride:
            return 0
        self.kept.append((received_ns, payload, retained))
        self.weight += len(payload) + MESSAGE_BYTES
        return len(payload) + MESSAGE_BYTES

    def thin(self):
        """Keep every second message; the bytes that are free for it."""
        before = self.weight
        del self.kept[::2]
        self.stride *= 2
        self.weight = sum(len(payload) + MESSAGE_BYTES for _, payload, _ in self.kept)
        return before - self.weight


class Survey:
    """topics: name -> Topic. beyond: messages on topics that were not taken up. weight: bytes that all that is kept takes."""

    def __init__(self):
        self.topics = {}
        self.beyond = self.beyond_bytes = self.weight = 0

    @property
    def count(self):
        """Messages heard."""
        return sum(topic.count for topic in self.topics.values()) + self.beyond

    @property
    def bytes(self):
        """Of their payloads."""
        return sum(topic.bytes for topic in self.topics.values()) + self.beyond_bytes

    def add(self, name, payload, flags, received_ns):
        """A message: topic and payload as they came, flags of edge/mqtt/_intake.pxd."""
        topic = self.topics.get(name)
        if topic is None:
            if name.startswith(b"$"):
                return
            if len(self.topics) >= TOPICS_MAX or not _usable(name):
                self.beyond += 1
                self.beyond_bytes += len(payload)
                return
            topic = self.topics[name] = Topic(name)
        self.weight += topic.add(payload, flags, received_ns)
        while self.weight > KEPT_BYTES_MAX:
            most = max(topic.weight for topic in self.topics.values())
            for topic in self.topics.values():
                if 2 * topic.weight > most:
                    self.weight -= topic.thin()


def _usable(name):
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(name) <= TOPIC_BYTES_MAX and name.count(b"/") < LEVELS_MAX and not any(c in name for c in b"+#\0")
