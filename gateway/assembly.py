"""A gateway's parts: the core, and the doors around it that let events in and out."""

from edge.errors import ConfigError, DiskError
from edge.mqtt._intake import Intake, Topics
from gateway import links
from gateway.clock import Clock
from gateway.core import Core
from gateway.upkeep import Upkeep

RETRY_S = 5.0


class Parts:
    """A gateway's parts, recovered and ready; open_sources() lets events in."""

    def __init__(self, config, log, machine):
        """machine: gateway.machine.Machine. Raises ConfigError for what cannot be, DiskError for a directory of a newer version."""
        self.config, self.log = config, log
        self._machine, self._disk, self.reactor = machine, machine.disk, machine.reactor
        self.intake = Intake(Topics())
        self.sources, self.listener, self.broker, self.upstream = [], None, None, None
        self.workshop = None
        self._lock = self._claim(config.gateway.data)
        try:
            self.workshop = machine.place(config.gateway.isolation, log)     # before anything secret is read
            self.core, recovered = self._recovered()
        except BaseException:
            self._end()
            raise
        self.clock = Clock(recovered.received_ns, wall_ns=machine.wall_ns, boot_ns=machine.boot_ns)

    def _claim(self, data):
        try:
            self._disk.mkdir(data)
            return self._disk.lock(data)
        except BlockingIOError:
            raise ConfigError(f"{data}: another gateway runs on this directory; stop it, or set gateway.data") from None
        except OSError as error:
            raise ConfigError(f"{data}: the data directory cannot be used: {error.strerror}; set gateway.data to one that this user may write") from None

    def _recovered(self):
        """The core where the last run stood. Goes on trying while the disk refuses."""
        while True:
            core = Core(self.config, self._disk, self.config.gateway.modules, self.log, self.workshop)
            try:
                return core, core.recover()
            except DiskError as error:
                core.close()
                if "newer" in str(error):
                    raise
                self.log.error("disk", f"not yet started: {error}; trying again in {RETRY_S:.0f} s")
                self._machine.sleep(RETRY_S)

    # --- the doors

    def open_sources(self, handle=None):
        """Listen, subscribe, connect. handle(request, who) answers management requests. Raises ConfigError when an address cannot be had."""
        self.listener = links.listener(self.config, self.reactor, self.intake, self.log)
        self.broker = links.broker(self.config, self.reactor, self.intake, self.log)
        self.sources = [source for source in (self.listener, self.broker) if source is not None]
        self.upstream = links.upstream(self.config, self.reactor, [lane for _, lane in self.core.lanes], self.log, handle, self.intake)
        self._upkeep = Upkeep(self.reactor, links.followed(self.config, self.listener, self.broker, self.upstream, self.log))
        if self.upstream is not None:
            self.upstream.start()

    def close_sources(self):
        for source in self.sources:
            source.close()

    def close(self):
        """Release everything."""
        if self.upstream is not None:
            self.upstream.close()
        self.core.close()
        self._end()
        self.reactor.close()

    def _end(self):
        if self.workshop is not None:
            self.workshop.close()
        self._disk.close(self._lock)
