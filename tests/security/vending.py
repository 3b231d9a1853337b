"""A catalog behind TLS that hands out credentials for a store behind TLS: what Nessie answers, with the gates' addresses in place of the servers'."""
import ssl
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Vending:
    """`store` is the address that stands in the answers instead of `plain`; how often is counted."""

    def __init__(self, catalog, certificate, plain, store):
        self.behind, self.plain, self.store, self.told = urlparse(catalog), plain.encode(), store.encode(), 0
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"vending": self}))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        self.origin = f"https://localhost:{server.server_address[1]}"
        self.url = f"{self.origin}{self.behind.path}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def shown(self, text):
        """An answer as who asks sees it: it names the store, and in its configuration the catalog itself."""
        self.told += text.count(self.plain)
        return text.replace(self.plain, self.store).replace(f"http://{self.behind.netloc}".encode(), self.origin.encode())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    vending: Vending

    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = HTTPConnection(self.vending.behind.hostname, self.vending.behind.port, timeout=30)
        given = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP | {"accept-encoding"}}
        connection.request(self.command, self.path, body, given)
        answer = connection.getresponse()
        text = answer.read()
        text = self.vending.shown(text)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        connection.close()

    def log_message(self, *_):
        pass

    do_GET = do_POST = do_HEAD = do_DELETE = serve
