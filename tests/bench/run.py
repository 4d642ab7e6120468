#!/usr/bin/env python3
"""CPU per request of the gateway, of a bare Pingora proxy and of a tuned nginx, side by side.

Every proxy is pinned to one core; the load (wrk) and the origin (nginx) share another. The proxies take turns, so
that whatever else the machine does meets all of them alike, and each round is a ratio to the bare proxy of the same
round. What is counted is user and system time of the whole process, from /proc. A single error fails the run.

ROUNDS=5 DURATION=5 CONNECTIONS=32 PROXY_CORE=0 LOAD_CORE=1 change what they say. VESTIBULE and BARE name the binaries.
"""

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
REAL = Path(os.environ.get("VESTIBULE_REAL", ROOT / ".cache/real"))
ROUNDS, DURATION, CONNECTIONS = (int(os.environ.get(*it)) for it in [("ROUNDS", 5), ("DURATION", 5), ("CONNECTIONS", 32)])
PROXY_CORE, LOAD_CORE = os.environ.get("PROXY_CORE", "0"), os.environ.get("LOAD_CORE", "1")
NAME, BODY, URL = "shop.test", "x" * 1024, "/api/v1/items?page=2"
TICK = os.sysconf("SC_CLK_TCK")
# What a browser sends besides Host.
BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: session=0123456789abcdef0123456789abcdef",
    "Cache-Control: no-cache",
]

ORIGIN = """
worker_processes 1; daemon off; pid origin.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  access_log off; default_type text/plain; keepalive_requests 100000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{plain_origin}; location / {{ return 200 "{body}"; }} }}
  server {{
    listen 127.0.0.1:{tls_origin} ssl default_server; listen 127.0.0.1:{h2_origin} ssl http2 default_server;
    ssl_reject_handshake on;
  }}
  server {{
    listen 127.0.0.1:{tls_origin} ssl; listen 127.0.0.1:{h2_origin} ssl http2; server_name {name};
    ssl_certificate {dir}/origin.crt; ssl_certificate_key {dir}/origin.key;
    ssl_client_certificate {dir}/ca.crt; ssl_verify_client on;
    location / {{ return 200 "{body}"; }}
  }}
}}
"""

NGINX = """
worker_processes 1; daemon off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  upstream plain {{ server 127.0.0.1:{plain_origin}; keepalive 128; keepalive_requests 100000000; }}
  upstream tls {{ server 127.0.0.1:{tls_origin}; keepalive 128; keepalive_requests 100000000; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
  server {{ listen 127.0.0.1:{nginx_plain}; location / {{ proxy_pass http://plain; }} }}
  server {{
    listen 127.0.0.1:{nginx_tls};
    location / {{
      proxy_pass https://tls; proxy_ssl_server_name on; proxy_ssl_name {name}; proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/ca.crt;
      proxy_ssl_certificate {dir}/client.crt; proxy_ssl_certificate_key {dir}/client.key;
    }}
  }}
}}
"""

GATEWAY = """
version: 1
server: {{ threads: 1 }}
access_log: {log}
listeners:
  plain: {{ address: "127.0.0.1:{plain}" }}
  tls: {{ address: "127.0.0.1:{tls}" }}
  h2: {{ address: "127.0.0.1:{h2}" }}
upstreams:
  plain: {{ endpoints: ["127.0.0.1:{plain_origin}"] }}
  tls:
    endpoints: ["127.0.0.1:{tls_origin}"]
    tls: &tls {{ verify: {{ ca: ca.crt }}, client_certificate: {{ cert: client.crt, key: client.key }} }}
  h2: {{ endpoints: ["127.0.0.1:{h2_origin}"], protocol: h2, tls: *tls }}
routes:
  - {{ name: plain, match: {{ hosts: [{name}], paths: [/api], listeners: [plain] }}, upstream: plain, plugins: &chain [
      {{ path_rewrite: {{ strip_prefix: /api }} }},
      {{ headers: {{ request: {{ set: {{ x-tenant: blue, x-asked-for: $host }} }}, response: {{ set: {{ x-served-by: $upstream }} }} }} }},
      {{ retry: {{ attempts: 3, retry_on: [connect_failure, reset, "502", "503"], budget: 20% }} }} ] }}
  - {{ name: tls, match: {{ hosts: [{name}], paths: [/api], listeners: [tls] }}, upstream: tls, plugins: *chain }}
  - {{ name: h2, match: {{ hosts: [{name}], paths: [/api], listeners: [h2] }}, upstream: h2, plugins: *chain }}
"""


def program(name):
    """From the cache of the real tests, or from this machine."""
    for folder in [REAL / "bin", *os.environ["PATH"].split(":"), "/usr/sbin"]:
        if os.access(Path(folder) / name, os.X_OK):
            return str(Path(folder) / name)
    sys.exit(f"`{name}` is not there\nhint: `make real` fetches it")


def ports(names):
    """Free ports below those that the kernel gives to outgoing connections."""
    free, port = {}, 21000
    while len(free) < len(names):
        port += 1
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                free[names[len(free)]] = port
    return free


