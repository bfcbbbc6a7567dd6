"""Where a configuration is put: whole or not at all, never over another one unless that is asked for, with files that the service's user may read; and the service's start."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from edge.errors import ConfigError
from edge.storage import whole
from edge.storage.disk import Disk
from gateway.config import reader as config

PRISTINE = Path("/opt/tidegate/tidegate.toml")       # the package's own, to know whether the conffile was ever changed
SERVICE = "tidegate"                                 # user and unit
SYSTEMD = Path("/run/systemd/system")


def refuse_over(path, force):
    """Raises ConfigError when there is a configuration that is somebody's work, or this user may not write one, before anything is asked."""
    if path.exists() and not force and not untouched(path):
        raise ConfigError(f"{path} is there already: --force writes over it and keeps it as {path.name}.bak; -c FILE writes elsewhere")
    if path.exists() and not os.access(path, os.W_OK) or path.parent.exists() and not os.access(path.parent, os.W_OK):
        raise _unwritten(path, PermissionError())


def untouched(path) -> bool:
    """Whether it is the package's conffile as it came."""
    try:
        return path == config.INSTALLED and path.read_bytes() == PRISTINE.read_bytes()
    except OSError:
        return False


class Placing:
    """Files that are put down together: undo() takes back those that were not there before."""

    def __init__(self):
        self._new = []

    def beside(self, path, text):
        """A file of secrets or permits, for root and the service's user alone. Raises ConfigError."""
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
                _own(path.parent, 0o750)
            fresh = not path.exists()
            _replace(path, text, lambda file: _own(file, 0o640))
            if fresh:
                self._new.append(path)
        except OSError as error:
            raise _unwritten(path, error) from None

    def undo(self):
        for path in self._new:
            path.unlink(missing_ok=True)


def configuration(path, text) -> bool:
    """Put it there; what was there before stays as .bak, if somebody had changed it: whether that is so. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.exists() and not untouched(path)
        if kept:
            shutil.copy2(path, f"{path}.bak.new")
            os.replace(f"{path}.bak.new", f"{path}.bak")
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
        _replace(path, text, lambda file: os.chmod(file, mode))
        return kept
    except OSError as error:
        raise _unwritten(path, error) from None


def _replace(path, text, own):
    whole.replace(Disk(), str(path.absolute()), text.encode(), own)


def _own(path, mode):
    """Root's, and for the service's user to read, where there is one."""
    user = service_user()
    if user is not None and os.geteuid() == 0:
        os.chown(path, 0, user.pw_gid)
        os.chmod(path, mode)
    else:
        os.chmod(path, mode & 0o700)


def _unwritten(path, error):
    what = "this user may not write there: sudo tidegate init, or -c FILE elsewhere" if isinstance(error, PermissionError) else error.strerror or str(error)
    return ConfigError(f"{path}: cannot be written: {what}")


def service_user():
    """The passwd entry of the service's user, or None."""
    try:
        return pwd.getpwnam(SERVICE)
    except KeyError:
        return None


def unreadable(paths) -> list[str]:
    """Those of the files that the service's user cannot read, by their modes and those of the folders above."""
    user = service_user()
    if user is None:
        return []
    groups = set(os.getgrouplist(user.pw_name, user.pw_gid))

    def may(path, bit):
        found = os.stat(path)
        shift = 6 if found.st_uid == user.pw_uid else 3 if found.st_gid in groups else 0
        return bool(found.st_mode >> shift & bit)

    found = []
    for path in paths:
        try:
            if not may(path, 4) or not all(may(parent, 1) for parent in Path(path).parents):
                found.append(str(path))
        except OSError:
            found.append(str(path))
    return found


def start() -> str:
    """Enable the unit and start it, or start it again; what was done. Raises ConfigError with what systemctl said."""
    running = subprocess.run(["systemctl", "--quiet", "is-active", SERVICE], capture_output=True).returncode == 0
    for command in (["enable", "--now", SERVICE], *([["restart", SERVICE]] if running else [])):
        done = subprocess.run(["systemctl", *command], capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"systemctl {' '.join(command)}: {done.stderr.strip() or done.returncode}; journalctl -u {SERVICE} says more. The configuration is written")
    return f"{SERVICE}.service is enabled and runs"
