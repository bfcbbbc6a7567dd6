"""The configuration's types: one spec that feeds the reader, `tidegate check`, the editor's JSON Schema and docs/configuration.md.

Each field's meaning stands in DOCS of its table, and a test fails when one is missing.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from gateway.config.units import Durability, Duration, Part, Size

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
Kind = Literal["f64", "i64", "bool", "str", "time"]


def duration(text):
    """A field whose default is the duration that text says."""
    return field(default_factory=lambda: Duration.parse(text))


def size(text):
    """A field whose default is the size that text says."""
    return field(default_factory=lambda: Size.parse(text))


class Gateway(Struct, forbid_unknown_fields=True):
    """Who this gateway is and where it keeps its data."""

    name: Name = "gateway"
    data: str = "/var/lib/tidegate"
    checkpoint: Duration = duration("10s")
    log_format: Literal["text", "json"] = "text"
    rules_cpu: Part = field(default_factory=lambda: Part.parse("80%"))
    isolation: Literal["auto", "process", "none"] = "auto"
    ledger: Duration = duration("1m")
    disk_endurance: Size = size("10TB")
    mask_key_file: str | None = None
    encryption_key_file: str | None = None
    cache: str | None = None

    @property
    def modules(self) -> str:
        """The directory of compiled rules."""
        return self.cache or f"{self.data}/modules"

    DOCS = {
        "name": "identity of the gateway in every upstream topic and batch; never change it on a device with data",
        "data": "directory of journal, outbox, dead letters and checkpoints; on a path relative to the configuration file",
        "checkpoint": "how often rule state is written, at most; a restart replays what came since",
        "log_format": "lines for people or JSON objects",
        "rules_cpu": "of one core for all rules together; beyond it those wait that take more than their fair part, see docs/operations.md",
        "isolation": "process: rules run in a process of their own, without keys, files and network; none: in the gateway's own; auto: process where the "
                     "machine has more than 1 GB of memory and its kernel confines it, see docs/security.md",
        "ledger": "how often the balance of all streams, rules and lanes goes upstream, if it has changed (stream `$ledger`, by the lane that names it, else the least urgent); 0s: never",
        "disk_endurance": "bytes that the card or disk takes in its life (TBW), for the expected life in `tidegate status`; the default is a modest SD card of 32 GB",
        "mask_key_file": "file of 64 hexadecimal digits (`openssl rand -hex 32`) that keys the hashes of masked fields",
        "cache": "directory of compiled rules, which may be lost: on a tmpfs the card is spared, and each boot compiles them again; default: modules in the data directory",
        "encryption_key_file": "such a file, too: journal, outboxes, dead letters and checkpoints are encrypted from then on, see docs/security.md",
    }


class Tls(Struct, forbid_unknown_fields=True):
    """TLS 1.2 or later. The files are followed: new ones count for new connections, without a restart."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    alpn: list[str] = []

    DOCS = {
        "ca": "PEM file of the authorities that are trusted; without it those of the system",
        "cert": "PEM file of this side's certificate chain",
        "key": "PEM file of its private key",
        "alpn": "application protocols to offer (broker and upstream), such as [\"x-amzn-mqtt-ca\"] for AWS IoT Core on port 443",
    }


class Listener(Struct, forbid_unknown_fields=True):
    """Devices connect here by MQTT 3.1.1 or 5. The PUBACK means: on disk."""

    host: str = "127.0.0.1"
    port: Port = 1883
    tls: Tls | None = None
    password_file: str | None = None
    acl_file: str | None = None
    anonymous: bool = False
    connections_max: Positive = 1000
    packet_max: Size = size("256KiB")
    rate_per_client: Annotated[float, Meta(gt=0)] | None = None

    DOCS = {
        "host": "address to listen on",
        "port": "port to listen on; 0 takes a free one",
        "tls": "certificate of the listener; with ca, devices must show one of their own, and its common name is the client id",
        "password_file": "users and hashes, written by `tidegate passwd`; each device has to be one of them",
        "acl_file": "who may publish where, with %c and %u: see docs/security.md; needed where devices show who they are",
        "anonymous": "true: take devices that do not show who they are, also from the network and without tls",
        "connections_max": "further connections are refused",
        "packet_max": "a larger packet closes its connection",
        "rate_per_client": "events a second; a faster device is read more slowly. Without it one that floods rests while others are connected: see docs/operations.md",
    }


