"""`tidegate init`: asks what a gateway needs to know (or takes it from flags), writes a configuration that `tidegate check` accepts, and says what comes next."""

import os
import shutil
from pathlib import Path

from edge.errors import ConfigError
from gateway.commands.check import beyond_form
from gateway.config import address, spec
from gateway.config import reader as config
from gateway.init import page, placing
from gateway.init.questions import Asker, disk_size, gather


def add_arguments(parser):
    parser.add_argument("-c", "--config", default="tidegate.toml", metavar="FILE", help="the configuration to write (the installed one, /etc/tidegate/tidegate.toml, if there is one and none here)")
    parser.add_argument("--name", help="the gateway's name, in every upstream topic; it stays with its data")
    parser.add_argument("--data", metavar="DIR", help="where it keeps its data (/var/lib/tidegate for root)")
    parser.add_argument("--broker", metavar="URL", help="subscribe there: mqtt(s)://[USER@]HOST[:PORT]")
    parser.add_argument("--listen", metavar="[HOST:]PORT", help="or let devices connect here; without a host those of this machine alone")
    for name, what in (("cert", "the certificate"), ("key", "its key"), ("ca", "devices show a certificate of this authority")):
        parser.add_argument(f"--listen-{name}", metavar="PEM", help=f"TLS of the listener: {what}")
    parser.add_argument("--listen-passwords", metavar="FILE", help="users and hashes, written by `tidegate passwd`; each device has to be one of them")
    parser.add_argument("--listen-acl", metavar="FILE", help="who may publish where (`acl` beside the configuration, written if it is missing)")
    parser.add_argument("--upstream", metavar="URL", help="where results go: mqtt(s)://[USER@]HOST[:PORT], or none")
    for end in ("broker", "upstream"):
        parser.add_argument(f"--{end}-password-file", metavar="FILE", help=f"holds the password for {end} in its first line")
        for name, what in (("ca", "trust this authority instead of the system's"), ("cert", "a certificate of this gateway"), ("key", "its key")):
            parser.add_argument(f"--{end}-{name}", metavar="PEM", help=f"TLS of {end}: {what}")
    parser.add_argument("--discover", type=float, metavar="SECONDS", help="listen so long, and propose streams for what is heard (0: an example instead)")
    parser.add_argument("--disk", metavar="SIZE", help="for all logs together, such as 2GiB; asked for only where the usual sizes do not fit")
    parser.add_argument("--force", action="store_true", help="write over a configuration that is there; it is kept as FILE.bak")
    parser.add_argument("--start", action="store_true", help="enable and start the installed service")


def run(arguments):
    path, asker = config.place(arguments.config), Asker()
    placing.refuse_over(path, arguments.force)
    answers = gather(arguments, asker, path)
    sizes = _sizes(arguments, asker, answers, path)
    placed = placing.Placing()
    try:
        for file, text in answers.files:
            placed.beside(file, text)
        proposed = _discovered(answers, asker)
        text, loaded = _composed(answers, proposed, sizes, path, placed)
    except BaseException:
        placed.undo()
        raise
    kept = placing.configuration(path, text)
    print(f"{path}: written, and sound" + (f"; what was there is {path}.bak" if kept else ""))
    for file, _ in answers.files:
        print(f"{file}: written")
    _warn(path, loaded)
    _next(arguments, asker, path, proposed)


def _discovered(answers, asker):
    """What is proposed for live traffic, or None. Raises ConfigError when there is none to hear, and nobody says that this does not matter."""
    if not answers.seconds:
        return None
    from gateway.discover.session import discovered

    try:
        proposed = discovered(address.source(answers.kind, answers.table), answers.seconds)
    except ConfigError as error:
        if not asker.yes(f"{error}\nWrite the configuration all the same"):
            raise
        return None
    return proposed if proposed.count else None


def _composed(answers, proposed, sizes, path, placed):
    """(the configuration's text, loaded), checked. The acl_file is written if it is missing. Raises config.Problems."""
    names = config.parse("[listener]\n" + proposed.streams).streams if proposed else {"env": None}
    acl = answers.table.get("acl_file")
    if acl and not os.path.exists(acl):
        placed.beside(Path(acl), page.permits(proposed.permits if proposed else ["sensors/%u/env"]))
        print(f"{acl}: written: each device may publish below its own name; look it over")
    text = page.configuration(answers, proposed, sizes, list(names))
    loaded = config.parse(text, path)
    problems = beyond_form(loaded)
    if problems:
        raise config.Problems(path, problems)
    return text, loaded


def _sizes(arguments, asker, answers, path) -> dict:
    """Quotas of the logs where the usual ones do not fit the disk, or a size is given: {"journal", "dead_letters", "outbox"} in bytes, else {}."""
    usual = spec.Journal().quota + spec.Journal().dead_letters + (spec.Lane(streams=[""]).quota if answers.upstream else 0)
    free = _free(path.absolute().parent / answers.data)
    if arguments.disk is not None:
        size = disk_size(arguments.disk)
    elif free >= 1.25 * usual:
        return {}
    elif not asker.terminal:
        raise ConfigError(f"no terminal to ask at, and --disk SIZE is missing: the logs take up to {usual >> 20} MiB, and {free >> 20} MiB are free at {answers.data}")
    else:
        size = asker.ask(f"The logs take up to {usual >> 20} MiB, and {free >> 20} MiB are free at {answers.data}. How much may they take", f"{max(64, free >> 21)}MiB", disk_size)
    mebibytes = size >> 20
    journal, letters = mebibytes * 6 // 10, mebibytes // 10
    return {"journal": journal << 20, "dead_letters": letters << 20, "outbox": (mebibytes - journal - letters) << 20}


def _free(folder):
    """Bytes that are free where a folder is or would be made."""
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free


def _warn(path, loaded):
    """Files that the service's user will not be able to read."""
    if path != config.INSTALLED:
        return
    files = [value for end in (loaded.listener, loaded.broker, loaded.upstream) if end is not None for value in
             (end.tls and end.tls.ca, end.tls and end.tls.cert, end.tls and end.tls.key, getattr(end, "password_file", None), getattr(end, "acl_file", None)) if value]
    for file in placing.unreadable(files):
        print(f"{file}: the service's user {placing.SERVICE} cannot read it: chgrp {placing.SERVICE} {file} && chmod g+r {file}, or LoadCredential= (docs/installer.md)")


def _next(arguments, asker, path, proposed):
    """Start the service, or say how."""
    if not proposed:
        print("The stream in it is an example: `tidegate discover` proposes those for what really comes.")
    installed = path == config.INSTALLED
    if installed and placing.SYSTEMD.is_dir() and (arguments.start or asker.yes("Start it now")):
        print(placing.start())
        print("next: sudo tidegate status")
    elif installed:
        print(f"next: sudo systemctl enable --now {placing.SERVICE}")
    else:
        print(f"next: tidegate run -c {path}")
