//! STRICT mutual TLS for a namespace: who has no sidecar gets a connection reset, who has one an answer; PERMISSIVE lets both in.

use std::time::Duration;

use acceptance::{Mesh, Proxy};
use testkit::{echo, eventually, holds_for, mesh_settings, namespace};

/// The policy as users write it.
const STRICT: &str = "
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata:
  name: default
  namespace: ffc-demo
spec:
  mtls:
    mode: STRICT
";
/// curl's exit code of a connection that the other side reset.
const RESET: i32 = 56;

fn strict_refuses_plaintext_and_permissive_takes_it(proxy: Proxy, policy: &str) {
    let inside = echo("client").namespace("ffc-demo").yaml();
    let outside = echo("client").namespace("legacy").yaml();
    let server = echo("httpbin").namespace("ffc-demo").with_service();
    let yaml = [
        mesh_settings(),
        namespace("ffc-demo", true),
        namespace("legacy", false),
        inside,
        outside,
        server,
    ]
    .concat();
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    let url = "http://httpbin.ffc-demo:8000/headers";
    let (inside, outside) = (
        &["-n", "ffc-demo", "deploy/client-v1"][..],
        &["-n", "legacy", "deploy/client-v1"][..],
    );

    mesh.wait_for_status(inside, url, &[], 200);
    mesh.wait_for_status(outside, url, &[], 200);

    mesh.write("strict.yaml", policy);
    eventually("plaintext is reset", Duration::from_secs(20), || {
        let answer = mesh.request(outside, url, &[]);
        if answer.code == RESET {
            Ok(())
        } else {
            Err(answer)
        }
    });
    holds_for(
        "plaintext stays refused, mutual TLS is answered",
        Duration::from_secs(2),
        || {
            let (plain, mutual) = (
                mesh.request(outside, url, &[]),
                mesh.request(inside, url, &[]),
            );
            if plain.code == RESET && mutual.status == 200 {
                Ok(())
            } else {
                Err((plain, mutual))
            }
        },
    );
    // The application hears who called.
    let answer = mesh.request(inside, url, &[]);
    assert!(
        answer
            .body
            .contains("URI=spiffe://cluster.local/ns/ffc-demo/sa/client"),
        "{}",
        answer.body
    );

    mesh.write("strict.yaml", &policy.replace("STRICT", "PERMISSIVE"));
    mesh.wait_for_status(outside, url, &[], 200);
    assert_eq!(mesh.request(inside, url, &[]).status, 200);
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    strict_refuses_plaintext_and_permissive_takes_it(Proxy::Tanbark, STRICT);
}

#[test]
fn with_envoy() {
    strict_refuses_plaintext_and_permissive_takes_it(Proxy::Envoy, STRICT);
}
