#!/usr/bin/env python3
"""Prints the figures of README: start of the bookinfo mesh, file edit to changed answer, memory.

Usage: bench/figures.py [--programs target/release] [--starts 5] [--edits 60]
Runs whole meshes on this machine, on loopback only; every loop is bounded. Times vary from run to run and machine to machine.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_LIMIT_S = 60
EDIT_LIMIT_S = 10


class Mesh:
    """One `tanbark up` over a copy of samples/demo."""

    def __init__(self, programs: pathlib.Path):
        self.tanbark = programs / "tanbark"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tanbark-bench-"))
        self.yaml = self.folder / "yaml"
        shutil.copytree(ROOT / "samples" / "demo", self.yaml)
        self.state = self.folder / "state"
        self.log = open(self.folder / "up.log", "w")
        self.started = time.monotonic()
        arguments = ["up", str(self.yaml), "--images", str(ROOT / "samples" / "images.yaml"), "--state", str(self.state)]
        self.process = subprocess.Popen([self.tanbark, *arguments], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.port = None

    def run(self, *arguments: str) -> str:
        return subprocess.run([self.tanbark, *arguments, "--state", str(self.state)], capture_output=True, text=True, timeout=30).stdout

    def find_port(self) -> int:
        services = json.loads(self.run("get", "services", "-n", "istio-system", "-o", "json") or '{"items": []}')["items"]
        for service in services:
            published = service["metadata"].get("annotations", {}).get("tanbark.io/published", "")
            for entry in published.split(","):
                if entry.startswith("80="):
                    return int(entry.rsplit(":", 1)[1])
        raise LookupError("not published yet")

    def get(self, path: str) -> tuple[int, str]:
        if self.port is None:
            self.port = self.find_port()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def first_page_s(self) -> float:
        """Seconds from the start of the program to the first whole product page."""
        while time.monotonic() - self.started < START_LIMIT_S:
            try:
                status, body = self.get("/productpage")
                if status == 200 and "Reviews served by" in body and "Error fetching" not in body:
                    return time.monotonic() - self.started
            except (OSError, LookupError, ValueError, KeyError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        sys.exit(f"no page within {START_LIMIT_S} s; see {self.folder}/up.log")

    def edit_s(self, number: int) -> float:
        """Seconds from replacing a file to the first answer that follows it."""
        route = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: bench, namespace: default}}
spec:
  hosts: ["*"]
  gateways: [bookinfo-gateway]
  http:
  - match: [{{uri: {{exact: /bench}}}}]
    directResponse: {{status: 200, body: {{string: "edit {number}"}}}}
"""
        partial = self.folder / "partial"
        partial.write_text(route)
        start = time.monotonic()
        partial.rename(self.yaml / "bench.yaml")
        while time.monotonic() - start < EDIT_LIMIT_S:
            if self.get("/bench") == (200, f"edit {number}"):
                return time.monotonic() - start
            time.sleep(0.002)
        sys.exit(f"edit {number} was not followed within {EDIT_LIMIT_S} s")

    def memory_mib(self) -> dict[str, float]:
        """PSS by role, in MiB: of all processes below the runtime."""
        children: dict[int, list[int]] = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
                except (OSError, IndexError):
                    pass
        found: dict[str, list[float]] = {}
        # What a sidecar has resident: its PSS if no other process shared a page with it.
        alone: list[float] = []
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            waiting.extend(children.get(pid, []))
            try:
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            lines = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
            mib = {name: int(lines[name].split()[0]) / 1024 for name in ("Pss", "Rss")}
            found.setdefault(role(command), []).append(mib["Pss"])
            if role(command) == "sidecar":
                alone.append(mib["Rss"])
        sums = {name: sum(values) for name, values in found.items()}
        sidecars = found.get("sidecar", [0.0])
        return {
            "control plane": sums.get("control plane", 0.0),
            "one sidecar (median)": statistics.median(sidecars),
            "one sidecar (largest)": max(sidecars),
            "one sidecar alone (RSS)": statistics.median(alone or [0.0]),
            "gateway": sums.get("gateway", 0.0),
            "runtime": sums.get("runtime", 0.0),
            "applications": sums.get("application", 0.0),
            "whole mesh": sum(sums.values()),
        }

    def stop(self) -> float:
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return time.monotonic() - start


def role(command: list[bytes]) -> str:
    words = [word.decode(errors="replace") for word in command]
    program = os.path.basename(words[0]) if words else ""
    rest = words[1:]
    # Each container has a small first process that waits for its command; it belongs to the runtime.
    if "container-exec" in rest or "machine-init" in rest:
        return "runtime"
    if program.startswith("tanbark-proxy"):
        return "gateway" if "gateway" in rest else "sidecar"
    if program == "tanbark":
        return "control plane" if "control" in rest else "runtime"
    return "application"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--edits", type=int, default=60)
    options = parser.parse_args()

    starts, stops = [], []
    for number in range(min(options.starts, 50)):
        mesh = Mesh(options.programs)
        starts.append(mesh.first_page_s())
        if number + 1 < options.starts:
            stops.append(mesh.stop())
    for _ in range(50):
        mesh.get("/productpage")
    edits = sorted(mesh.edit_s(number) for number in range(min(options.edits, 1000)))
    memory = mesh.memory_mib()
    stops.append(mesh.stop())

    print(f"start of the bookinfo mesh to the first good page, s   median {statistics.median(starts):.2f}   worst {max(starts):.2f}   of {len(starts)}   goal <= 3")
    p99 = edits[min(len(edits) - 1, int(len(edits) * 0.99))]
    print(f"file edit to changed answer, s                         p50 {statistics.median(edits):.3f}   p99 {p99:.3f}   of {len(edits)}   goal <= 0.25 / 1")
    print(f"stop, s                                                median {statistics.median(stops):.2f}   worst {max(stops):.2f}")
    goals = {"control plane": "   goal <= 40", "one sidecar (median)": "   goal <= 10"}
    for name, mib in memory.items():
        print(f"memory (PSS) {name + ', MiB':<40}  {mib:6.1f}{goals.get(name, '')}")


if __name__ == "__main__":
    main()
