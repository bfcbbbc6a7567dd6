"""Offer a load: connects, lets _load run, and reports. The workload is W1 of the benchmarks: 115-byte JSON from some devices."""

import socket
import struct
import threading
import time

from . import packets
from ._load import Load
from .errors import BrokerError, SimError

CONNECTIONS_MAX, DEVICES_MAX, STAMPS_MAX = 64, 10_000, 1 << 26
SEQ_END = 100_000_000            # sequence numbers have eight digits
SLICE_S = 0.1
ANSWER_S = 10.0
_FIELDS = ("ts", "temp", "hum", "seq", "pres", "bat")


def w1_packet(number, site, qos):
    """(PUBLISH bytes, offsets of packet id, ts, temp, hum, seq, pres, bat) of device `number`. The offsets are of fixed-width digits."""
    device = f"dev-{number:03}"
    payload = (f'{{"device":"{device}","ts":1700000000123,"temp":21.53,"hum":40.1,"seq":10000000,"site":"{site}",'
               f'"pres":1013.2,"bat":3.71}}').encode()
    packet = packets.publish(packets.text(f"sensors/{site}/{device}/env"), payload, qos=qos)
    start = len(packet) - len(payload)
    return packet, start - 2, *(start + payload.index(f'"{name}":'.encode()) + len(name) + 3 for name in _FIELDS)


def offer_load(options, password=None) -> dict:
    """Run `firmware-sim load`; options as its command line gives them. Raises BrokerError and SimError."""
    total = _check(options)
    sockets = [_connect(options, f"load-{i}", password) for i in range(options.connections)]
    sink = Sink(options, password) if options.sink_port else None
    stamps = 0 if not options.stamps else min(total, STAMPS_MAX)
    load = Load([s.fileno() for s in sockets], [w1_packet(i, options.site, options.qos) for i in range(options.devices)],
                qos=options.qos, window=min(options.window, 65535), first_seq=options.first_seq, seed=options.seed,
                stamps_max=stamps, measure=options.latency)
    cpu = time.process_time()
    try:
        _offer(load, options, total)
    except KeyboardInterrupt:
        pass
    cpu = time.process_time() - cpu
    end = time.monotonic() + options.drain_s
    while load.drain(SLICE_S) and time.monotonic() < end:
        pass
    report = _report(load, options, cpu)
    for sock in sockets:
        _close(sock)
    if sink:
        report["sink"] = sink.stop(options.drain_s if load.sent else 0)
    if options.stamps:
        _write(options.stamps, load.stamp_bytes())
    return report


def _offer(load, options, total):
    """Make events for options.seconds; a paced run that fell behind has one second more."""
    load.start()
    end = time.monotonic() + options.seconds + (1.0 if options.rate else 0.0)
    while (left := end - time.monotonic()) > 0 and load.turn(options.rate, total, min(SLICE_S, left)):
        pass


def _check(options):
    """The number of events to make at most."""
    if options.connections > CONNECTIONS_MAX or options.devices > DEVICES_MAX:
        raise SimError(f"at most {CONNECTIONS_MAX} connections and {DEVICES_MAX} devices")
    if options.latency and not options.qos:
        raise SimError("--latency is the time to the acknowledgement: it needs --qos 1; for qos 0 use --stamps")
    if options.first_seq >= SEQ_END:
        raise SimError(f"--first-seq {options.first_seq}: sequence numbers have eight digits")
    if not options.site.isalnum() or len(options.site) > 16:
        raise SimError(f"--site '{options.site}': letters and digits, 16 at most")
    room = SEQ_END - options.first_seq
    total = round(options.rate * options.seconds) if options.rate > 0 else room
    if total > room:
        raise SimError(f"{total} events from --first-seq {options.first_seq}: the eight digits end after {room}")
    return total


