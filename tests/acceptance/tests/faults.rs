//! Fault injection by VirtualService: delays and aborts, for one user, for a share of all, for gRPC; and their end.

use std::time::Duration;

use acceptance::{CLIENT, Mesh, Proxy, assert_share, base};
use testkit::{echo, echo_program, eventually, service, whole_service};

const DELAY_FOR_ONE_USER: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: delayed}
spec:
  hosts: [delayed]
  http:
  - match:
    - headers: {end-user: {exact: jason}}
    fault:
      delay: {percentage: {value: 100}, fixedDelay: 7s}
    route:
    - destination: {host: delayed}
  - route:
    - destination: {host: delayed}
";
const ABORT_FOR_ALL: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: aborted}
spec:
  hosts: [aborted]
  http:
  - fault:
      abort: {percentage: {value: 100}, httpStatus: 500}
    route:
    - destination: {host: aborted}
";
const SHARES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shares}
spec:
  hosts: [shares]
  http:
  - fault:
      delay: {percentage: {value: 50}, fixedDelay: 10ms}
      abort: {percentage: {value: 10}, httpStatus: 418}
    route:
    - destination: {host: shares}
";
const LONG_SHARES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: long}
spec:
  hosts: [long]
  http:
  - fault:
      delay: {percentage: {value: 50}, fixedDelay: 2s}
      abort: {percentage: {value: 10}, httpStatus: 418}
    route:
    - destination: {host: long}
";
const GRPC_ABORT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: calls}
spec:
  hosts: [calls]
  http:
  - fault:
      abort: {percentage: {value: 100}, grpcStatus: UNAVAILABLE}
    route:
    - destination: {host: calls, port: {number: 9090}}
";

fn faults(proxy: Proxy) {
    let mut yaml = base() + &echo("echo").yaml();
    for name in ["delayed", "aborted", "shares", "long"] {
        yaml += &service("default", name, &[("app", "echo")]);
    }
    yaml += &whole_service("default", "calls", &[("app", "echo")]);
    let builder = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .file("delay.yaml", DELAY_FOR_ONE_USER);
    let mesh = builder
        .file("abort.yaml", ABORT_FOR_ALL)
        .file("shares.yaml", SHARES)
        .file("long.yaml", LONG_SHARES)
        .file("grpc.yaml", GRPC_ABORT)
        .start();

    let aborted = mesh.wait_for_status(CLIENT, "http://aborted:8000/get", &[], 500);
    assert_eq!(aborted.body, "fault filter abort");
    mesh.wait_for_log(CLIENT, &["aborted:8000", " 500 FI fault_filter_abort "]);

    let others = mesh.wait_for_status(CLIENT, "http://delayed:8000/get", &[], 200);
    assert!(others.time < 2.0, "{others:?}");
    let jason = mesh.request(
        CLIENT,
        "http://delayed:8000/get",
        &["-H", "end-user: jason"],
    );
    assert_eq!(jason.status, 200);
    // Envoy counts from the time at which its loop woke, which is some milliseconds before the
    // request was there.
    assert!((6.99..8.0).contains(&jason.time), "{jason:?}");
    mesh.wait_for_log(CLIENT, &["delayed:8000", " 200 DI "]);

    let program = echo_program();
    let call = [
        program.as_str(),
        "grpc-call",
        "http://calls:9090",
        "-n",
        "5",
        "--expect",
    ];
    eventually("gRPC calls are refused", Duration::from_secs(10), || {
        let run = mesh.exec(CLIENT, &[&call[..], &["UNAVAILABLE"]].concat());
        if run.code == 0 && run.stdout.contains("fault filter abort") {
            Ok(())
        } else {
            Err(run)
        }
    });

    const DRAWS: u64 = 10_000;
    let before = mesh.stat(CLIENT, "delays_injected");
    let number = DRAWS.to_string();
    let report = mesh.load(
        CLIENT,
        &["http://shares:8000/get", "-n", &number, "-c", "16"],
    );
    let aborts = report["statuses"]["418"].as_u64().unwrap_or(0);
    let passed = report["statuses"]["200"].as_u64().unwrap_or(0);
    assert_eq!(passed + aborts, DRAWS, "{report}");
    assert_share("aborts", aborts, DRAWS, 10.0);
    let delays = mesh.stat(CLIENT, "delays_injected") - before;
    assert_share("delays", delays, DRAWS, 50.0);

    let before = mesh.stat(CLIENT, "delays_injected");
    let report = mesh.load(CLIENT, &["http://long:8000/get", "-n", "1000", "-c", "100"]);
    let aborts = report["statuses"]["418"].as_u64().unwrap_or(0);
    assert_share("aborts beside a long delay", aborts, 1_000, 10.0);
    let delays = mesh.stat(CLIENT, "delays_injected") - before;
    assert_share("long delays", delays, 1_000, 50.0);

    mesh.remove("abort.yaml");
    mesh.remove("grpc.yaml");
    mesh.wait_for_status(CLIENT, "http://aborted:8000/get", &[], 200);
    eventually("gRPC calls are answered", Duration::from_secs(10), || {
        let run = mesh.exec(CLIENT, &[&call[..], &["OK"]].concat());
        if run.code == 0 { Ok(()) } else { Err(run) }
    });
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    faults(Proxy::Tanbark);
}

#[test]
fn with_envoy() {
    faults(Proxy::Envoy);
}
