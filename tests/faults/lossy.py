"""An HTTP proxy that loses answers: the request is done, and who asked never hears so. Some requests it loses before they are done."""
import re
import socket
import struct
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection", "expect"}
# What becomes of a request that is chosen, and how often among those. `done` is: it was sent on, and answered.
KINDS = {"done, then 500": 35, "done, then reset": 35, "done, then silence": 8, "503": 11, "reset": 11}


class Lossy:
    """Stands before a server. A request that `chosen` matches, as `METHOD path`, has `share` to lose its answer."""

    def __init__(self, server, chosen, share, seed, silence):
        self.server, self.chosen, self.share, self.silence = urlsplit(server), re.compile(chosen), share, silence
        self.random, self.lock, self.lost = Random(seed), threading.Lock(), Counter()
        self.matched = 0
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"lossy": self}))
        self.proxy.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.proxy.server_address[1]}"
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()

    def fate(self, method, path):
        """What becomes of a request; nothing for one that is answered."""
        if not self.chosen.search(f"{method} {path}"):
            return None
        with self.lock:
            self.matched += 1
            if self.random.random() >= self.share:
                return None
            kind = self.random.choices(list(KINDS), KINDS.values())[0]
            self.lost[kind] += 1
            return kind

    def calm(self):
        """Every request is answered from here on."""
        with self.lock:
            self.share = 0

    def stop(self):
        self.proxy.shutdown()
        self.proxy.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lossy: Lossy

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fate = self.lossy.fate(self.command, urlsplit(self.path).path)
        if fate in ("503", "reset"):
            return self.lose(fate)
        status, headers, answer = self.ask(body)
        if fate:
            return self.lose(fate.removeprefix("done, then "))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
        return None

    def ask(self, body):
        """The server's answer. Its name is left as it was asked for: signatures are of it."""
        connection = HTTPConnection(self.lossy.server.hostname, self.lossy.server.port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        with connection.getresponse() as answer:
            found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found

    def lose(self, how):
        self.close_connection = True
        if how in ("500", "503"):
            self.send_response(int(how))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if how == "silence":
            time.sleep(self.lossy.silence)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self):
        try:
            super().handle()
        except (OSError, ValueError):  # Whoever asked has gone, or was cut off here.
            pass

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def log_message(self, *_):
        pass

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve
