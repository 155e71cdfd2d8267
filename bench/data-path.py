#!/usr/bin/env python3
"""CPU per request of tanbark-proxy and of a stock Envoy, in one run, with the same configuration.

Usage: bench/data-path.py [--programs target/dist] [--envoy PROGRAM] [--rounds 5] [--requests 20000]

One worker each, pinned to CPU 0; load and backend are this script on CPU 1, over loopback. CPU time is that of all threads of the proxy
(/proc/PID/task/*/schedstat, in nanoseconds) over the requests that were answered; rounds of the two take turns and medians are compared, so
what else runs on the machine disturbs both alike. Absolute times do not carry to another machine: compare the ratios. Every loop is bounded.
Goals (of Envoy's figure): HTTP/1.1 <= 0.45, sidecar pair with mTLS <= 0.35, HTTP/2 <= 0.5.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_S = 120
BODY = b"x" * 256
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: text/plain\r\n\r\n" % len(BODY) + BODY
REQUEST = b"GET /some/path?with=query HTTP/1.1\r\nhost: backend.test\r\nuser-agent: bench\r\naccept: */*\r\n\r\n"
API = "type.googleapis.com/envoy"


# --- HTTP/2 by hand: no header block is ever decoded, so none needs a table.


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOWS = frame(4, 0, 0, b"\x00\x04\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x7f\xff\x00\x00")
HEAD = literal(b":method", b"POST") + literal(b":scheme", b"http") + literal(b":authority", b"backend.test")
HEAD += literal(b":path", b"/some.Service/Call") + literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
HEAD2 = b"\x88" + literal(b"content-type", b"application/grpc")


def frames(buffer):
    """Takes whole frames from the buffer: (kind, flags, stream, payload)."""
    at = 0
    while len(buffer) - at >= 9:
        length = int.from_bytes(buffer[at : at + 3], "big")
        if len(buffer) - at < 9 + length:
            break
        yield buffer[at + 3], buffer[at + 4], int.from_bytes(buffer[at + 5 : at + 9], "big"), bytes(buffer[at + 9 : at + 9 + length])
        at += 9 + length
    del buffer[:at]


class Stop(Exception):
    pass


def http1_server(buffer, state):
    count = buffer.count(b"\r\n\r\n")
    if count:
        del buffer[: buffer.rfind(b"\r\n\r\n") + 4]
    return ANSWER * count


def http2_server(buffer, state):
    out = b""
    if not state.get("open"):
        if len(buffer) < len(PREFACE):
            return b""
        del buffer[: len(PREFACE)]
        state["open"] = True
        out += WINDOWS
    for kind, flags, stream, payload in frames(buffer):
        if kind == 4 and not flags & 1:
            out += frame(4, 1, 0)
        elif kind == 6 and not flags & 1:
            out += frame(6, 1, 0, payload)
        elif kind in (0, 1) and flags & 1:
            out += frame(1, 4, stream, HEAD2) + frame(0, 0, stream, BODY) + frame(1, 5, stream, literal(b"grpc-status", b"0"))
            state["due"] = state.get("due", 0) + len(payload)
    return out


def tcp_sink(buffer, state):
    buffer.clear()
    return b""


def serve(listener, answer):
    """A backend in a process of its own, until it is killed."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, (bytearray(), {}))
                continue
            connection, (buffer, state) = key.fileobj, key.data
            try:
                data = connection.recv(1 << 18)
                buffer += data
                out = answer(buffer, state)
                if out:
                    connection.sendall(out)
            except OSError:
                data = b""
            if not data:
                selector.unregister(connection)
                connection.close()


def load_http1(port, total, connections=64):
    """Sends `total` requests over keep-alive connections; all must be answered 200."""
    selector, sent, done, size = selectors.DefaultSelector(), 0, 0, None
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, bytearray())
        connection.sendall(REQUEST)
        sent += 1
    end = time.monotonic() + LIMIT_S
    while done < total:
        if time.monotonic() > end:
            sys.exit(f"only {done} of {total} requests were answered within {LIMIT_S} s")
        for key, _ in selector.select(1):
            buffer = key.data
            buffer += key.fileobj.recv(65536)
            if not buffer.startswith(b"HTTP/1.1 200"):
                sys.exit(f"no good answer: {bytes(buffer[:200])!r}")
            head = buffer.find(b"\r\n\r\n")
            if head < 0 or len(buffer) < head + 4 + len(BODY):
                continue
            buffer.clear()
            done += 1
            if sent < total:
                key.fileobj.sendall(REQUEST)
                sent += 1
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return done


