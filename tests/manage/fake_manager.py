"""A Manager that keeps uploads and notes what it was asked, and gateways' doors around it."""

import base64
import hashlib
import threading
import time

from edge.errors import RuleError
from gateway.control import Control
from gateway.reactor import Reactor
from gateway.requests import Unknown


class FakeManager:
    """Answers as gateway/manage/manager.py does. asked: (request, who) of each call; delay_s: how long each takes."""

    def __init__(self):
        self.asked, self.uploads, self.complete = [], {}, {}
        self.delay_s = 0.0

    def handle(self, request, who):
        self.asked.append((request, who))
        time.sleep(self.delay_s)
        handler = getattr(self, f"_{request['do'].replace('.', '_')}", None)
        if handler is None:
            return {"did": request["do"]}
        return handler(request)

    def did(self, name):
        return [request for request, _ in self.asked if request["do"] == name]

    def _upload_begin(self, request):
        if request["digest"] in self.complete:
            return {"offset": request["size"]}
        size, have = self.uploads.setdefault(request["digest"], (request["size"], bytearray()))
        return {"offset": len(have)}

    def _upload_chunk(self, request):
        if request["digest"] in self.complete:
            return {"offset": len(self.complete[request["digest"]])}
        if request["digest"] not in self.uploads:
            raise RuleError("begin it", code="unknown")
        size, have = self.uploads[request["digest"]]
        if request["offset"] == len(have):
            have += base64.b64decode(request["data"])
        if len(have) == size:
            if hashlib.sha256(have).hexdigest() != request["digest"]:
                raise RuleError("the bytes that came are not those of the digest")
            self.complete[request["digest"]] = bytes(have)
        return {"offset": len(have)}

    def _rule_push(self, request):
        return job("push")

    _rule_set = _rule_enable = _rule_disable = lambda self, request: job(request["do"])

    def _rule_rm(self, request):
        return job("removed") if "rule" in request else {"removed": request["version"]}

    def _job(self, request):
        return job("push", request["id"])

    def _rule_ls(self, request):
        running = {"rule": "hot", "input": "env", "version": "hot@1", "digest": "0" * 64, "params": {"limit": 3.0}, "limits": None, "lanes": [], "enabled": True,
                   "previous": None, "shadow": None, "configured": False, "state": "active", "in": 5}
        version = {"label": "hot@1", "name": "hot", "version": 1, "digest": "0" * 64, "file": "1" * 64, "size": 5, "who": "local:0", "when_ns": 1, "signed_by": "",
                   "summary": ""}
        return {"rules": [running], "versions": [version]}

    def _rule_logs(self, request):
        return {"rule": request["rule"], "events": []}

    def _rule_audit(self, request):
        return {"lines": [], "head": [0, "0" * 64], "broken": None}

    def _tail(self, request):
        return {"rows": [{"sequence": 1}], "next": 1, "seen": 1, "sampled": 1}

    def _rule_show(self, request):
        raise Unknown(f"there is no rule {request['rule']!r}")

    def _rule_rollback(self, request):
        raise RuleError("there is no version before")

    def _rule_promote(self, request):
        raise ZeroDivisionError("a bug")


def job(what, number="1"):
    return {"job": number, "what": what, "rule": "hot", "version": "hot@1", "state": "done", "policy": "keep", "progress": 1.0, "error": "", "fault": "", "notes": [],
            "report": None}


class Box:
    """A reactor in a thread of its own, with the local socket in front of a FakeManager."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.manager = FakeManager()
        self.reactor = Reactor()
        self.control = Control(self.reactor, self.directory, {
            "manage": lambda request: self.manager.handle(request["request"], request["who"]),
            "status": lambda request: {"gateway": "g1"}, "ledger": lambda request: {"balanced": True, "accounts": [], "problems": []}})
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ends:
            self.reactor.turn(0.2)

    def close(self):
        self._ends = True
        self.reactor.soon(bool)
        self._thread.join()
        self.control.close()
        self.reactor.close()
