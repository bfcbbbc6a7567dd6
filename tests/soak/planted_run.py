"""Whether the tests notice mistakes in the Cython code of proven.py: each of MISTAKES is compiled in a copy of the tree, .soak/planted, and the tests are to fail.

    python tests/soak/planted_run.py --first 0 --count 3
"""

import argparse
import json
import subprocess
import sys

import coverage_run
from proven import CYTHON_TESTS

PLANTED = coverage_run.WORK / "planted"
RECORD, CRC, PAGES = "edge/storage/_record.pyx", "edge/storage/_crc32c.pyx", "edge/storage/_pages.pyx"
MISTAKES = (                         # (module, what stands there once, what is put in its place)
    (RECORD, "h.position >= self.expected", "h.position > self.expected"),
    (RECORD, "h.position >= self.expected", "True"),
    (RECORD, "h.marker == salt and h", "h"),
    (RECORD, "size <= left - i:", "size < left - i:"),
    (RECORD, "crc32c_of(p + i + 8, size - 8, salt) == h.crc", "True"),
    (RECORD, "crc32c_of(p + i + 8, size - 8, salt) == h.crc", "crc32c_of(p + i + 8, size - 9, salt) == h.crc"),
    (RECORD, "if base + i != self.good or h.position != self.expected:", "if h.position != self.expected:"),
    (RECORD, "if base + i != self.good or h.position != self.expected:", "if base + i != self.good:"),
    (RECORD, "if h.position >= self.wanted:", "if h.position > self.wanted:"),
    (RECORD, "self.expected = h.position + 1", "self.expected += 1"),
    (RECORD, "i = n if q == NULL else q - p", "i = n"),
    (RECORD, "if i < n and n - i < sizeof(Header) and left == n:", "if i < n and n - i < sizeof(Header):"),
    (RECORD, "self.offset = base + i\n", "self.offset = base + n\n"),
    (RECORD, "self.flags &= ~4", "pass"),
    (RECORD, "sizeof(Header) - 8 + size, salt)", "sizeof(Header) - 8, salt)"),
    (RECORD, "        if p[i]:\n", "        if p[i] > 1:\n"),
    (CRC, "return ~crc_update(data, size, ~seed)", "return ~crc_update(data, size, seed)"),
    (CRC, "c = shifted(shifted(c) ^ c1) ^ c2;", "c = shifted(c ^ c1) ^ c2;"),
    (CRC, "while (n--) c = step1(c, *p++);", "while (n-- > 1) c = step1(c, *p++);"),
    (CRC, "slices[3][p[4]]", "slices[3][p[5]]"),
    (CRC, "0x82F63B78u", "0x82F63B79u"),
    (PAGES, "if left:", "if left > 1:"),
    (PAGES, "p += 64", "p += 63"),
    (PAGES, "(n + 4095) // 4096", "n // 4096"),
    (PAGES, "b ^ d ^ key)", "b ^ key)"),
)


def found(module, was, becomes) -> bool:
    """Whether a test fails with this mistake in."""
    path = PLANTED / module
    good = path.read_text()
    assert good.count(was) >= 1, f"{module} has no {was!r} any more"
    path.write_text(good.replace(was, becomes, 1))
    try:
        coverage_run.build(PLANTED, [module], False)
        tests = [sys.executable, "-m", "pytest", *coverage_run.SETTINGS, "-x", *CYTHON_TESTS, "tests/log/test_corruption.py", "tests/log/test_reading.py"]
        return subprocess.run(tests, cwd=PLANTED, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=1800).returncode != 0
    finally:
        path.write_text(good)
        for stale in PLANTED.glob(module[:-4] + ".*.so"):
            stale.unlink()
            (PLANTED / module).with_name(stale.name).write_bytes((coverage_run.ROOT / module).with_name(stale.name).read_bytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="a campaign's; there is nothing random here")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=len(MISTAKES))
    arguments = parser.parse_args()
    coverage_run.copy(PLANTED)
    chosen = MISTAKES[arguments.first:arguments.first + arguments.count]
    missed = []
    for module, was, becomes in chosen:
        noticed = found(module, was, becomes)
        print(f"{'found' if noticed else 'MISSED'}: {module}: {was!r} -> {becomes!r}", file=sys.stderr, flush=True)
        missed += [] if noticed else [f"{module}: {was!r} -> {becomes!r} is not noticed"]
    print(json.dumps({"planted": len(chosen), "found": len(chosen) - len(missed), "broken": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
