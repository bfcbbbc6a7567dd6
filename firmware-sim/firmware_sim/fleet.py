"""The fleet: all devices of a scenario in one thread and one epoll loop."""

import datetime
import heapq
import random
import resource
import select
import socket
import time
from itertools import count

from .connection import UP
from .device import SECOND, Device
from .errors import BrokerError
from .truth import NoTruth

STEPS_MAX = 512                  # events made in one turn, so that acknowledgements are read in between
STALL_EVENTS = 256               # at speed max, a device with so many waiting stops the scenario's clock
HANDSHAKES_MAX = 128             # connections being made at once while the fleet starts
NO_PROGRESS_S = 30.0
SLOW_TURN_S = 0.02


class _Sockets:
    """epoll: socket -> Connection."""

    def __init__(self):
        self._epoll = select.epoll()
        self._owners = {}

    def watch(self, sock, owner, writable):
        fd, events = sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if writable else 0)
        if fd in self._owners:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._owners[fd] = owner

    def unregister(self, sock):
        if self._owners.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def poll(self, timeout_s):
        for fd, events in self._epoll.poll(timeout_s):
            owner = self._owners.get(fd)
            if owner is not None:
                owner.ready(bool(events & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)))

    def close(self):
        self._epoll.close()


class Fleet:
    """Runs a scenario against a broker. Raises BrokerError when the devices cannot connect."""

    def __init__(self, scenario, host, port, *, truth=None, seed=None, speed=None, username=None, password=None):
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        self.speed = scenario.speed if speed is None else speed
        self.truth = truth or NoTruth()
        self.username, self.password = username, password
        self._place = f"{host}:{port}"
        self.family, self.address = _resolve(host, port)
        self.selector = _Sockets()
        self.touched = {}            # Connection -> None: those with something to fill or send
        self.now = time.monotonic()
        self.wall_ns = time.time_ns()
        self.start_ns = self.wall_ns if scenario.start is None else _ns(scenario.start)
        self.elapsed = 0             # scenario time, ns since the start
        self.made = self.dropped = self.cuts = self.losses = self.lost_acks = self.refused = 0
        self.trouble = self.rejection = None     # the latest that went wrong; the latest CONNACK that said no
        self.stopped = False
        self._order = count()
        self._agenda = []            # heap of (scenario ns, order, fn(due) -> next due or None)
        self._timers = []            # heap of (monotonic s, order, fn)
        self.devices = [Device(self, group, i, self.seed) for group in scenario.group for i in range(group.count)]
        self._slow = []
        self._abandoned = []         # sockets of half-open connections
        self._report_at = self.now + 1.0
        self._progress = None
        self._plan_faults()

    def run(self, *, seconds=None, events=None, drain_s=10.0, on_progress=None) -> dict:
        """Connect, play the scenario to its end (scenario seconds or events made; or stop()), drain, and say what happened."""
        _need_files(len(self.devices))
        self._progress = on_progress or (lambda fleet: None)
        try:
            self._connect()
            if self.scenario.start is None:
                self.start_ns = time.time_ns()
            self.truth.begin(self.scenario, self.start_ns)
            for device in self.devices:
                heapq.heappush(self._agenda, (device.first_due, next(self._order), device.step))
            began, cpu = time.monotonic(), time.process_time()
            self._play(seconds, events)
            took, cpu = time.monotonic() - began, time.process_time() - cpu
            self._drain(drain_s)
            summary = self.summary(took, cpu)
            for device in self.devices:
                device.connection.finish()
            self.truth.close(summary, time.time_ns())
        finally:
            for dead in self._abandoned:
                dead.close()
            self.selector.close()
        return summary

    def stop(self):
        """End the scenario now; run() drains and returns. Safe in a signal handler."""
        self.stopped = True

    def schedule(self, due, fn):
        """Call fn(due) once when the scenario's time reaches due (ns)."""
        heapq.heappush(self._agenda, (due, next(self._order), fn))

    def later(self, delay_s, fn):
        """Call fn() once, delay_s wall-clock seconds from now."""
        heapq.heappush(self._timers, (self.now + delay_s, next(self._order), fn))

    def summary(self, took, cpu) -> dict:
        """Counts so far."""
        truth = self.truth
        return {
            "devices": len(self.devices), "made": self.made, "sent": truth.sent, "acknowledged": truth.acked_count,
            "malformed": truth.malformed, "duplicates": truth.copies_count[False], "resent": truth.copies_count[True],
            "dropped": self.dropped, "evicted": sum(d.connection.evicted for d in self.devices),
            "unacknowledged": sum(len(d.connection.inflight) for d in self.devices),
            "unsent": sum(len(d.connection.queue) for d in self.devices), "refused": self.refused,
            "lost_acks": self.lost_acks, "cuts": self.cuts, "losses": self.losses,
            "scenario_s": round(self.elapsed / SECOND, 3), "wall_s": round(took, 3), "cpu_s": round(cpu, 3),
            "events_per_s": round(self.made / took) if took > 0 else 0,
        }

    def _plan_faults(self):
        first = 0
        for group in self.scenario.group:
            devices = self.devices[first:first + group.count]
            first += group.count
            rng = random.Random(f"{self.seed}/{group.name}/faults")
            faults = group.faults
            for step in faults.steps:
                chosen = devices if step.devices is None else rng.sample(devices, step.devices)
                self._at(step.at_s, lambda due, chosen=chosen, by=int(step.by_s * SECOND): [d.set_clock(by) for d in chosen])
            for storm in faults.storms:
                chosen = rng.sample(devices, storm.devices)
                self._at(storm.at_s, lambda due, chosen=chosen, ns=int(storm.for_s * SECOND): [d.go_offline(due, ns) for d in chosen])
            for dead in faults.half_open:
                chosen = rng.sample(devices, dead.devices)
                self._at(dead.at_s, lambda due, chosen=chosen, s=dead.for_s: [self._half_open(d, s) for d in chosen])
            if faults.slow_link:
                for device in rng.sample(devices, faults.slow_link.devices):
                    device.connection.limit(faults.slow_link.bytes_per_s)
                    self._slow.append(device.connection)

    def _at(self, at_s, action):
        def act(due):
            action(due)
        self.schedule(int(at_s * SECOND), act)

    def _half_open(self, device, for_s):
        if device.connection.wanted:
            old = device.connection.abandon()
            if old is not None:
                self.cuts += 1
                self._abandoned.append(old)
                self.later(for_s, old.close)

    def _connect(self):
        waiting = [d.connection for d in reversed(self.devices)]
        opening, progress_at = [], time.monotonic()
        while waiting or opening:
            room = HANDSHAKES_MAX - len(opening)
            for _ in range(min(room, len(waiting))):
                opening.append(waiting.pop())
                opening[-1].open()
            self._turn(0.02, lambda: 0)
            left = [c for c in opening if c.state != UP]
            if len(left) < len(opening):
                progress_at = self.now
            opening = left
            if self.stopped:
                return
            if self.now - progress_at > NO_PROGRESS_S or self.rejection:
                raise BrokerError(f"{self._place}: {self.trouble or 'no answer to CONNECT'}; {len(opening) + len(waiting)} of "
                                  f"{len(self.devices)} devices are not connected")

    def _play(self, seconds, events):
        end = None if seconds is None else int(seconds * SECOND)
        began = moved_at = time.monotonic()
        moved = None
        agenda, flat_out = self._agenda, self.speed == "max"

        def make():
            """Run what is due; returns the number of agenda entries run."""
            now = None if flat_out else int((self.now - began) * self.speed * SECOND)
            ran = 0
            while agenda and ran < STEPS_MAX:
                due, order, fn = agenda[0]
                if (now is not None and due > now) or (end is not None and due >= end):
                    break
                if flat_out and self._must_wait(getattr(fn, "__self__", None)):
                    break
                self.elapsed = due
                heapq.heappop(agenda)
                again = fn(due)
                if again is not None:
                    heapq.heappush(agenda, (again, order, fn))
                    self.made += 1
                    if events is not None and self.made >= events:
                        self.stopped = True
                        break
                ran += 1
            return ran

        while not self.stopped:
            left = agenda[0][0] if end is None else min(agenda[0][0], end)
            wait = 0.05 if flat_out else max(0.0, began + left / SECOND / self.speed - time.monotonic())
            self._turn(min(wait, 0.05), make)
            if end is not None and agenda[0][0] >= end and (flat_out or (self.now - began) * self.speed * SECOND >= end):
                break
            if moved != (self.made, self.truth.sent, self.truth.acked_count):
                moved, moved_at = (self.made, self.truth.sent, self.truth.acked_count), self.now
            if flat_out and self.now - moved_at > NO_PROGRESS_S:
                self.trouble = f"{self._place} took nothing for {NO_PROGRESS_S:.0f} s: {self.trouble or 'acknowledgements are missing'}"
                return
        if end is not None and not self.stopped:
            self.elapsed = end

    def _must_wait(self, device):
        """At speed max nothing but the network holds the clock back: a full device does, and a planned fault waits for what came before."""
        if device is not None:
            connection = device.connection
            return connection.wanted and len(connection.queue) >= min(STALL_EVENTS, connection.queue_max)
        return any(d.connection.queue and d.connection.wanted for d in self.devices)

    def _drain(self, drain_s):
        for device in self.devices:
            device.finish()
        until = time.monotonic() + drain_s
        busy = [d.connection for d in self.devices]
        while busy and time.monotonic() < until:
            self._turn(0.01, lambda: 0)
            busy = [c for c in busy if c.pending]

    def _turn(self, wait_s, make):
        """Make events, write the truth, then the sockets; then wait for answers, but not if there is more to make."""
        self.now = time.monotonic()
        self.wall_ns = time.time_ns()
        ran = make()
        for connection in self._slow:
            self.touched[connection] = None
        if self.touched:
            touched, self.touched = self.touched, {}
            for connection in touched:
                connection.fill()
            self.truth.flush(self.wall_ns)
            for connection in touched:
                connection.send()
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        if ran or self.touched:
            wait_s = 0.0
        elif self._slow:
            wait_s = min(wait_s, SLOW_TURN_S)
        if self._timers:
            wait_s = max(0.0, min(wait_s, self._timers[0][0] - self.now))
        self.selector.poll(wait_s)
        if self.now >= self._report_at:
            self._report_at = self.now + 1.0
            for device in self.devices:
                device.connection.check(self.now)
            self._progress(self)


def _ns(moment):
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1) * 1000


def _resolve(host, port):
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BrokerError(f"{host}:{port}: {error.strerror}") from None
    return family, address


def _need_files(devices):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = devices + 64
    if need > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(need, hard) if hard != resource.RLIM_INFINITY else need, hard))
        except (ValueError, OSError):
            pass
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < need:
            raise BrokerError(f"{devices} devices need {need} open files, the limit is {hard}; raise it (ulimit -n) or use fewer devices")
