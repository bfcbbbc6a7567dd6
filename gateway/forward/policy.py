"""A lane's policy: how rows become messages, and how fast they may leave."""

from string import Formatter

from msgspec import Struct
from msgspec.structs import force_setattr

from edge.errors import ConfigError

ENCODINGS = ("batch", "json", "jsonl")
TOPIC_WORDS = ("gateway", "lane", "stream")
TOPIC_BYTES_MAX = 1024           # MQTT allows 65,535; AWS IoT Core 256: a longer template is a mistake


class Policy(Struct, frozen=True):
    """What a lane's configuration says. Raises ConfigError when it cannot be carried out.

    encoding     batch: columns, many rows a message; jsonl: a JSON object a line; json: a message an event
    topic        template; {gateway}, {lane} and {stream} are filled in
    size_bytes_max, rows_max   limits of one message's payload
    age_ms       a row waits that long for company at most; 0 sends at once
    window       messages in flight at most; None: 4 when rows gather, 64 when they leave at once or one by one
    priority     0 goes first
    rate_bytes_s bytes per second on the wire at most, 0 without a cap
    """

    encoding: str = "batch"
    topic: str = "tidegate/{gateway}/{lane}/{stream}"
    size_bytes_max: int = 100 << 10
    rows_max: int = 4096
    age_ms: int = 1000
    window: int | None = None
    priority: int = 5
    rate_bytes_s: int = 0

    def __post_init__(self):
        if self.encoding not in ENCODINGS:
            raise ConfigError(f"encoding {self.encoding!r} is unknown, use one of {', '.join(ENCODINGS)}")
        if self.window is None:
            force_setattr(self, "window", 64 if self.age_ms == 0 or self.encoding == "json" else 4)
        for name, least, most in (("size_bytes_max", 128, 256 << 20), ("rows_max", 1, 1 << 20), ("age_ms", 0, 86_400_000),
                                  ("window", 1, 1024), ("priority", 0, 9), ("rate_bytes_s", 0, 1 << 40)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(f"{name} is {value!r}, it must be a whole number from {least} to {most}")
        try:
            words = [(word, spec, conversion) for _, word, spec, conversion in Formatter().parse(self.topic) if word is not None]
        except ValueError as e:
            raise ConfigError(f"topic {self.topic!r}: {e}") from None
        for word, spec, conversion in words:
            if word not in TOPIC_WORDS or spec or conversion:
                raise ConfigError(f"topic {self.topic!r}: {{{word}}} is not a word, use {', '.join('{%s}' % w for w in TOPIC_WORDS)}")
        self.topic_of("g", "l", "s")

    def topic_of(self, gateway, lane, stream) -> str:
        """The topic of a stream's messages. Raises ConfigError if it is none that may be published to (MQTT 5, 4.7)."""
        for word, value in (("gateway", gateway), ("lane", lane), ("stream", stream)):
            if not value or "/" in value:
                raise ConfigError(f"topic {self.topic!r}: {word} {value!r} must be one topic level: not empty, no '/'")
        topic = self.topic.format(gateway=gateway, lane=lane, stream=stream)
        if not topic or topic[0] in "$/" or topic[-1] == "/" or any(c in "+#" or c < " " or c == "\x7f" for c in topic):
            raise ConfigError(f"topic {topic!r}: no '+', '#' or control characters, no '$' or '/' in front, no '/' behind")
        if len(topic.encode()) > TOPIC_BYTES_MAX:
            raise ConfigError(f"topic {topic!r} is longer than {TOPIC_BYTES_MAX} bytes")
        return topic