class Link(Struct, forbid_unknown_fields=True):
    """A connection that the gateway makes to an MQTT server."""

    host: str
    port: Port = 1883
    version: Literal[4, 5] = 5
    client_id: str | None = None
    username: str | None = None
    password_file: str | None = None
    tls: Tls | None = None
    keepalive: Duration = duration("30s")

    DOCS = {
        "host": "the server's address",
        "port": "its port; 8883 is usual with tls",
        "version": "4 for MQTT 3.1.1, 5 for MQTT 5",
        "client_id": "default: tidegate-NAME-in for the broker, tidegate-NAME-out for upstream",
        "username": "if it asks for one",
        "password_file": "file that holds the password in its first line",
        "tls": "an empty table turns TLS on with the system's authorities",
        "keepalive": "silence after which the link is tested",
    }


class Broker(Link, forbid_unknown_fields=True):
    """Subscribe to an MQTT broker. Its PUBACK to a device does not mean that the gateway has the event: see docs/brokers.md."""

    qos: Literal[0, 1, 2] = 1

    DOCS = Link.DOCS | {"qos": "of the subscriptions"}


class Upstream(Link, forbid_unknown_fields=True):
    """The broker (or tidegate receive) that takes what the lanes send, by MQTT QoS 1."""

    manage: bool = False

    DOCS = Link.DOCS | {"manage": "true: also take requests on tidegate/NAME/manage/in, to upload rules and watch them: see docs/management.md"}


