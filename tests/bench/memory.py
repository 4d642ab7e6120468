#!/usr/bin/env python3
"""Memory of idle connections and of open tunnels, of the gateway, of nginx and of HAProxy, side by side.

Each proxy has one thread. What is counted is its proportional memory (PSS, all its processes) before and after so many
clients have connected, each of which has had one answer and stays; and before and after so many WebSockets more, through
each of which a message has gone there and back. Tunnels of layer 4 are counted at the gateway and at HAProxy: Debian's
nginx has them in a module of its own. The kernel's socket buffers, which are the same for all, are not in it.

IDLE=10000 TUNNELS=1000 change what they say. VESTIBULE names the binary.
"""

import asyncio
import os
import resource
import socket
import ssl
import sys
import tempfile
from pathlib import Path

from run import NAME, PROXY_CORE, TARGET, certificates, ports, program, start

IDLE, TUNNELS = (int(os.environ.get(*it)) for it in [("IDLE", 10000), ("TUNNELS", 1000)])
MESSAGE = b"m" * 1024
REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: idle\r\n\r\n".encode()
UPGRADE = (f"GET /tunnel HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
SWITCHED = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

GATEWAY = """
version: 1
server: {{ threads: 1 }}
access_log: {{ format: none }}
listeners:
  plain: {{ address: "127.0.0.1:{plain}", max_connections: 20000, {more} keepalive: {{ idle_timeout: 600s }} }}
  tls:
    address: "127.0.0.1:{tls}"
    max_connections: 20000
    {more}
    keepalive: {{ idle_timeout: 600s }}
    tls: {{ certificates: [{{ cert: origin.crt, key: origin.key }}] }}
  tcp: {{ address: "127.0.0.1:{tcp}", max_connections: 20000, {more} tcp: {{ upstream: origin }} }}
upstreams: {{ origin: {{ endpoints: ["127.0.0.1:{origin}"] }} }}
routes: [{{ upstream: origin, timeouts: {{ idle: 600s }} }}]
"""

NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 20000; }}
http {{
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  access_log off; keepalive_timeout 600s; proxy_http_version 1.1; proxy_read_timeout 600s;
  ssl_certificate {dir}/origin.crt; ssl_certificate_key {dir}/origin.key;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
    location / {{ proxy_pass http://origin; proxy_set_header Connection ""; }}
    location /tunnel {{ proxy_pass http://origin; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 20000
  nbthread 1
  no strict-limits
defaults
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout tunnel 600s
  timeout http-keep-alive 600s
frontend http
  mode http
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {dir}/origin.pem
  default_backend http
backend http
  mode http
  http-reuse always
  server origin 127.0.0.1:{origin}
listen tcp
  mode tcp
  bind 127.0.0.1:{tcp}
  server origin 127.0.0.1:{origin}
"""


async def origin(reader, writer):
    """Answers each request; echoes what comes after an upgrade."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"/tunnel" in head.split(b"\r\n")[0]:
                writer.write(SWITCHED)
                while message := await reader.read(65536):
                    writer.write(message)
                return
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class Clients:
    """Connections that stay open."""

    def __init__(self):
        self.open, self.context = [], ssl._create_unverified_context()

    async def more(self, count, port, tls, opening, answers):
        async def one(number):
            # From several addresses, since one has hardly more ports than these take.
            address = (f"127.0.0.{2 + number % 8}", 0)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=self.context if tls else None, server_hostname=NAME if tls else None,
                local_addr=address, limit=4096)
            self.open.append(writer)
            for sent, expected in zip(opening, answers):
                writer.write(sent)
                await reader.readexactly(expected) if isinstance(expected, int) else await reader.readuntil(expected)

        for first in range(0, count, 50):
            some = (one(number) for number in range(first, min(first + 50, count)))
            await asyncio.wait_for(asyncio.gather(*some), 30)

    async def close(self):
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()
        await asyncio.sleep(1)


def memory(process):
    """Proportional memory in bytes, with all children."""
    total, waiting = 0, [process.pid]
    while waiting:
        pid = waiting.pop()
        waiting += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total


async def measure(process, port, tls):
    """Bytes for each idle connection, and for each tunnel beside them."""
    clients = Clients()
    idle = [REQUEST], [b"hello"]
    tunnel = [UPGRADE, MESSAGE], [b"\r\n\r\n", len(MESSAGE)]
    # What is made once, by the first few, is nobody's.
    await clients.more(50, port, tls, *idle)
    await clients.more(50, port, tls, *tunnel)
    await clients.close()
    before = memory(process)
    await clients.more(IDLE, port, tls, *idle)
    with_idle = memory(process)
    await clients.more(TUNNELS, port, tls, *tunnel)
    with_tunnels = memory(process)
    await clients.close()
    return before, (with_idle - before) / IDLE, (with_tunnels - with_idle) / TUNNELS


async def measure_tcp(process, port):
    """Bytes for each tunnel of layer 4."""
    clients = Clients()
    tunnel = [UPGRADE, MESSAGE], [b"\r\n\r\n", len(MESSAGE)]
    await clients.more(50, port, False, *tunnel)
    await clients.close()
    before = memory(process)
    await clients.more(TUNNELS, port, False, *tunnel)
    with_tunnels = memory(process)
    await clients.close()
    return (with_tunnels - before) / TUNNELS


async def main():
    # A client's end of each, and the origin's of each tunnel.
    need = IDLE + 2 * TUNNELS + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < need:
        sys.exit(f"this needs {need} open files: raise `ulimit -n`")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        certificates(folder)
        (folder / "origin.pem").write_text((folder / "origin.crt").read_text() + (folder / "origin.key").read_text())
        (at,) = ports(["origin"]).values()
        server = await asyncio.start_server(origin, "127.0.0.1", at, backlog=1024, limit=4096)
        binary = os.environ.get("VESTIBULE", TARGET / "release/vestibule")
        print(f"{'':10} {'at start':>10} {'idle':>10} {'WebSocket':>10} {'idle TLS':>10} {'WS TLS':>10} {'layer 4':>10}   bytes each")
        for name, template, command in [
            ("vestibule", GATEWAY, [binary, "run", "-c", "file"]),
            ("nginx", NGINX, [program("nginx"), "-p", ".", "-c", "file"]),
            ("haproxy", HAPROXY, [program("haproxy"), "-db", "-f", "file"]),
        ]:
            own = folder / name
            own.mkdir()
            for file in ["origin.crt", "origin.key"]:
                (own / file).write_text((folder / file).read_text())
            listen = ports(["plain", "tls", "tcp"])
            more = os.environ.get("LISTENER_KEYS", "")
            (own / "file").write_text(template.format(dir=folder, origin=at, more=more, **listen))
            command = [own / "file" if part == "file" else own if part == "." else part for part in command]
            figures = []
            for port, tls in [(listen["plain"], False), (listen["tls"], True)]:
                # A process of its own, so that none goes by what the other freed.
                process = start(PROXY_CORE, command, own, port)
                before, idle, tunnel = await measure(process, port, tls)
                figures += [before, idle, tunnel] if not tls else [idle, tunnel]
                process.terminate()
                process.wait()
            tcp = "-"
            if name != "nginx":
                process = start(PROXY_CORE, command, own, listen["tcp"])
                tcp = round(await measure_tcp(process, listen["tcp"]))
                process.terminate()
                process.wait()
            print(f"{name:10} " + " ".join(f"{round(figure):>10}" for figure in figures) + f" {tcp:>10}", flush=True)
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
