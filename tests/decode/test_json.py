"""The JSON reader gives what json.loads gives, and rejects what it rejects."""

import json
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.decoding._json import loads

W1 = b'{"device":"dev-017","ts":1700000000123,"temp":21.53,"hum":40.1,"seq":10000123,"site":"s1","pres":1013.2,"bat":3.71}'
REAL = [
    W1,
    '{"name":"Zürich \\u00e9\\ud83d\\ude00 \U0001f600","ok":true,"no":false,"none":null,"list":[1,-2.5e-3,[],{}],"o":{"a":{"b":[[[0]]]}}}'.encode(),
    b' [ 1 , 2.0 , "a\\n\\"\\\\\\/" , { "k" : [ ] } , -0 , -0.0, 1E+2, NaN, Infinity, -Infinity ] \r\n\t',
    b'{"a":1,"a":2,"\\u0061":3,"b":{"a":"' + b"x" * 40 + b'"}}',
]
CASES = [
    b"", b" ", b"null", b"nul", b"nulll", b"true", b"tru", b"false", b"fals", b"NaN", b"nan", b"Na", b"Infinity", b"-Infinity", b"Infinit",
    b"-Infinit", b"+1", b"-", b"--1", b"0", b"-0", b"00", b"01", b"-01", b"1.", b".5", b"1.5.", b"1e", b"1e+", b"1e5", b"1E-5", b"1e05", b"0e0",
    b"0x1", b"1 2", b"1,", b"[", b"]", b"[]", b"[,]", b"[1,]", b"[1 2]", b"[,1]", b"{", b"}", b"{}", b"{,}", b'{"a"}', b'{"a":}', b'{"a":1,}',
    b'{"a":1 "b":2}', b"{a:1}", b"{1:1}", b"{'a':1}", b'{"a":1}}', b'{"a":1]', b"[1}", b'{"a" 1}', b'{"a"::1}', b'"', b'""', b'"a', b'"\\"',
    b'"\\', b'"\\x41"', b'"\\u"', b'"\\u12"', b'"\\u12G4"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\ud800"', b'"\\ud800\\udc00"',
    b'"\\ud800x"', b'"\\ud800\\n"', b'"\\ud800\\u0041"', b'"\\ud800\\u00"', b'"\\uD83D\\uDE00"', b'"\x00"', b'"\x1f"', b'"\x7f"', b'"\t"', b'"\n"',
    b"\xef\xbb\xbf1", b"\xff\xfe1\x00", b"1\x00", b"\x0c1", b"\x0b[]", b"\xc2\xa01", b'"\xc3\xa9"', b'"\xc3"', b'"\xc0\x80"', b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"', b'"\xf4\x8f\xbf\xbf"', b'"\xf0\x80\x80\x80"', b'"\xe0\x80\x80"', b'"\xe2\x82\xac"', b'"\xe2\x82"', b'"\x80"', b'"\xf8\x88\x80\x80\x80"',
    b"// c\n1", b"/**/1", b"1e400", b"-1e400", b"1e-400", b"5e-324", b"2.4703282292062327e-324", b"2.4703282292062328e-324", b"1.7976931348623158e308",
    b"1.7976931348623159e308", b"9007199254740993", b"9007199254740993.0", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808",
    b"-9223372036854775809", b"18446744073709551615", b"18446744073709551616", b"123456789012345678901234567890", b"1e99999999999999999999",
    b"0e99999999999999999999", b"1e-99999999999999999999", b"0." + b"0" * 400 + b"1e401", b"1" * 4300, b"1" * 4301, b"1" * 5000 + b".0", b"1" * 400 + b"e-399",
    b"[" * 510 + b"]" * 510, b'{"a":' * 509 + b"[1]" + b"}" * 509, b"[" * 510, b"[" * 400 + b"1", b"[1.0,]", b"[1.0e]", b"[-]", b'["a",\n4\n,1,', b'{"a":"b"}#',
]


def verdict(reader, data):
    try:
        return repr(reader(data))    # tells types, signs of zero and all doubles apart, and finds NaN equal
    except ValueError:
        return "rejected"


def reference(data):
    return json.loads(data.decode())


def assert_agrees(data):
    assert verdict(loads, data) == verdict(reference, data), data[:200]


@pytest.mark.parametrize("data", CASES, ids=lambda d: repr(d[:24]))
def test_named_cases_agree(data):
    assert_agrees(data)
    assert_agrees(b'{"k": [' + data + b"]}")


@pytest.mark.parametrize("data", REAL + [b"[" + c + b"]" for c in CASES if len(c) < 64], ids=lambda d: repr(d[:24]))
def test_every_prefix_and_trailing_byte_agrees(data):
    for n in range(len(data) + 1):
        assert_agrees(data[:n])
    for more in (b" ", b"\n", b"\0", b"1", b",", b"}", b'"'):
        assert_agrees(data + more)


def test_every_one_byte_change_of_an_event_agrees():
    for at in range(len(W1)):
        for byte in range(256):
            assert_agrees(W1[:at] + bytes([byte]) + W1[at + 1:])


def test_every_one_byte_loss_and_gain_agrees():
    for data in REAL:
        for at in range(len(data)):
            assert_agrees(data[:at] + data[at + 1:])
            for byte in b'"\\{}[],:0-.e \x1f\x80\xc3':
                assert_agrees(data[:at] + bytes([byte]) + data[at:])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5), max_leaves=30)


@settings(max_examples=500, deadline=None)
@given(values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_generated_documents_agree(value, ascii_only, indent):
    assert_agrees(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass"))


@settings(max_examples=500, deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_generated_numbers_agree_bit_for_bit(text):
    assert_agrees(text.encode())


def test_doubles_near_ties_agree_bit_for_bit():
    rng = random.Random(4)
    for _ in range(20_000):
        bits = rng.getrandbits(63) % (0x7FE << 52)
        low, high = struct.unpack("<dd", struct.pack("<QQ", bits, bits + 1))
        for text in (repr(low), f"{(low + high) / 2:.{rng.choice((16, 17, 18, 19, 25))}e}", f"{low:.{rng.randrange(30)}e}"):
            assert_agrees(text.encode())


def test_mutated_documents_agree():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(40_000):
        data = bytearray(rng.choice(REAL))
        for _ in range(rng.randint(1, 4)):
            a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            data[a:min(b, a + 3)] = rng.choice((b"", bytes([rng.randrange(256)]), rng.choice(REAL)[a:b], b"\\u", b"\\ud83d", b"0", b'"')) 
            if not data:
                break
        assert_agrees(bytes(data))


def test_nesting_has_a_bound():
    assert loads(b"[" * 512 + b"]" * 512) == json.loads("[" * 512 + "]" * 512)
    for opening in (b"[", b'{"a":'):
        with pytest.raises(ValueError, match=f"too deep at byte {512 * len(opening)}$"):
            loads(opening * 513)


def test_a_fault_has_its_position():
    with pytest.raises(ValueError, match="not JSON at byte 6$"):
        loads(b'{"a": x}')
