"""Permits: the file that says who may publish where. The lines are those of a Mosquitto acl_file, as far as publishing goes:

    pattern write sensors/%c/#       everybody; %c is the client id, %u the user name
    user press-7                     from here on: this user
    topic write plant/hall2/#        write or readwrite, which is what is meant when neither stands there

`topic` before the first `user` is for clients without a user name. Lines that begin with # are comments; `topic read` says nothing here, as
devices hear nothing. A client with a certificate of listener.tls.ca and without a user name has its common name as one.
"""

import re

from edge.decoding.contract import check_filter
from edge.errors import ConfigError
from edge.mqtt._permission import FILTERS_MAX, Permission
from gateway.ingest.entries import entries

FILE_BYTES_MAX = 4 << 20
UNSAFE = re.compile(r"[+#/%\x00-\x1f\x7f-\x9f]")     # in a client id or user name it could make one device's pattern another's


class Permits:
    """Of a file. Raises ConfigError with the line that is wrong."""

    def __init__(self, path):
        self._patterns, self._topics = [], {}
        user = None
        for number, line in entries(path, FILE_BYTES_MAX, "write into it who may publish where"):
            words = line.split(None, 1)
            try:
                if len(words) < 2 or words[0] not in ("user", "topic", "pattern"):
                    raise ConfigError("it begins with user, topic or pattern, and goes on")
                if words[0] == "user":
                    user = words[1].strip()
                else:
                    self._add(words[0], words[1].strip(), user)
            except ConfigError as error:
                raise ConfigError(f"{path}: line {number}: {error}") from None
        most = len(self._patterns) + max(map(len, self._topics.values()), default=0)
        if most > FILTERS_MAX:
            raise ConfigError(f"{path}: {most} filters for one client are more than {FILTERS_MAX}; use + and #")

    def _add(self, kind, text, user):
        first, _, rest = text.partition(" ")
        access, text = (first, rest.strip()) if first in ("read", "write", "readwrite", "deny") else ("readwrite", text)
        if access == "deny":
            raise ConfigError("deny is not known here: what no line allows is denied")
        check_filter(text)
        if access == "read":
            return
        if kind == "pattern":
            self._patterns.append(text)
        else:
            self._topics.setdefault(user, []).append(text)

    def permission(self, client_id, user):
        """What a client may publish on; user: None when it has shown none."""
        filters = list(self._topics.get(user, ()))
        for text in self._patterns:
            if "%u" in text and user is None:
                continue
            filters.append(re.sub("%[cu]", lambda match: client_id if match[0] == "%c" else user, text))
        return Permission(text.encode() for text in filters)