def load_http2(port, total, connections=8, streams=16):
    selector, done, sent = selectors.DefaultSelector(), 0, 0

    def ask(state):
        state["next"] += 2
        return frame(1, 4, state["next"], HEAD) + frame(0, 1, state["next"], BODY)

    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = {"next": -1, "buffer": bytearray()}
        selector.register(connection, selectors.EVENT_READ, state)
        connection.sendall(PREFACE + WINDOWS + b"".join(ask(state) for _ in range(streams)))
        sent += streams
    end = time.monotonic() + LIMIT_S
    while done < total:
        if time.monotonic() > end:
            sys.exit(f"only {done} of {total} streams were answered within {LIMIT_S} s")
        for key, _ in selector.select(1):
            state, out = key.data, b""
            state["buffer"] += key.fileobj.recv(65536)
            for kind, flags, stream, payload in frames(state["buffer"]):
                if kind == 4 and not flags & 1:
                    out += frame(4, 1, 0)
                elif kind == 6 and not flags & 1:
                    out += frame(6, 1, 0, payload)
                elif kind in (3, 7):
                    sys.exit(f"the proxy ended stream {stream}: {payload!r}")
                elif kind in (0, 1) and flags & 1:
                    done += 1
                    if sent < total:
                        out += ask(state)
                        sent += 1
            if out:
                key.fileobj.sendall(out)
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return done


def load_tcp(port, megabytes):
    """Sends so much through one connection; what counts is gigabytes."""
    chunk = b"x" * (1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(megabytes):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LIMIT_S)
        while connection.recv(1):
            pass
    return megabytes / 1024


