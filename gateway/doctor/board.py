"""The board: power, heat, memory, page size."""

import glob
import os
import subprocess

from gateway.doctor.finding import ERROR, GOOD, NOTE, UNKNOWN, WARNING, Finding, text

POWER = "use the supply that the board's maker names and a short, thick cable; take off USB devices that it feeds"
COOL = "give it a heat sink or air; the rules get less CPU meanwhile"
BITS = ((0, "under-voltage", POWER), (1, "the CPU's clock is capped", COOL), (2, "throttled", COOL), (3, "at the soft temperature limit", COOL))
HOT_C = 80
MEMORY_PART = 0.85
MEMORY_LEAST = 64 << 20


def vcgencmd() -> str | None:
    """What `vcgencmd get_throttled` says; None without it."""
    try:
        return subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def throttled(root="", ask=vcgencmd):
    """Under-voltage and throttling of a Raspberry Pi, now and since it was started."""
    said = text(f"{root}/sys/devices/platform/soc/soc:firmware/get_throttled") or ask()
    if said is None:
        yield Finding(UNKNOWN, "power", "neither sysfs nor vcgencmd tells of throttling")
        return
    try:
        bits = int(said.rpartition("=")[2], 16)
    except ValueError:
        yield Finding(UNKNOWN, "power", f"get_throttled says {said[:40]!r}")
        return
    found = False
    for bit, what, do in BITS:
        if bits >> bit & 1 or bits >> (bit + 16) & 1:
            found = True
            now = bits >> bit & 1
            yield Finding(ERROR if now and bit == 0 else WARNING, "power", f"{what} {'now' if now else 'since the board was started'}", do)
    if not found:
        yield Finding(GOOD, "power", "no under-voltage, no throttling")


def voltage_alarms(root=""):
    """Alarms of hardware monitors, such as rpi_volt."""
    for path in sorted(glob.glob(f"{root}/sys/class/hwmon/hwmon*/in*_lcrit_alarm")):
        if text(path) == "1":
            yield Finding(ERROR, "power", f"{text(os.path.join(os.path.dirname(path), 'name')) or 'a sensor'} reports under-voltage", POWER)


def heat(root=""):
    """The hottest thermal zone."""
    degrees = [int(value) / 1000 for path in glob.glob(f"{root}/sys/class/thermal/thermal_zone*/temp") if (value := text(path) or "").lstrip("-").isdecimal()]
    if degrees and max(degrees) >= HOT_C:
        yield Finding(WARNING, "heat", f"{max(degrees):.0f} °C", COOL)
    elif degrees:
        yield Finding(GOOD, "heat", f"{max(degrees):.0f} °C")


def memory(pid, root=""):
    """The memory limit of the gateway's control group (systemd's MemoryMax=, a container's), and whether it was met. pid: the gateway's, or None."""
    lines = (text(f"{root}/proc/{pid}/cgroup") or "").splitlines() if pid else []
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        yield Finding(UNKNOWN, "memory limit", "no control group tells")
        return
    while True:                          # any group above may have the limit
        folder = f"{root}/sys/fs/cgroup{own.rstrip('/')}"
        limit, used = text(f"{folder}/memory.max"), text(f"{folder}/memory.current")
        kills = dict(line.split() for line in (text(f"{folder}/memory.events") or "").splitlines()).get("oom_kill", "0")
        if limit and limit.isdecimal() and used and used.isdecimal():
            said = f"{int(used) / 1e6:,.0f} of {int(limit) / 1e6:,.0f} MB in {own or '/'}"
            if kills != "0":
                yield Finding(ERROR, "memory limit", f"{said}; the kernel has killed {kills} processes there for it", "raise MemoryMax= (or the container's limit), or run fewer rules")
            elif int(limit) < MEMORY_LEAST or int(used) > MEMORY_PART * int(limit):
                yield Finding(WARNING, "memory limit", said, "raise MemoryMax= (or the container's limit); files that are read and written count too")
            else:
                yield Finding(GOOD, "memory limit", said)
            return
        if own in ("", "/"):
            yield Finding(GOOD, "memory limit", "none")
            return
        own = own.rpartition("/")[0]


def pages(size=None):
    """Kernel pages larger than usual: each rule and each mapping takes whole ones."""
    size = size or os.sysconf("SC_PAGE_SIZE")
    if size > 4096:
        yield Finding(NOTE, "page size", f"{size // 1024} KiB: the gateway takes more memory than docs/performance.md says, some pages for each rule",
                      "on a Raspberry Pi 5, kernel=kernel8.img in config.txt gives 4 KiB pages, if memory is short")
    else:
        yield Finding(GOOD, "page size", f"{size // 1024} KiB")