def _report(load, options, cpu):
    took = load.sent_s
    report = {
        "sent": load.sent, "acknowledged": load.acknowledged, "refused": load.refused, "over_30": load.over_30,
        "first_seq": load.first_seq, "last_seq": load.first_seq + load.sent - 1, "seconds": round(took, 4),
        "rate": round(load.sent / took) if took else 0, "asked": options.rate, "stalls": load.stalls, "cpu_s": round(cpu, 4),
        "us_per_event": round(cpu * 1e6 / load.sent, 4) if load.sent else None, "lost_connections": load.lost,
        "complete": not load.lost and not load.outstanding() and not load.refused,
    }
    if options.stamps:
        report["stamped"] = load.stamped
    if options.latency:
        report["ack_ms"] = {name: ns if ns is None else round(ns / 1e6, 4)
                            for name, ns in ((n, load.latency_ns(p)) for n, p in (("p50", .5), ("p90", .9), ("p99", .99), ("p999", .999), ("max", 1.0)))}
    return report


def _connect(options, name, password, port=None):
    """A non-blocking socket after CONNACK."""
    place = f"{options.host}:{port or options.port}"
    try:
        sock = socket.create_connection((options.host, port or options.port), timeout=ANSWER_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_id = f"{name}-{time.monotonic_ns():x}"
        sock.sendall(packets.connect(client_id, version=4, keepalive_s=0, clean=True, username=options.username, password=password))
        body = _answer(sock, packets.CONNACK)
        reason, _ = packets.read_connack(body, 4)
    except (OSError, ValueError) as error:
        raise BrokerError(f"{place}: {getattr(error, 'strerror', None) or error}") from None
    if reason:
        raise BrokerError(f"{place}: {reason}")
    sock.setblocking(False)
    return sock


def _answer(sock, kind):
    buffer = bytearray()
    while True:
        data = sock.recv(1)              # no byte beyond the packet may be taken
        if not data:
            raise OSError("the broker closed the connection")
        buffer += data
        for got, body in packets.read_packets(buffer):
            if got != kind:
                raise OSError(f"packet type {got} instead of {kind}")
            return body


def _close(sock):
    try:
        sock.setblocking(True)
        sock.settimeout(1.0)
        sock.sendall(packets.DISCONNECT_PACKET)
    except OSError:
        pass
    sock.close()


def _write(path, data):
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise SimError(f"{path}: {error.strerror}") from None


class Sink:
    """Subscribes at QoS 0 in a thread of its own, counts what arrives, and may keep it with the time of arrival."""

    def __init__(self, options, password):
        self.messages = self.bytes = 0
        try:
            self._capture = open(options.capture, "wb") if options.capture else None
        except OSError as error:
            raise SimError(f"{options.capture}: {error.strerror}") from None
        self._socket = _connect(options, "load-sink", password, options.sink_port)
        self._socket.setblocking(True)
        self._socket.settimeout(ANSWER_S)
        body = b"\x00\x01" + packets.text(options.sink_topic) + b"\x00"
        try:
            self._socket.sendall(b"\x82" + packets.varint(len(body)) + body)
            granted = _answer(self._socket, packets.SUBACK)[2:3]
        except (OSError, ValueError) as error:
            raise BrokerError(f"{options.host}:{options.sink_port}: {error}") from None
        if not granted or granted[0] >= packets.REFUSED:
            raise BrokerError(f"{options.host}:{options.sink_port}: subscription to {options.sink_topic} refused")
        self._socket.settimeout(0.1)
        self._stopping = False
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="sink", daemon=True)
        self._thread.start()

    def stop(self, wait_s) -> dict:
        """Wait until nothing has come for a second, wait_s at most."""
        until = time.monotonic() + wait_s
        while self._thread.is_alive() and time.monotonic() < min(until, max(self._last, until - wait_s) + 1.0):
            time.sleep(0.02)
        self._stopping = True
        self._thread.join()
        if self._capture:
            self._capture.close()
        _close(self._socket)
        return {"messages": self.messages, "bytes": self.bytes}

    def _read(self):
        buffer = bytearray()
        while not self._stopping:
            try:
                data = self._socket.recv(1 << 20)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            now = time.monotonic_ns()
            buffer += data
            for kind, body in packets.read_packets(buffer):
                if kind == packets.PUBLISH:
                    self._message(now, body)

    def _message(self, now_ns, body):
        payload = body[2 + int.from_bytes(body[:2], "big"):]
        self._last = now_ns / 1e9
        self.messages += 1
        self.bytes += len(payload)
        if self._capture:
            self._capture.write(struct.pack("<QI", now_ns, len(payload)) + payload)
