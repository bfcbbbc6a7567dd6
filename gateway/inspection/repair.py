"""`tidegate buffer repair`: mends the logs of a data directory (edge/storage/mending.py) while no gateway has it."""

import json
import os
import time

from edge.errors import ConfigError, DiskError
from edge.storage.disk import Disk
from edge.storage.mending import Mending
from gateway.inspection.store import plain


def repair(store, arguments) -> int:
    """Say what is damaged, and mend it unless it is a dry run. Exit status 0: the logs are good now, 1: a dry run found something to do."""
    names = arguments.logs or store.names()
    disk, locks, found = Disk(), [], {}
    try:
        if not arguments.dry_run:
            locks.append(_claim(disk, store.directory))
        for name in names:
            path = store.log(name).directory
            if not arguments.dry_run:
                locks.append(_claim(disk, path))
            found[name] = _mend(store, disk, name, path, arguments)
    finally:
        for lock in reversed(locks):
            os.close(lock)
    if arguments.json:
        print(json.dumps({"data": store.directory, "dry_run": arguments.dry_run, "logs": found}))
    return int(arguments.dry_run and any(found.values()))


def _mend(store, disk, name, path, arguments) -> list:
    mending = Mending(disk, path, check=(lambda record: None) if name == "checkpoints" else store.check, cipher=store.cipher, now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    actions = mending.actions
    if not arguments.dry_run and actions:
        mending.apply()
        if again := Mending(disk, path, cipher=store.cipher).actions:
            raise DiskError(f"{path}: still damaged after the repair: {again[0]['file']}: {again[0]['why']}: the disk does not keep what is written; copy the directory to another card")
    if not arguments.json:
        print(f"{name}: {'good' if not actions else f'{len(actions)} to do' if arguments.dry_run else 'repaired'}")
        for action in actions:
            lost = f", {action['positions_lost']:,} positions lost" if action.get("positions_lost") else ""
            print(f"  {action['file']}: {'would ' if arguments.dry_run else ''}{action['do']}{lost}: {plain(action['why'])}")
        if actions and not arguments.dry_run:
            print(f"  what was put aside, and why, is in {path}/quarantine")
    return actions


def _claim(disk, directory):
    try:
        return disk.lock(directory)
    except BlockingIOError:
        raise ConfigError(f"{directory}: a gateway runs on it; stop it first. Nothing was changed (--dry-run says what would be, beside a running gateway too)") from None
    except OSError as error:
        raise DiskError(f"{directory}: cannot be locked: {error.strerror}") from None
