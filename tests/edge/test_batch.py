"""Batch and intake: what goes in comes out."""

from hypothesis import given, strategies as st

from edge.columns._batch import Batch
from edge.columns.schema import Field, Schema
from edge.mqtt._intake import Intake, Topics

ALL = Schema("all", (Field("f", "f64"), Field("i", "i64"), Field("b", "bool"), Field("s", "str"), Field("t", "time")), key="s", time="t")
I64 = st.integers(-(2**63), 2**63 - 1)
row = st.fixed_dictionaries({"f": st.none() | st.floats(allow_nan=False), "i": st.none() | I64, "b": st.none() | st.booleans(),
                             "s": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), "t": st.none() | I64})


@given(st.lists(row, max_size=200), st.data())
def test_rows_survive_building_selecting_and_joining(rows, data):
    batch = Batch.from_rows(ALL, rows, received_ns=7)
    assert batch.rows() == rows
    picked = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows)))) if rows else []
    chosen = batch.select(picked)
    assert chosen.rows() == [rows[i] for i in picked]
    chosen.extend(batch)
    assert chosen.rows() == [rows[i] for i in picked] + rows
    assert batch.times() == [7 if r["t"] is None else r["t"] for r in rows]
    chosen.clear()
    chosen.extend(batch)
    assert chosen.rows() == rows


def test_a_dictionary_of_many_strings_grows():
    rows = [{"s": f"device-{i % 5000}"} for i in range(10000)]
    assert Batch.from_rows(Schema("s", (Field("s", "str"),)), rows).rows() == rows


def test_an_intake_refuses_what_does_not_fit_and_keeps_the_rest():
    intake = Intake(Topics(capacity=2), events_max=3, bytes_max=10)
    assert intake.add(b"a", b"12345") and intake.add(b"b", b"1234", 7, 1)
    assert not intake.add(b"a", b"12")
    assert not intake.add(b"c", b"")
    assert intake.add(b"a", b"1") and not intake.add(b"a", b"")
    assert [intake[i] for i in range(3)] == [(b"a", b"12345", 0, 0), (b"b", b"1234", 7, 1), (b"a", b"1", 0, 0)]
    intake.clear()
    intake.topics.clear()
    assert intake.add(b"c", b"1234567890") and intake[0][0] == b"c"


def test_a_closed_intake_takes_nothing():
    intake = Intake(Topics())
    intake.closed = True
    assert not intake.add(b"a", b"1")