class FieldSpec(Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """One field of a stream. A bare string stands for its type: temp = "f64"."""

    type: Kind
    from_: str | None = None
    required: bool = True
    unit: str = ""
    format: Literal["s", "ms", "us", "ns", "rfc3339"] | None = None
    mask: Annotated[str, Meta(pattern=r"^(drop|hash|truncate:[0-9]{1,3})$")] | None = None

    DOCS = {
        "type": "f64, i64, bool, str or time",
        "from": "where it is: a path in the payload (a.b, a[0].b), topic, topic[N]; default: the field's name",
        "required": "false: may be missing or null",
        "unit": "for people",
        "format": "of a time: s, ms, us, ns since 1970, or rfc3339",
        "mask": "before anything is stored: drop (null), hash (a text, keyed), truncate:N (a text's first N characters, an f64's N decimals)",
    }


class Stream(Struct, forbid_unknown_fields=True):
    """A stream: the topics it takes and the contract of their payloads."""

    topics: Annotated[list[str], Meta(min_length=1)]
    fields: dict[Name, FieldSpec | Kind]
    format: Literal["json", "msgpack", "raw"] = "json"
    version: Positive = 1
    key: Name | None = None
    time: Name | None = None
    id: Name | None = None
    sequence: Name | None = None
    ids_max: Annotated[int, Meta(ge=1, le=65536)] = 32
    lateness: Duration = duration("0s")
    idle: Duration = duration("30s")
    skew: Duration = duration("1m")
    keys_max: Positive = 65536

    DOCS = {
        "topics": "topic filters with + and #; the first stream that matches a topic takes the event",
        "fields": "name = type, or name = { type, from, required, unit, format }",
        "format": "json, msgpack, or raw for one bare value",
        "version": "of the contract; travels with each batch",
        "key": "the str field that tells devices apart; windows and state are kept by it",
        "time": "the time field that is the event's own time; default: when it was received",
        "id": "the str or i64 field that no two events of a key share: one that a device sends again, having seen no PUBACK, is not counted twice",
        "sequence": "likewise, the i64 field in which a device counts its events; one is the same only if all of it is, so a device may count from 0 again",
        "ids_max": "events of a key that are remembered for that, the last ones; no fewer than a device may have under way without a PUBACK",
        "lateness": "how much later than a newer event of its key an event may come",
        "idle": "silence of a key after which its windows close by the gateway's clock",
        "skew": "how far ahead of the gateway's clock an event's time is believed",
        "keys_max": "keys remembered; at the limit the longest silent are closed and forgotten",
    }


class Limits(Struct, forbid_unknown_fields=True):
    """What a rule may use."""

    time: Duration = duration("10ms")
    memory: Size = size("16MiB")
    output: Size = size("4MiB")

    DOCS = {
        "time": "run time of a call for up to 1,024 rows, in proportion beyond",
        "memory": "linear memory",
        "output": "bytes that one call may put out",
    }


class LimitsMax(Struct, forbid_unknown_fields=True):
    """What a pushed rule may ask for at most. A rule of this file has the limits that stand there."""

    time: Duration = duration("100ms")
    memory: Size = size("64MiB")
    output: Size = size("16MiB")

    DOCS = Limits.DOCS


class Rule(Struct, forbid_unknown_fields=True):
    """A WebAssembly module, bound to a stream. Its output is a stream of the rule's name, late events go to NAME.late."""

    input: str
    module: str
    params: dict[str, Any] = {}
    limits: Limits | None = None

    DOCS = {
        "input": "a stream, or another rule's output",
        "module": "a ready-made rule's name, or the path of a .wasm file",
        "params": "the module's parameters",
        "limits": "default: those of this page",
    }


class Lane(Struct, forbid_unknown_fields=True):
    """A route upstream: which streams, how packed, how urgent. Each lane has its own outbox."""

    streams: Annotated[list[str], Meta(min_length=1)]
    encoding: Literal["batch", "json", "jsonl"] = "batch"
    topic: str = "tidegate/{gateway}/{lane}/{stream}"
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    age: Duration = duration("1s")
    message_max: Size = size("100KiB")
    rate_max: Size | None = None
    quota: Size = size("256MiB")
    full: Literal["evict-oldest", "evict-lowest-priority", "backpressure"] = "evict-oldest"

    DOCS = {
        "streams": "streams and rules (NAME, NAME.late) whose events go this way",
        "encoding": "batch: columns, compressed; json: a message an event; jsonl: lines, many a message",
        "topic": "with {gateway}, {lane}, {stream}",
        "priority": "0 goes first",
        "age": "how long an event may wait for company; 0s sends at once",
        "message_max": "payload size",
        "rate_max": "bytes a second",
        "quota": "bytes of disk for what waits",
        "full": "at the quota: drop the oldest and announce the gap; or let the least urgent of the lanes with this policy do so, which share their quotas; or stop taking events: "
                "see docs/operations.md",
    }


class Journal(Struct, forbid_unknown_fields=True):
    """The write-ahead log of events, kept for replay as long as its quota lasts."""

    durability: Durability = field(default_factory=lambda: Durability.parse("ack"))
    quota: Size = size("512MiB")
    dead_letters: Size = size("64MiB")

    DOCS = {
        "durability": "ack: what came is synced at once; or how long events gather before they are: what a power cut may cost at QoS 0. An event that is to be "
                      "acknowledged is synced before, and waits 10ms at most: see docs/operations.md",
        "quota": "bytes of disk; the oldest events go first, never those that a restart needs",
        "dead_letters": "bytes of disk for dead letters; the oldest go first",
    }


class Metrics(Struct, forbid_unknown_fields=True):
    """Prometheus text format over HTTP on loopback."""

    port: Port

    DOCS = {"port": "on 127.0.0.1"}


class Api(Struct, forbid_unknown_fields=True):
    """The HTTP management API: `tidegate api`, a process of its own. See docs/management.md."""

    host: str = "127.0.0.1"
    port: Port = 8642
    tls: Tls | None = None
    access: str = "api.access"

    DOCS = {
        "host": "address to listen on; any but loopback needs tls",
        "port": "port to listen on; 0 takes a free one",
        "tls": "certificate of the API; with ca, clients may show one of their own instead of a token",
        "access": "file of tokens (by their hash) and certificates that are let in; `tidegate api --new-token NAME` adds to it",
    }


class Signing(Struct, forbid_unknown_fields=True):
    """Whose rules may be pushed. Rules of this file are not asked for a signature."""

    policy: Literal["required", "optional"] = "optional"
    keys: dict[Name, str] = {}

    DOCS = {
        "policy": "required: only what one of the keys signed; optional: what is signed must be signed well",
        "keys": "name = the public key that `tidegate rule keygen` prints, or the path of its .pub file",
    }


class Config(Struct, forbid_unknown_fields=True):
    """A gateway's whole configuration."""

    streams: dict[Name, Stream]
    gateway: Gateway = field(default_factory=Gateway)
    listener: Listener | None = None
    broker: Broker | None = None
    rules: dict[Name, Rule] = {}
    rules_limits: LimitsMax = field(default_factory=LimitsMax)
    upstream: Upstream | None = None
    lanes: dict[Name, Lane] = {}
    journal: Journal = field(default_factory=Journal)
    metrics: Metrics | None = None
    api: Api = field(default_factory=Api)
    signing: Signing = field(default_factory=Signing)

    DOCS = {
        "streams": "the streams by name",
        "gateway": "identity and data",
        "listener": "devices connect here",
        "broker": "or the gateway subscribes there; both may be given",
        "rules": "the rules by name",
        "rules_limits": "bounds of the limits that a pushed rule may ask for",
        "upstream": "where results go",
        "lanes": "the routes upstream by name",
        "journal": "sizes of the logs",
        "metrics": "off unless given",
        "api": "for `tidegate api`",
        "signing": "whose rules may be pushed",
    }


def schema() -> dict:
    """JSON Schema (2020-12) of the configuration, for editors."""

    def hook(kind):
        return {"type": "string", "pattern": kind.pattern, "description": kind.summary}

    return msgspec.json.schema(Config, schema_hook=hook)