def certificates(folder):
    def openssl(*arguments):
        subprocess.run([program("openssl"), *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=bench CA")
    for leaf in ["origin", "client"]:
        openssl("req", "-x509", *key, "-keyout", f"{leaf}.key", "-out", f"{leaf}.crt", "-subj", f"/CN={leaf}",
                "-addext", f"subjectAltName=DNS:{NAME}", "-addext", "basicConstraints=critical,CA:FALSE",
                "-CA", "ca.crt", "-CAkey", "ca.key")


def start(core, command, folder, port):
    """A process on this core that listens, with its workers, as a list of ids."""
    log = open(folder / "errors.log", "ab")
    process = subprocess.Popen(["taskset", "-c", core, *map(str, command)], cwd=folder, stdout=log, stderr=log)
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    sys.exit(f"{command[0]} does not listen on {port}:\n{(folder / 'errors.log').read_text()}")


def cpu(process):
    """Seconds that the process, all of its threads and its workers have used."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split() for pid in [process.pid, *children]]
    return sum(int(it[11]) + int(it[12]) for it in fields) / TICK


def load(process, port):
    """Microseconds of CPU per request, and requests per second."""
    before = cpu(process)
    headers = [word for field in [f"Host: {NAME}", *BROWSER] for word in ("-H", field)]
    wrk = [program("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{DURATION}s", *headers, f"http://127.0.0.1:{port}{URL}"]
    said = subprocess.run(["taskset", "-c", LOAD_CORE, *wrk], check=True, capture_output=True, text=True).stdout
    used, requests = cpu(process) - before, int(re.search(r"(\d+) requests in", said)[1])
    if "Non-2xx" in said or "Socket errors" in said or requests == 0:
        sys.exit(f"errors on port {port}:\n{said}")
    return used / requests * 1e6, requests / DURATION


def main():
    folder = Path(tempfile.mkdtemp(prefix="vestibule-bench-"))
    certificates(folder)
    kinds = ["plain", "tls", "h2"]
    names = ["nginx", "bare", "gateway", "gateway, json log"]
    at = ports([f"{name}_{kind}" for name in ["origin", *names] for kind in kinds])
    common = {"dir": folder, "name": NAME, "body": BODY, "nginx_plain": at["nginx_plain"], "nginx_tls": at["nginx_tls"],
              **{f"{kind}_origin": at[f"origin_{kind}"] for kind in kinds}}
    (folder / "origin.conf").write_text(ORIGIN.format(**common))
    (folder / "nginx.conf").write_text(NGINX.format(**common))
    nginx = [program("nginx"), "-p", folder, "-c"]
    vestibule = os.environ.get("VESTIBULE", TARGET / "release/vestibule")
    bare = os.environ.get("BARE", TARGET / "release/examples/bare")
    origins = [f"127.0.0.1:{at[f'origin_{kind}']}" for kind in kinds]
    commands = {
        "nginx": [*nginx, folder / "nginx.conf"],
        "bare": [bare, *(at[f"bare_{kind}"] for kind in kinds), *origins, "ca.crt", "client.crt", "client.key", NAME],
    }
    for name, log in [("gateway", "{ format: none }"), ("gateway, json log", "{ format: json, path: /dev/null }")]:
        file = folder / f"{name}.yaml"
        file.write_text(GATEWAY.format(log=log, **{kind: at[f"{name}_{kind}"] for kind in kinds}, **common))
        commands[name] = [vestibule, "run", "-c", file]

    started = []
    try:
        started.append(start(LOAD_CORE, [*nginx, folder / "origin.conf"], folder, at["origin_plain"]))
        running = {}
        for name, command in commands.items():
            running[name] = start(PROXY_CORE, command, folder, at[f"{name}_plain"])
            started.append(running[name])
        # nginx speaks no HTTP/2 to upstreams.
        results = {(name, kind): [] for kind in kinds for name in names if (name, kind) != ("nginx", "h2")}
        for round in range(ROUNDS):
            for name, kind in results:
                results[name, kind].append(load(running[name], at[f"{name}_{kind}"]))
            print(f"round {round + 1} of {ROUNDS} done", file=sys.stderr)
    finally:
        for process in started:
            # The one signal that all of them take for "at once": Pingora waits for minutes after a SIGTERM.
            process.send_signal(signal.SIGINT)
            process.wait()
    print(f"{ROUNDS} rounds of {DURATION} s, {CONNECTIONS} connections, bodies of {len(BODY)} bytes; medians (least to most)")
    print(f"{'upstream':8} {'proxy':18} {'us/request':>20} {'requests/s':>11} {'ratio to bare':>22}")
    for name, kind in results:
        costs, rates = zip(*results[name, kind])
        ratios = [cost / base for cost, (base, _) in zip(costs, results["bare", kind])]
        spread = lambda values: f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"{kind:8} {name:18} {spread(costs):>20} {statistics.median(rates):>11.0f} {spread(ratios):>22}")


if __name__ == "__main__":
    main()
