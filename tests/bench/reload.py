#!/usr/bin/env python3
"""Latency with and without continual reloads, of the gateway and of nginx, side by side.

Both end TLS and go on over TLS, with a client certificate, to one of two upstreams of the same nginx; each reload goes
over to the other upstream. A reload is a file replaced and a SIGHUP, which is what `nginx -s reload` sends. Each proxy
has one thread and a core of its own; the load (wrk) and the origin share another. The four cases take turns, so that
whatever else the machine does meets all of them alike. Each run ends with a look whether the last reload took effect.
A failed request of the gateway's fails the whole.

ROUNDS=5 DURATION=10 CONNECTIONS=32 PERIOD=0.5 PROXY_CORE=0 LOAD_CORE=1 change what they say. VESTIBULE names the binary.
"""

import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import BODY, LOAD_CORE, NAME, PROXY_CORE, TARGET, URL, certificates, ports, program, start

ROUNDS, DURATION, CONNECTIONS = (int(os.environ.get(*it)) for it in [("ROUNDS", 5), ("DURATION", 10), ("CONNECTIONS", 32)])
PERIOD = float(os.environ.get("PERIOD", 0.5))

HTTP = """
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  access_log off; default_type text/plain; keepalive_requests 100000000; keepalive_timeout 600s;
  ssl_certificate {dir}/origin.crt; ssl_certificate_key {dir}/origin.key;
"""

ORIGIN = """
worker_processes 1; daemon off; pid origin.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  {http}
  server {{
    listen 127.0.0.1:{blue} ssl; listen 127.0.0.1:{green} ssl;
    ssl_client_certificate {dir}/ca.crt; ssl_verify_client on;
    location / {{ return 200 "{body}"; }}
  }}
}}
"""

NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  {http}
  upstream blue {{ server 127.0.0.1:{blue}; keepalive 128; keepalive_requests 100000000; }}
  upstream green {{ server 127.0.0.1:{green}; keepalive 128; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  server {{
    listen 127.0.0.1:{nginx} ssl;
    location / {{
      proxy_pass https://{upstream}; add_header x-version {version};
      proxy_ssl_server_name on; proxy_ssl_name {name}; proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/ca.crt;
      proxy_ssl_certificate {dir}/client.crt; proxy_ssl_certificate_key {dir}/client.key;
    }}
  }}
}}
"""

GATEWAY = """
version: 1
server: {{ threads: 1 }}
reload: {{ watch: false }}
access_log: {{ format: none }}
listeners: {{ web: {{ address: "127.0.0.1:{gateway}", tls: {{ certificates: [{{ cert: origin.crt, key: origin.key }}] }} }} }}
upstreams:
  blue:
    endpoints: ["127.0.0.1:{blue}"]
    tls: &tls {{ verify: {{ ca: ca.crt }}, client_certificate: {{ cert: client.crt, key: client.key }} }}
  green: {{ endpoints: ["127.0.0.1:{green}"], tls: *tls }}
routes:
  - {{ upstream: {upstream}, plugins: [ {{ headers: {{ response: {{ set: {{ x-version: "{version}" }} }} }} }} ] }}
