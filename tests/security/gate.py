"""A server of the stack behind TLS: one port for each certificate, and a lock that knows whom to let in."""
import asyncio
import base64
import ssl
import threading
from urllib.parse import urlparse

LONGEST_HEAD = 64 * 1024
TOKENS = "/v1/oauth/tokens"


class Gates:
    """The gates of a run, in a thread of their own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def open(self, url, certificate, lock=None):
        gate = Gate(url, certificate, lock)
        asyncio.run_coroutine_threadsafe(gate.listen(), self.loop).result(10)
        return gate


class Gate:
    """`lock` is what the header Authorization must be, but for who asks for a token."""

    def __init__(self, url, certificate, lock):
        self.behind, self.lock = urlparse(url), lock
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.passed, self.refused = 0, 0

    async def listen(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context, limit=LONGEST_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{self.port}{self.behind.path}"

    async def serve(self, reader, writer):
        """What comes over one connection: its first request is looked at, the others are the same client's."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not self.lets_in(head.decode("latin-1")):
                self.refused += 1
                writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
                return
            self.passed += 1
            inner_reader, inner_writer = await asyncio.open_connection(self.behind.hostname, self.behind.port)
            inner_writer.write(head)
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def lets_in(self, head):
        first, *rest = head.split("\r\n")
        given = next((value.strip() for name, _, value in (line.partition(":") for line in rest) if name.lower() == "authorization"), "")
        return self.lock is None or given == self.lock or first.split(" ")[1].endswith(TOKENS)


async def pump(reader, writer):
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def basic(both):
    """The header's value for `user:password`."""
    return "Basic " + base64.b64encode(both.encode()).decode()
