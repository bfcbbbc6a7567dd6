"""The upstream end as a process of its own: accepts the gateway's messages, decodes them and stamps the rows of one stream at receipt.

argv: FOLDER STREAM. Writes FOLDER/port; at SIGTERM FOLDER/receipts (pairs of i64: seq, CLOCK_MONOTONIC ns) and one JSON line:
messages, payload bytes by topic, rows by stream, and rows that came twice or are missing.
"""

import json
import signal
import sys
import time
from array import array
from pathlib import Path

from edge.codec.receiver import Receiver
from edge.mqtt._intake import Intake, Topics
from gateway.ingest.listener import Listener
from gateway.reactor import Reactor


class Sink:
    """Listens on a free port; turn() takes, stamps, decodes and acknowledges what has come."""

    def __init__(self, stream):
        self.reactor = Reactor()
        self.receipts = array("q")
        self.messages = 0
        self.size_bytes, self.rows = {}, {}
        self._stream = stream
        self._intake = Intake(Topics())
        self._receiver = Receiver()
        self._listener = Listener(self.reactor, self._intake, host="127.0.0.1", port=0)
        self.port = self._listener.port

    def turn(self, timeout_s):
        self.reactor.turn(timeout_s)
        now = time.monotonic_ns()
        for i in range(len(self._intake)):
            topic, payload, _, _ = self._intake[i]
            self._take(topic.decode(), payload, now)
        self._intake.clear()
        self._listener.acknowledge()

    def _take(self, topic, payload, now):
        self.messages += 1
        self.size_bytes[topic] = self.size_bytes.get(topic, 0) + len(payload)
        delivery = self._receiver.feed(topic, payload)
        if delivery.batch is None:
            return
        self.rows[delivery.stream] = self.rows.get(delivery.stream, 0) + len(delivery.batch)
        if delivery.stream == self._stream:
            for seq in delivery.batch.column("seq"):
                self.receipts.extend((seq, now))

    def report(self) -> dict:
        streams = self._receiver.report()
        return {"messages": self.messages, "bytes": self.size_bytes, "rows": self.rows, "duplicates": sum(s["duplicates"] for s in streams),
                "missing": sum(count for s in streams for _, count in s["missing"])}


def main(folder, stream):
    sink, running = Sink(stream), [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    (folder / "port.new").write_text(str(sink.port))
    (folder / "port.new").rename(folder / "port")
    while running:
        sink.turn(0.1)
    (folder / "receipts").write_bytes(sink.receipts.tobytes())
    print(json.dumps(sink.report()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
