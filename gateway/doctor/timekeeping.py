"""The clock: whether it is right, and who keeps it so."""

import ctypes
import glob
import struct
import time

from gateway.clock import EARLIEST_NS
from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, Finding

UNSYNC = 0x40                        # STA_UNSYNC of adjtimex(2)
ERROR_US = 1_000_000


def kernel():
    """(state, status bits, maximum error in µs) of adjtimex(2); None when it cannot be asked."""
    try:
        buffer = ctypes.create_string_buffer(512)        # struct timex, modes 0: reads only
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    _, _, _, maxerror, _, status = struct.unpack_from("@Illlli", buffer)
    return (state, status, maxerror) if state >= 0 else None


def synchronised(kernel, now_ns=None):
    """kernel: of kernel()."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    do = "let chrony or systemd-timesyncd reach a time server (timedatectl); events taken meanwhile are marked and timed again later"
    if now_ns < EARLIEST_NS:
        yield Finding(ERROR, "clock", f"it stands at {time.strftime('%Y-%m-%d', time.gmtime(now_ns // 10**9))}: it was never set", do)
    elif kernel is None:
        yield Finding(UNKNOWN, "clock", "adjtimex does not answer")
    elif kernel[0] == 5 or kernel[1] & UNSYNC:
        yield Finding(WARNING, "clock", "not synchronised, says the kernel", do)
    elif kernel[2] > ERROR_US:
        yield Finding(WARNING, "clock", f"it may be wrong by {kernel[2] / 1e6:.1f} s", do)
    else:
        yield Finding(GOOD, "clock", f"synchronised, wrong by at most {kernel[2] / 1e3:.0f} ms")


def gateways_clock(status):
    """status: the running gateway's."""
    if status.get("clock") not in (None, "trusted"):
        yield Finding(WARNING, "clock", "the gateway takes it for wrong: it stands before a time that is known to have passed", "set it, or look for a missing time server")
    steps = status.get("clock_steps") or 0
    if steps > 1:                        # the first is the usual one after a start without a battery
        yield Finding(WARNING, "clock", f"it was set {steps} times by more than half a second since the gateway's start, last by {status.get('clock_step_s', 0):+.1f} s",
                      "two time services at once, a bad time server, or a person: one service, and let it slew")


def battery(root=""):
    """Without a real-time clock the board starts in the past."""
    if not glob.glob(f"{root}/sys/class/rtc/rtc*"):
        yield Finding(NOTE, "clock", "there is no battery-backed clock: after a power cut the time is wrong until a time server is reached", "add an RTC module if the site is often without network")
