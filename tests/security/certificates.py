"""Certificates of a run: an authority of its own, and servers' that are right or wrong in one way each."""
import ipaddress
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = ("localhost", "127.0.0.1")
DAY = timedelta(days=1)


def named(name):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def alternative(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Authority:
    def __init__(self, name):
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), named(name)
        self.certificate = self.sign(self.key, self.name, datetime.now(timezone.utc) + DAY, x509.BasicConstraints(True, None))

    def sign(self, key, name, end, *extensions):
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number(), end - 30 * DAY, end)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, path, name, hosts=HOSTS, ends=DAY):
        """Writes key and certificate into one file, as Kafka and Python take them."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([alternative(host) for host in hosts])
        certificate = self.sign(key, named(name), datetime.now(timezone.utc) + ends, names)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return path


class Certificates:
    """`servers` by what is the matter with them; `authority` is the file for who shall trust the right one."""

    def __init__(self, folder):
        ours, strange = Authority("the lake's authority"), Authority("somebody's authority")
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(ours.pem())
        self.servers = {
            "right": ours.issue(folder / "right.pem", "server"),
            "another host": ours.issue(folder / "host.pem", "server", hosts=("elsewhere.example", "127.0.0.2")),
            "expired": ours.issue(folder / "expired.pem", "server", ends=-DAY),
            "unknown authority": strange.issue(folder / "unknown.pem", "server"),
        }
        self.client = ours.issue(folder / "client.pem", "reader")
        self.stranger = strange.issue(folder / "stranger.pem", "reader")
