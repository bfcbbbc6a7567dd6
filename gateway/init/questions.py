"""Questions: what a gateway needs to know, from flags, or asked at a terminal where they say nothing. Without a terminal nothing is asked: what is missing is an error that
names the flag."""

import getpass
import os
import re
import socket
import sys

from edge.errors import ConfigError
from edge.identity import gateway_of
from edge.storage.disk import Disk
from gateway.config import address
from gateway.config import reader as config
from gateway.config.units import Size
from gateway.ingest import passwords

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
NONE = ("none", "no", "-")
TRIES_MAX = 5
USER_MAX = 128


class Answers:
    """name, data; kind ("broker" or "listener") and table of the source; upstream: table or None; seconds of discovery, 0 for none; disk: bytes for all logs or
    None; files: [(path, text)] of secrets that were typed, to be written beside the configuration."""

    def __init__(self):
        self.name = self.data = self.kind = self.disk = None
        self.table, self.upstream, self.seconds, self.files = {}, None, 0.0, []


class Asker:
    """Asks at the terminal, if there is one."""

    def __init__(self):
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def ask(self, question, default="", sound=lambda text: text):
        """The answer as sound(text) makes it of what was typed, or of the default; asked again while that raises ConfigError. Without a terminal the default."""
        if not self.terminal:
            return sound(default)
        for _ in range(TRIES_MAX):
            text = self._line(f"{question}{f' [{default}]' if default else ''}: ") or default
            try:
                return sound(text)
            except ConfigError as error:
                print(f"  {error}")
        raise ConfigError("that was asked often enough: nothing was written")

    def yes(self, question, default=True) -> bool:
        """Whether the answer is yes. Without a terminal: no."""
        if not self.terminal:
            return False

        def sound(text):
            if text.lower() not in ("y", "yes", "n", "no"):
                raise ConfigError("yes or no")
            return text.lower().startswith("y")

        return self.ask(question, "yes" if default else "no", sound)

    def secret(self, question) -> str:
        """A password, typed unseen; empty for none."""
        try:
            return getpass.getpass(f"{question}: ")
        except EOFError:
            raise ConfigError("the terminal ended: nothing was written") from None

    @staticmethod
    def _line(prompt):
        try:
            return input(prompt).strip()
        except EOFError:
            print()
            raise ConfigError("the terminal ended: nothing was written") from None
        except UnicodeDecodeError:
            return ""


def gather(arguments, asker, path) -> Answers:
    """All answers. path: of the configuration. Raises ConfigError with every flag that is missing."""
    _flags_fit(arguments, asker)
    if not asker.terminal:
        missing = [flag for flag, given in (("--name NAME", arguments.name), ("--broker URL or --listen [HOST:]PORT", arguments.broker or arguments.listen),
                                            ("--upstream URL or --upstream none", arguments.upstream)) if not given]
        if missing:
            raise ConfigError("\n".join(f"no terminal to ask at, and {flag} is missing" for flag in missing))
    answers = Answers()
    answers.data = arguments.data or ("/var/lib/tidegate" if path == config.INSTALLED or os.geteuid() == 0 else "data")
    owner = gateway_of(Disk(), str(path.absolute().parent / answers.data))
    answers.name = _given(asker, arguments.name, "The gateway's name, in every upstream topic; it stays with its data", owner or _host_name(), lambda text: _name(text, owner, answers.data))
    _source(arguments, asker, answers, path)
    _upstream(arguments, asker, answers, path)
    if arguments.discover is not None:
        answers.seconds = arguments.discover
    elif asker.yes("Listen for a minute, and propose streams for what is heard"):
        answers.seconds = 60.0
    return answers


def _given(asker, flag, question, default, sound):
    """A flag's value, checked, or else the answer."""
    return sound(flag) if flag is not None else asker.ask(question, default, sound)


def _flags_fit(arguments, asker):
    if arguments.broker and arguments.listen:
        raise ConfigError("--broker or --listen: a gateway can have both, but init asks for one; add the other to the configuration")
    for end, given in (("broker", arguments.broker), ("listen", arguments.listen), ("upstream", arguments.upstream and arguments.upstream not in NONE)):
        for name, value in vars(arguments).items():
            if name.startswith(f"{end}_") and value and not given and not asker.terminal:
                raise ConfigError(f"--{name.replace('_', '-')} needs --{end}")
    if arguments.discover is not None and not 0 <= arguments.discover <= 86_400:
        raise ConfigError("--discover: seconds, from 0 (not at all) to 86400")
    if arguments.disk is not None:
        disk_size(arguments.disk)


def disk_size(text) -> int:
    """Bytes for all logs. Raises ConfigError."""
    try:
        size = Size.parse(text)
    except ValueError as error:
        raise ConfigError(f"--disk: {error}") from None
    if size < 64 << 20:
        raise ConfigError(f"--disk {text}: at least 64MiB")
    return size


def _name(text, owner, data):
    if not NAME.fullmatch(text):
        raise ConfigError(f"--name {text!r}: a name has letters, digits, _ - . and at most 64 of them, and begins with no - or .")
    if owner and text != owner:
        raise ConfigError(f"--name {text}: {data} holds the data of gateway {owner!r}; take that name, another directory (--data), or move the data away to begin anew")
    return text


def _host_name():
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname().partition(".")[0])[:64].lstrip("-.")
    return name if NAME.fullmatch(name) else "gateway"


# --- where events come from

