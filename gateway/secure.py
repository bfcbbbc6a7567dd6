"""The names of ssl that tell a TLS socket and its moods. Where OpenSSL is left out (lean.py) no socket is one, and none is raised."""

try:
    from ssl import SSLCertVerificationError, SSLError, SSLSocket, SSLWantReadError, SSLWantWriteError
except ImportError:

    class SSLSocket:
        """Never made."""

    class SSLError(OSError):
        """Never raised."""

    class SSLCertVerificationError(SSLError):
        """Never raised."""

    class SSLWantReadError(SSLError):
        """Never raised."""

    class SSLWantWriteError(SSLError):
        """Never raised."""

__all__ = ["SSLCertVerificationError", "SSLError", "SSLSocket", "SSLWantReadError", "SSLWantWriteError"]
