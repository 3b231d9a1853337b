"""Is a server ready to be used? Each probe speaks just enough of the server's own protocol; an OSError means not yet."""
import datetime
import hashlib
import hmac
import http.client
import socket
import struct

from .base import HOST, S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, Fail

_TIMEOUT = 5


def http_ok(port, path, status=200):
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == status
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def postgres(port):
    """The start-up message of protocol 3.0: ReadyForQuery comes at once, since local connections are trusted."""
    body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
    with socket.create_connection((HOST, port), _TIMEOUT) as connection:
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        return connection.recv(1) == b"R"


def mysql(port):
    """The server speaks first: protocol version 10 when it takes connections, an error packet when it does not."""
    with socket.create_connection((HOST, port), _TIMEOUT) as connection:
        return connection.recv(5)[4:] == b"\x0a"


def kafka(port):
    """A Metadata request, version 4, for no topic: ready when the answer lists a broker."""
    request = struct.pack("!hhih", 3, 4, 1, -1) + struct.pack("!ib", 0, 0)
    with socket.create_connection((HOST, port), _TIMEOUT) as connection:
        connection.sendall(struct.pack("!i", len(request)) + request)
        answer = b""
        while len(answer) < 16:
            more = connection.recv(64)
            if not more:
                return False
            answer += more
    return struct.unpack_from("!i", answer, 12)[0] == 1


def make_bucket(port, bucket):
    """PUT Bucket, signed with AWS signature 4; a bucket that is there already is fine. False while the server is not ready, whatever it said."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    empty = hashlib.sha256(b"").hexdigest()
    headers = {"host": f"{HOST}:{port}", "x-amz-content-sha256": empty, "x-amz-date": now}
    names = ";".join(headers)
    canonical = "\n".join(["PUT", f"/{bucket}", "", *(f"{key}:{value}" for key, value in headers.items()), "", names, empty])
    scope = f"{now[:8]}/{S3_REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + S3_SECRET_KEY).encode()
    for step in (*scope.split("/"), to_sign):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={S3_ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    connection = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT)
    connection.request("PUT", f"/{bucket}", headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    if answer.status == 503:
        return False
    if answer.status != 200 and "BucketAlreadyOwnedByYou" not in text:
        raise Fail(f"minio: making bucket {bucket} answered {answer.status}: {text}")
    return True
