"""`tidegate passwd FILE USER`: let a device's user into the listener's password file, or out of it. The running gateway reads it again by itself."""

import getpass
import sys

from edge.errors import ConfigError
from gateway.ingest import passwords


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE", help="listener.password_file; made if it is missing")
    parser.add_argument("user", metavar="USER")
    parser.add_argument("--remove", action="store_true", help="let the user out")


def run(arguments):
    if arguments.remove:
        passwords.put(arguments.file, arguments.user, None)
        return
    password = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    data = password.encode()
    if not 1 <= len(data) <= passwords.PASSWORD_BYTES_MAX:
        raise ConfigError(f"a password has 1 to {passwords.PASSWORD_BYTES_MAX} bytes: type it, or put it into standard input as one line")
    passwords.put(arguments.file, arguments.user, passwords.hashed(data))


def _asked():
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigError("the two are not the same: nothing was written")
    return password
