"""What docs/cloud.md promises to whoever writes `import edge`."""

import subprocess
import sys

import pytest

import edge
from edge.codec.batches import encode_batch
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema


def test_decode_and_receiver_are_there_after_one_import():
    message = encode_batch(Batch.from_rows(Schema("s", (Field("v", "i64"),)), [{"v": 1}, {"v": None}], first_sequence=7), gateway="g", epoch=1)
    assert edge.decode(message) == [{"v": 1}, {"v": None}]
    receiver = edge.Receiver()
    assert len(receiver.feed("g/l/s", message).batch) == 2
    assert edge.Receiver(receiver.dump()).feed("g/l/s", message).batch is None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        edge.Nothing


def test_the_daemon_does_not_pay_for_it():
    code = "import sys, edge; assert not [m for m in sys.modules if m.startswith(('edge.', 'msgpack', 'zstandard'))], sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
