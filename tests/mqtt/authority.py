"""A certificate authority for tests, with certificates for any name."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM


class Authority:
    """Files in `directory`: ca.pem, and NAME.pem with NAME.key for each issued certificate."""

    def __init__(self, directory, name="test CA"):
        self.directory, self._name, self._key = directory, name, ec.generate_private_key(ec.SECP256R1())
        self.ca = directory / f"{name.replace(' ', '-')}.pem"
        self.ca.write_bytes(self._sign([name], self._key, True).public_bytes(PEM))

    def issue(self, name, *, file=None, names=None):
        """(certificate file, key file). names: common names of the subject, if not just `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert, private = self.directory / f"{file or name}.pem", self.directory / f"{file or name}.key"
        cert.write_bytes(self._sign([name] if names is None else names, key, False).public_bytes(PEM))
        private.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return cert, private

    def _sign(self, names, key, is_ca):
        def named(texts):
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text) for text in texts])

        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(named(names)).issuer_name(named([self._name])).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=2)).add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if not is_ca:
            alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA256())
