//! One request through three services: counted once at each source and each destination, encrypted on the way.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use acceptance::{Mesh, Proxy};
use testkit::eventually;

const ALL_TO_V3: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v3}
";
/// A word that no other traffic holds.
const CANARY: &str = "plaintext-canary-4711";

fn principal(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/bookinfo-{account}")
}

/// Requests that the proxy beside `at` counted as `reporter` between two services.
fn counted(mesh: &Mesh, at: &str, reporter: &str, from: &str, to: &str) -> f64 {
    let (source, destination) = (principal(from), principal(to));
    let wanted = [
        ("reporter", reporter),
        ("source_app", from),
        ("destination_app", to),
        ("source_principal", source.as_str()),
        ("destination_principal", destination.as_str()),
        ("destination_service_name", to),
        ("destination_service_namespace", "default"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
        // Only the destination can know.
        (
            "connection_security_policy",
            if reporter == "source" {
                "unknown"
            } else {
                "mutual_tls"
            },
        ),
    ];
    mesh.prometheus(&[at])
        .iter()
        .filter(|sample| sample.name == "istio_requests_total" && sample.has(&wanted))
        .map(|sample| sample.value)
        .sum()
}

fn all_counted(mesh: &Mesh, at: &str) -> f64 {
    mesh.prometheus(&[at])
        .iter()
        .filter(|sample| sample.name == "istio_requests_total")
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn one_request_is_counted_once_at_each_end() {
    let mesh = Mesh::builder()
        .proxy(Proxy::Tanbark)
        .sample("demo")
        .file("reviews.yaml", ALL_TO_V3)
        .start();
    let url = format!(
        "http://{}/productpage",
        mesh.published("istio-system", "istio-ingressgateway", 80)
    );
    // Exactly one request: nothing is asked before the gateway knows the way, so an earlier 404 is not counted beyond the gateway.
    eventually("the product page", Duration::from_secs(20), || {
        match mesh.request_from_outside(&url, &[]) {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.status),
        }
    });
    for (at, reporter, from, to) in [
        ("deploy/productpage-v1", "source", "productpage", "reviews"),
        ("deploy/reviews-v3", "destination", "productpage", "reviews"),
        ("deploy/reviews-v3", "source", "reviews", "ratings"),
        ("deploy/ratings-v1", "destination", "reviews", "ratings"),
        ("deploy/productpage-v1", "source", "productpage", "details"),
        ("deploy/details-v1", "destination", "productpage", "details"),
    ] {
        eventually(
            &format!("{at} counts one request from {from} to {to} as {reporter}"),
            Duration::from_secs(10),
            || {
                let count = counted(&mesh, at, reporter, from, to);
                if (count - 1.0).abs() < f64::EPSILON {
                    Ok(())
                } else {
                    Err((
                        count,
                        mesh.prometheus(&[at])
                            .into_iter()
                            .filter(|s| s.name == "istio_requests_total")
                            .collect::<Vec<_>>(),
                    ))
                }
            },
        );
    }
    // Nothing is counted twice under other labels: productpage was asked once and asked two, reviews was asked once and asked one.
    for (at, all) in [
        ("deploy/productpage-v1", 3.0),
        ("deploy/reviews-v3", 2.0),
        ("deploy/ratings-v1", 1.0),
        ("deploy/details-v1", 1.0),
    ] {
        assert!(
            (all_counted(&mesh, at) - all).abs() < f64::EPSILON,
            "{at}: {:?}",
            all_counted(&mesh, at)
        );
    }
    mesh.assert_no_nack();
}

/// A process of the pod: the one of the mesh's descendants that runs `program` with `argument`.
fn process_of(mesh: &Mesh, program: &str, argument: &str) -> Option<i32> {
    let is_below = |mut pid: i32| {
        while pid > 1 {
            if pid == mesh.pid() {
                return true;
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            pid = stat
                .rsplit(')')
                .next()
                .and_then(|rest| rest.split_whitespace().nth(1))
                .and_then(|parent| parent.parse().ok())
                .unwrap_or(0);
        }
        false
    };
    let pids = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next().is_some_and(|word| word.ends_with(program)) && words.next() == Some(argument)
    })
    .find(|pid| is_below(*pid))
}

/// Writes every frame of an interface to its output. (tcpdump gives up in a user namespace that may not set groups.)
const CAPTURE: &str = "
import socket, sys
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind((sys.argv[1], 0))
while True:
    sys.stdout.buffer.write(frames.recv(65536))
    sys.stdout.buffer.flush()
";

/// A capture that ends with its owner, also when a test fails.
struct Capture(Child);

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Captures in the network of a process.
fn capture(pid: i32, interface: &str, output: &PathBuf) -> Capture {
    let file = fs::File::create(output).expect("a file");
    let user_namespace = |pid: &str| {
        fs::metadata(format!("/proc/{pid}/ns/user"))
            .map(|metadata| metadata.ino())
            .ok()
    };
    let mut command = Command::new("nsenter");
    if user_namespace("self") != user_namespace(&pid.to_string()) {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.args(["--target", &pid.to_string(), "--net"]);
    command.args(["python3", "-c", CAPTURE, interface]);
    command.stdin(Stdio::null()).stdout(file);
    Capture(command.spawn().expect("nsenter and python3"))
}

fn holds(file: &PathBuf, text: &str) -> bool {
    fs::read(file)
        .unwrap_or_default()
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn no_plaintext_on_the_wire(proxy: Proxy) {
    let yaml = acceptance::base() + &testkit::echo("server").with_service();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    mesh.wait_for_status(acceptance::CLIENT, "http://server:8000/get", &[], 200);
    let pods = mesh.objects("pods");
    let pid = process_of(&mesh, "tanbark-echo", "serve").expect("a process of a pod");
    assert!(pods.len() >= 3, "{pods:?}");
    let folder =
        std::env::temp_dir().join(format!("tanbark-capture-{}-{proxy:?}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (wire, inside) = (folder.join("eth0"), folder.join("lo"));
    let captures = [capture(pid, "eth0", &wire), capture(pid, "lo", &inside)];
    // The pod is a client or the server: both see the request on their loopback in plaintext, and on their wire encrypted.
    let header = format!("x-canary: {CANARY}");
    eventually("the request is captured", Duration::from_secs(20), || {
        assert_eq!(
            mesh.request(
                acceptance::CLIENT,
                "http://server:8000/get",
                &["-H", &header]
            )
            .status,
            200
        );
        let wire_size = fs::metadata(&wire).map_or(0, |metadata| metadata.len());
        if holds(&inside, CANARY) && wire_size > 1_000 {
            Ok(())
        } else {
            Err(wire_size)
        }
    });
    assert!(
        !holds(&wire, CANARY),
        "the request was on the wire in plaintext"
    );
    assert!(
        !holds(&wire, "HTTP/1.1 200"),
        "an answer was on the wire in plaintext"
    );
    drop(captures);
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn no_plaintext_on_the_wire_with_our_proxy() {
    no_plaintext_on_the_wire(Proxy::Tanbark);
}

#[test]
fn no_plaintext_on_the_wire_with_envoy() {
    no_plaintext_on_the_wire(Proxy::Envoy);
}