def _source(arguments, asker, answers, path):
    def sound(text):
        return ("broker", address.link("--broker", text, prefix="--broker-")) if "://" in text else ("listener", address.listener("--listen", text))

    if arguments.broker:
        answers.kind = "broker"
        answers.table = _link("broker", arguments.broker, arguments, asker, answers, path)
        return
    answers.kind, answers.table = sound(arguments.listen) if arguments.listen else asker.ask(
        "Where do events come from: a broker's mqtt(s)://[USER@]HOST[:PORT], or the [HOST:]PORT on which devices connect to this gateway", "1883", sound)
    if answers.kind == "broker":
        answers.table = _files("broker", answers.table, arguments, asker, answers, path)
    else:
        _listener(arguments, asker, answers, path)


def _listener(arguments, asker, answers, path):
    table = answers.table
    files = {name: getattr(arguments, f"listen_{name}") for name in ("cert", "key", "ca", "passwords", "acl")}
    if not address.is_loopback(table):
        if not asker.terminal and not (files["cert"] and files["key"] and (files["passwords"] or files["ca"])):
            raise ConfigError(f"--listen {table['host']}:{table['port']}: from the network devices come by TLS and with a name: --listen-cert and --listen-key, and --listen-passwords FILE "
                              "(`tidegate passwd FILE USER` writes it) or --listen-ca for their certificates")
        if asker.terminal:
            print("From the network devices come by TLS and with a name.")
        files["cert"] = files["cert"] or asker.ask("  PEM file of the gateway's certificate", "", _readable)
        files["key"] = files["key"] or asker.ask("  PEM file of its key", "", _readable)
        if not (files["passwords"] or files["ca"]):
            if asker.yes("  Do devices show a user name and a password (no: a certificate)"):
                files["passwords"] = _passwords(asker, answers, path)
            else:
                files["ca"] = asker.ask("  PEM file of the authority of their certificates", "", _readable)
    tls = {name: os.path.abspath(files[name]) for name in ("ca", "cert", "key") if files[name]}
    if tls:
        table["tls"] = tls
    if files["passwords"]:
        table["password_file"] = os.path.abspath(files["passwords"])
    if files["passwords"] or files["ca"]:
        table["acl_file"] = os.path.abspath(files["acl"] or path.absolute().parent / "acl")


def _passwords(asker, answers, path):
    """The password file beside the configuration, with a first user if it is not there yet."""
    file = path.absolute().parent / "passwords"
    if not file.exists():
        def sound(text):
            if not passwords.USER.fullmatch(text):
                raise ConfigError(f"up to {USER_MAX} characters without : # + / % and control characters")
            return text

        user = asker.ask("  User name of a first device (`tidegate passwd` adds others)", "", sound)
        password = asker.secret("  Its password").encode()
        if not 1 <= len(password) <= passwords.PASSWORD_BYTES_MAX:
            raise ConfigError(f"a password has 1 to {passwords.PASSWORD_BYTES_MAX} bytes: nothing was written")
        answers.files.append((file, f"{user}:{passwords.hashed(password)}\n"))
    return str(file)


# --- where results go

def _upstream(arguments, asker, answers, path):
    def sound(text):
        return None if text.lower() in NONE else address.link("--upstream", text, prefix="--upstream-") and text

    url = _given(asker, arguments.upstream, "Where do results go: mqtt(s)://[USER@]HOST[:PORT], or none", "none", sound)
    if url:
        answers.upstream = _link("upstream", url, arguments, asker, answers, path)


def _link(end, url, arguments, asker, answers, path):
    return _files(end, address.link(f"--{end}", url, prefix=f"--{end}-"), arguments, asker, answers, path)


def _files(end, table, arguments, asker, answers, path):
    """A link's table with user name, password and certificates. end: broker or upstream."""
    given = {name: getattr(arguments, f"{end}_{name}") for name in ("ca", "cert", "key", "password_file")}
    by_flags = bool(getattr(arguments, end))             # then the files, too, come by flags
    if "tls" in table:
        for name, what in (("ca", "PEM file of the authority of its certificate (the system's)"), ("cert", "PEM file of a certificate of this gateway (none)")):
            if given[name] is None and not by_flags:
                given[name] = asker.ask(f"  {what}", "", lambda text: text and _readable(text))
        if given["cert"] and not given["key"] and not by_flags:
            given["key"] = asker.ask("  PEM file of its key", "", _readable)
    elif given["ca"] or given["cert"] or given["key"]:
        raise ConfigError(f"--{end}: certificates are for mqtts://")
    if bool(given["cert"]) != bool(given["key"]):
        raise ConfigError(f"--{end}-cert and --{end}-key go together")
    if "tls" in table:
        table["tls"] = {name: os.path.abspath(given[name]) for name in ("ca", "cert", "key") if given[name]}
    if "username" not in table and not by_flags and not given["cert"] and (user := asker.ask("  User name there (none)")):
        table["username"] = user
    if given["password_file"]:
        table["password_file"] = os.path.abspath(given["password_file"])
    elif "username" in table and asker.terminal and (password := asker.secret(f"  Password of {table['username']} (none)")):
        file = path.absolute().parent / "secrets" / f"{end}-password"
        answers.files.append((file, password + "\n"))
        table["password_file"] = str(file)
    return table


def _readable(text):
    if not text:
        raise ConfigError("a file is needed")
    try:
        with open(text, "rb"):
            return text
    except OSError as error:
        raise ConfigError(f"{text}: {error.strerror}") from None