"""

# wrk's own report ends at the 99th percentile.
REPORT = """
done = function(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "p99.9": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
"""


class Proxy:
    """One that runs, and the version of its file."""

    def __init__(self, template, file, command, values):
        self.template, self.file, self.values, self.version = template, file, values, 0
        self.write()
        self.process = start(PROXY_CORE, command, file.parent, values["port"])

    def write(self):
        upstream = ["blue", "green"][self.version % 2]
        new = self.file.with_name("new")
        new.write_text(self.template.format(upstream=upstream, version=self.version, **self.values))
        new.rename(self.file)

    def reload(self):
        self.version += 1
        self.write()
        self.process.send_signal(signal.SIGHUP)

    def serves(self):
        """The version that answers."""
        context = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", self.values["port"])) as plain:
            with context.wrap_socket(plain, server_hostname=NAME) as stream:
                stream.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while part := stream.recv(65536):
                    answer += part
        fields = answer.split(b"\r\n\r\n")[0].decode().lower().split("\r\n")[1:]
        return int(dict(field.split(": ", 1) for field in fields)["x-version"])

    def settle(self):
        """Waits until the last version answers."""
        for _ in range(250):
            if self.serves() == self.version:
                return
            time.sleep(0.02)
        sys.exit(f"{self.file.name}: version {self.version} is not in force")


def load(proxy, folder, reloads):
    """What wrk reports; with reloads, one each period as long as it runs."""
    wrk = [program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{DURATION}s", "-s", folder / "report.lua", "-H", f"Host: {NAME}",
           f"https://127.0.0.1:{proxy.values['port']}{URL}"]
    running = subprocess.Popen(["taskset", "-c", LOAD_CORE, *map(str, wrk)], stdout=subprocess.PIPE, text=True)
    begun, first = time.monotonic(), proxy.version
    while reloads:
        try:
            running.wait(timeout=max(0, begun + (proxy.version - first + 1) * PERIOD - time.monotonic()))
            break
        except subprocess.TimeoutExpired:
            proxy.reload()
    said, _ = running.communicate()
    proxy.settle()
    report = json.loads(said.splitlines()[-1])
    return {**report, "requests/s": report["requests"] / report["seconds"], "reloads": proxy.version - first}


def main():
    folder = Path(tempfile.mkdtemp(prefix="vestibule-bench-"))
    certificates(folder)
    (folder / "report.lua").write_text(REPORT)
    at = ports(["blue", "green", "gateway", "nginx"])
    common = {"dir": folder, "name": NAME, "http": HTTP.format(dir=folder), **at}
    (folder / "origin.conf").write_text(ORIGIN.format(body=BODY, **common))
    nginx = [program("nginx"), "-p", folder, "-c"]
    vestibule = os.environ.get("VESTIBULE", TARGET / "release/vestibule")

    started, proxies = [], {}
    try:
        started.append(start(LOAD_CORE, [*nginx, folder / "origin.conf"], folder, at["blue"]))
        for name, template, file, command in [
            ("gateway", GATEWAY, folder / "gateway.yaml", [vestibule, "run", "-c"]),
            ("nginx", NGINX, folder / "nginx.conf", nginx),
        ]:
            proxies[name] = Proxy(template, file, [*command, file], {**common, "port": at[name]})
            started.append(proxies[name].process)
        results = {(name, reloads): [] for reloads in [False, True] for name in proxies}
        for round in range(ROUNDS):
            for name, reloads in results:
                results[name, reloads].append(load(proxies[name], folder, reloads))
            print(f"round {round + 1} of {ROUNDS} done", file=sys.stderr)
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
            process.wait()

    print(f"{ROUNDS} rounds of {DURATION} s, {CONNECTIONS} connections, a reload each {PERIOD} s or none; "
          "milliseconds; medians (least to most)")
    columns = ["p50", "p99", "p99.9", "requests/s"]
    print(f"{'proxy':8} {'reloads':>7}", *(f"{column:>24}" for column in columns), f"{'requests':>9} {'failed':>6}")
    for (name, _), runs in results.items():
        total = lambda key: sum(run[key] for run in runs)
        spread = lambda values, digits: "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(
            statistics.median(values), min(values), max(values), d=digits)
        cells = (f"{spread([run[key] for run in runs], 0 if '/' in key else 2):>24}" for key in columns)
        print(f"{name:8} {total('reloads'):>7}", *cells, f"{total('requests'):>9} {total('failed'):>6}")
    failed = sum(run["failed"] for (name, _), runs in results.items() for run in runs if name == "gateway")
    sys.exit(f"{failed} requests failed at the gateway" if failed else 0)


if __name__ == "__main__":
    main()
