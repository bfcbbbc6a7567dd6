"""Doorman: who may connect to the listener, and what each may publish.

    certificate   with listener.tls.ca each device shows one, and its client id is the common name of the certificate's subject
    password      with listener.password_file each device has a user name there; with anonymous = true one without a user name comes in, too
    permits       listener.acl_file; what a device may publish on, its will included
"""

from gateway.ingest import passwords
from gateway.ingest.permits import UNSAFE
from gateway.ingest.verifier import BUSY, Verifier

# (words, reason code of MQTT 5, return code of 3.1.1)
NO_NAME = "its certificate's subject has not exactly one common name", 0x87, 5
OTHER_NAME = "its client id is not the common name of its certificate", 0x85, 2
BAD_NAME = "its client id or user name holds one of + # / % or a control character", 0x85, 2
NO_USER = "it shows no user name and password", 0x86, 5
WRONG = "its user name or password is wrong", 0x86, 4
TOO_BUSY = "too many passwords wait to be checked, or its address guessed too often", 0x89, 3
WILL = "it may not publish on the topic of its will", 0x87, 5


class Doorman:
    """users: {user: hash} or None when no password is asked for; permits: Permits or None for all topics; certificates: each device has one."""

    def __init__(self, reactor, *, users=None, permits=None, certificates=False, anonymous=False):
        self.users, self.permits = users, permits
        self.certificates, self.anonymous = certificates, anonymous
        self._verifier = Verifier(reactor) if users is not None else None
        self._nobody = passwords.unknown() if users is not None else ""      # so that an unknown user takes as long as a wrong password

    def ask(self, device, connect):
        """Check a valid CONNECT; device.checked(None or a refusal) is called now or later."""
        name = self.name_of(device)
        if self.certificates and not name:
            return device.checked(NO_NAME)
        if self.certificates and connect.client_id != name:
            return device.checked(OTHER_NAME)
        if self.permits is not None and (UNSAFE.search(connect.client_id) or UNSAFE.search(connect.username or "")):
            return device.checked(BAD_NAME)
        if self.users is None or (connect.username is None and self.anonymous):
            return device.checked(self._settle(device, connect, name or None, None))
        if connect.username is None or connect.password is None:
            return device.checked(NO_USER)
        if len(connect.password) > passwords.PASSWORD_BYTES_MAX:
            return device.checked(WRONG)
        secret = self.users.get(connect.username)

        def answer(good):
            if good is True and secret is not None and self.users.get(connect.username) == secret:
                device.checked(self._settle(device, connect, connect.username, secret))
            else:
                device.checked(TOO_BUSY if good == BUSY else WRONG)

        good = self._verifier.ask(connect.username, connect.password, secret or self._nobody, device.peer.rpartition(":")[0], answer)
        if good is not None:
            answer(good)

    def name_of(self, device) -> str:
        """The common name that a device has shown, or ""."""
        return self.certificates and common_name(device.sock) or ""

    def _settle(self, device, connect, user, secret):
        """Note who the device is and what it may. None, or why it is refused all the same."""
        device.user, device.secret = user, secret
        self._permit(device, connect.client_id)
        return WILL if connect.will is not None and not self.may(device, connect.will[0]) else None

    def _permit(self, device, client_id):
        device.flow.permission = None if self.permits is None else self.permits.permission(client_id, device.user)

    @staticmethod
    def may(device, topic) -> bool:
        """Whether a device may publish on a topic now."""
        return device.flow.permission is None or device.flow.permission.may(topic.encode())

    def renew(self, devices, *, users=None, permits=None):
        """Files were read again: it holds for the devices that are connected, too."""
        self.users = self.users if users is None else users
        self.permits = self.permits if permits is None else permits
        for device in devices:
            if device.state == "open":
                if device.secret is not None and self.users.get(device.user) != device.secret:
                    device.close("its password was changed or taken away", 0x87)
                else:
                    self._permit(device, device.client_id)

    def close(self):
        if self._verifier is not None:
            self._verifier.close()


def common_name(sock):
    """The one common name of a peer's verified certificate, or None."""
    subject = (sock.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for kind, value in part if kind == "commonName"]
    return names[0] if len(names) == 1 and names[0] else None
