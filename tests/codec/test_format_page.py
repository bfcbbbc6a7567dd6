"""docs/format/batch.md is true: its examples are what the code writes and reads."""
import json
import re
from pathlib import Path

import pytest

from edge.codec._payload import batch_of_columns, columns_of
from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema

PAGE = (Path(__file__).parents[2] / "docs/format/batch.md").read_text()
EXAMPLES = re.findall(r"```example\n(\w+): (\[.*?\])(?: by (\[.*\]))?\n(.*)\n```", PAGE)


def table(kind, values, keys):
    fields = (Field("v", kind),)
    rows = [{"v": v} for v in json.loads(values)]
    if not keys:
        return Schema("s", fields), rows
    return Schema("s", (Field("k", "str"), *fields), key="k"), [row | {"k": key} for row, key in zip(rows, json.loads(keys))]


def test_the_page_has_an_example_of_every_encoding():
    assert len(EXAMPLES) == PAGE.count("```example") >= 19


@pytest.mark.parametrize(("kind", "values", "keys", "column"), EXAMPLES)
def test_examples_of_the_format_page(kind, values, keys, column):
    schema, rows = table(kind, values, keys)
    batch = Batch.from_rows(schema, rows)
    assert columns_of(batch).hex(" ") == column
    assert batch_of_columns(bytes.fromhex(column), schema, len(rows), 1 << 20).rows() == batch.rows()


def test_the_row_of_the_format_page():
    from edge.codec.batches import decode_message
    from edge.codec.context import Context

    schema = Schema("s", (Field("device", "str"), Field("ts", "time"), Field("temp", "f64")), key="device", time="ts")
    context = Context("g", 1, schema, 1000, 0, 0, [(0, 0), (1_700_000_000_000_000_000, 2), (0, 2)], [f"dev-{i + 10:03}" for i in range(9)])
    row = bytes.fromhex(re.search(r"\n(95  ce 77 35 94 01 .*)\n", PAGE)[1])
    message = decode_message(row, {2000000001: context})
    assert message.first == 1005
    assert message.batch.rows() == [{"device": "dev-017", "ts": 1_700_000_123_456_000_000, "temp": 31.25}]