# --- Configuration


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name, port, http2=False, transport=None):
    value = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]},
    }
    if http2:
        options = {"@type": f"{API}.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}
        value["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    if transport:
        value["transport_socket"] = transport
    return value


def http_listener(name, port, target, hosts=None, transport=None):
    hosts = hosts or [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": target, "timeout": "15s"}}]}]
    manager = {
        "@type": f"{API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"name": name, "virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{API}.extensions.filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if transport:
        chain["transport_socket"] = transport
    return {"name": name, "address": address(port), "filter_chains": [chain]}


def tcp_listener(name, port, target):
    proxy = {"@type": f"{API}.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": target}
    return {"name": name, "address": address(port), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]}


def tls(side, folder):
    text = {name: {"inline_string": (folder / name).read_text()} for name in ("ca.pem", "cert.pem", "key.pem")}
    common = {
        "tls_certificates": [{"certificate_chain": text["cert.pem"], "private_key": text["key.pem"]}],
        "validation_context": {"trusted_ca": text["ca.pem"]},
    }
    value = {"@type": f"{API}.extensions.transport_sockets.tls.v3.{side}TlsContext", "common_tls_context": common}
    value.update({"require_client_certificate": True} if side == "Downstream" else {"sni": "backend.test"})
    return {"name": "tls", "typed_config": value}


def certificates(folder):
    """One key and certificate for both sides, signed by an authority of its own."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/O=bench")
    openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/O=bench")
    (folder / "extensions").write_text("subjectAltName=DNS:backend.test,URI:spiffe://cluster.local/ns/bench/sa/bench\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem", "-days", "1", "-extfile", "extensions")


class Ports:
    """Free ports, all different."""

    def __init__(self):
        self.held = []

    def take(self):
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self.held.append(held)
        return held.getsockname()[1]

    def release(self):
        for held in self.held:
            held.close()
        self.held = []


class Proxy:
    def __init__(self, name, command, config, admin, folder):
        self.name = name
        file = folder / f"{name}-{admin}.json"
        file.write_text(json.dumps({"node": {"id": "bench", "cluster": "bench"}, "admin": {"address": address(admin)}, **config}))
        self.log = open(folder / f"{name}.log", "a")
        self.began = time.monotonic()
        self.process = subprocess.Popen([*command, "--concurrency", "1", "-c", file], stdout=self.log, stderr=self.log, preexec_fn=lambda: os.sched_setaffinity(0, {0}))

    def wait(self, port):
        """Until it answers; how long that took, in seconds."""
        while time.monotonic() < self.began + LIMIT_S:
            if self.process.poll() is not None:
                sys.exit(f"{self.name} ended: see {self.log.name}\n{pathlib.Path(self.log.name).read_text()[-2000:]}")
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
                    connection.sendall(REQUEST)
                    if connection.recv(12) == b"HTTP/1.1 200":
                        return time.monotonic() - self.began
            except OSError:
                pass
            time.sleep(0.002)
        sys.exit(f"{self.name} did not answer within {LIMIT_S} s")

    def cpu_ns(self):
        total = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def pss_kib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        return 0

    def stop(self):
        self.process.kill()
        self.process.wait()


def measure(proxies, work, load, amount, rounds):
    """Median CPU microseconds (TCP: seconds) for one unit, by program; the first round warms up and does not count."""
    found = {name: [] for name in proxies}
    for turn in range(rounds + 1):
        for name, (group, ports) in proxies.items():
            before = sum(proxy.cpu_ns() for proxy in group)
            done = load(ports[work], amount)
            spent = sum(proxy.cpu_ns() for proxy in group) - before
            if turn:
                found[name].append(spent / done)
    return {name: statistics.median(values) for name, values in found.items()}


def row(what, unit, theirs, ours):
    print(f"{what:42} {theirs:>10.2f} {ours:>10.2f} {unit:9} {ours / theirs:>6.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target/dist")
    parser.add_argument("--envoy", type=pathlib.Path, default=next(ROOT.glob(".venv/lib/python*/site-packages/envoy/_bin/envoy"), None))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--clusters", type=int, default=1000)
    options = parser.parse_args()
    if options.envoy is None:
        sys.exit("no Envoy: run `make test-tools`, or name one with --envoy")
    commands = {
        "envoy": [options.envoy, "--disable-hot-restart", "--log-level", "error"],
        "tanbark": [options.programs / "tanbark-proxy", "sidecar", "--log", "warn"],
    }
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tanbark-data-path-"))
    certificates(folder)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    backends, servers = {}, []
    for name, answer in (("one", http1_server), ("two", http2_server), ("sink", tcp_sink)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        backends[name] = listener.getsockname()[1]
        servers.append(multiprocessing.Process(target=serve, args=(listener, answer), daemon=True))
        servers[-1].start()
    proxies = {}
    try:
        for name, command in commands.items():
            proxies[name] = pair(name, command, backends, folder)
        print(f"{'':42} {'envoy':>10} {'tanbark':>10} {'':9} {'ratio':>6}")
        time.sleep(1)
        row("idle memory, PSS", "MiB", *(group[1].pss_kib() / 1024 for group, _ in proxies.values()))
        for what, work, load, amount in (
            ("HTTP/1.1, CPU per request", "plain", load_http1, options.requests),
            ("sidecar pair, mTLS, HTTP/1.1", "pair1", load_http1, options.requests),
            ("sidecar pair, mTLS, HTTP/2 between", "pair2", load_http1, options.requests),
            ("HTTP/2 cleartext, gRPC-like", "http2", load_http2, options.requests),
        ):
            found = measure(proxies, work, load, amount, options.rounds)
            row(what, "us", found["envoy"] / 1000, found["tanbark"] / 1000)
        found = measure(proxies, "tcp", load_tcp, 512, options.rounds)
        row("TCP, CPU per GiB", "s", found["envoy"] / 1e9, found["tanbark"] / 1e9)
    finally:
        for group, _ in proxies.values():
            for proxy in group:
                proxy.stop()
    many(commands, backends, folder, options.clusters)
    for server in servers:
        server.terminate()


def pair(name, command, backends, folder):
    """Two proxies: `out` takes what clients send, `in` stands before the backend."""
    ports = Ports()
    names = ("plain", "pair1", "pair2", "http2", "tcp", "in1", "in2", "admin-out", "admin-in")
    port = {work: ports.take() for work in names}
    upstream, downstream = tls("Upstream", folder), tls("Downstream", folder)
    outbound = {
        "listeners": [
            http_listener("plain", port["plain"], "one"),
            http_listener("pair1", port["pair1"], "in1"),
            http_listener("pair2", port["pair2"], "in2"),
            http_listener("http2", port["http2"], "two"),
            tcp_listener("tcp", port["tcp"], "sink"),
        ],
        "clusters": [
            cluster("one", backends["one"]),
            cluster("two", backends["two"], http2=True),
            cluster("sink", backends["sink"]),
            cluster("in1", port["in1"], transport=upstream),
            cluster("in2", port["in2"], http2=True, transport=with_alpn(upstream)),
        ],
    }
    inbound = {
        "listeners": [http_listener("in1", port["in1"], "one", transport=downstream), http_listener("in2", port["in2"], "one", transport=with_alpn(downstream))],
        "clusters": [cluster("one", backends["one"])],
    }
    ports.release()
    group = [
        Proxy(name, command, {"static_resources": inbound}, port["admin-in"], folder),
        Proxy(name, command, {"static_resources": outbound}, port["admin-out"], folder),
    ]
    group[1].wait(port["plain"])
    group[1].wait(port["pair1"])
    return group, port


def with_alpn(socket_config):
    copy = json.loads(json.dumps(socket_config))
    copy["typed_config"]["common_tls_context"]["alpn_protocols"] = ["h2"]
    return copy


def many(commands, backends, folder, count):
    """Memory and start with many clusters, each with a virtual host."""
    memory, start = {}, {}
    for name, command in commands.items():
        for number in (1, count):
            ports = Ports()
            listen, admin = ports.take(), ports.take()
            hosts = [{"name": f"h{n}", "domains": [f"s{n}.test"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": f"c{n}"}}]} for n in range(number)]
            hosts[0]["domains"].append("backend.test")
            clusters = [cluster(f"c{n}", backends["one"]) for n in range(number)]
            ports.release()
            proxy = Proxy(name, command, {"static_resources": {"listeners": [http_listener("all", listen, "", hosts)], "clusters": clusters}}, admin, folder)
            start[name, number] = proxy.wait(listen)
            time.sleep(1)
            memory[name, number] = proxy.pss_kib()
            proxy.stop()
    each = [(memory[name, count] - memory[name, 1]) / (count - 1) for name in commands]
    row(f"each of {count} clusters with virtual host", "KiB", *each)
    row(f"start to first answer, {count} clusters", "s", *(start[name, count] for name in commands))


if __name__ == "__main__":
    main()
