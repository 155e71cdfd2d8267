//! Gateways as Istio's own charts and tasks set them up: on port 80 itself, and on the way out of the mesh.

use acceptance::{CLIENT, Mesh, Proxy, base};
use testkit::{echo, namespace, service};

/// Both gateways in one Deployment, as the chart `gateway` makes it: port 80 is the proxy's own port 80.
const GATEWAY: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: gate, namespace: istio-system}
spec:
  type: LoadBalancer
  selector: {istio: gate}
  ports: [{name: http2, port: 80, targetPort: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gate, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: gate}}
  template:
    metadata:
      annotations: {inject.istio.io/templates: gateway}
      labels: {istio: gate, sidecar.istio.io/inject: "true"}
    spec:
      containers: [{name: istio-proxy, image: auto, ports: [{containerPort: 80}]}]
---
"#;

/// Istio's task "Egress gateways": `external.example.com` is reached by way of the gateway, in plaintext.
const EGRESS: &str = r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external}
spec:
  hosts: [external.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.96.1.50, ports: {http: 8000}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate}
spec:
  selector: {istio: gate}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [external.example.com, inside.example.com]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: gate}
spec: {host: gate.istio-system.svc.cluster.local, subsets: [{name: external}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-way-of-the-gateway}
spec:
  hosts: [external.example.com]
  gateways: [mesh, gate]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route:
    - destination: {host: gate.istio-system.svc.cluster.local, subset: external, port: {number: 80}}
  - match: [{gateways: [gate], port: 80}]
    route:
    - destination: {host: external.example.com, port: {number: 80}}
      headers: {response: {add: {x-came-by: gate}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inside}
spec:
  hosts: [inside.example.com]
  gateways: [gate]
  http:
  - route: [{destination: {host: server, port: {number: 8000}}}]
"#;

fn requests_pass_a_gateway_on_port_80(proxy: Proxy) {
    let outside = echo("outside").namespace("plain").without_sidecar().yaml()
        + &service("plain", "outside", &[("app", "outside")])
            .replace("\"spec\":{", "\"spec\":{\"clusterIP\":\"10.96.1.50\",");
    let server = echo("server").yaml() + &service("default", "server", &[("app", "server")]);
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file(
            "mesh.yaml",
            &(base() + &namespace("plain", false) + GATEWAY + &outside + &server + EGRESS),
        )
        .start();
    mesh.wait_ready();
    // From outside: the gateway listens on port 80 itself.
    let address = mesh.published("istio-system", "gate", 80);
    let from_outside = mesh.request_from_outside(
        &format!("http://{address}/"),
        &["-H", "Host: inside.example.com"],
    );
    assert_eq!(from_outside.status, 200, "{from_outside:?}");
    // From a pod to the world, and from a pod back in by the gateway.
    let out = ["-D", "-", "-H", "Host: external.example.com"];
    let answer = mesh.wait_for_status(CLIENT, "http://10.96.1.50:80/", &out, 200);
    assert!(
        answer.body.to_lowercase().contains("x-came-by: gate"),
        "not by way of the gateway: {answer:?}"
    );
    let gate = "http://gate.istio-system/";
    let back_in = ["-H", "Host: inside.example.com"];
    assert_eq!(mesh.request(CLIENT, gate, &back_in).status, 200);
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    requests_pass_a_gateway_on_port_80(Proxy::Tanbark);
}

#[test]
fn with_envoy() {
    requests_pass_a_gateway_on_port_80(Proxy::Envoy);
}
