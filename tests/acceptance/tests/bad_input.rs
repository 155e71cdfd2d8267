//! Bad input of every kind in one running mesh: each is reported with its place, and nothing else suffers.

use std::{net::TcpListener, time::Duration};

use acceptance::{CLIENT, Mesh, Proxy, base};
use testkit::{echo, eventually, service};

/// File, content, and what `tanbark status` says about it, all of it in one line.
fn bad_files() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let aliases = (1..12).fold(
        String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n"),
        |text, level| {
            let repeated = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("{text}a{level}: &a{level} [{repeated}]\n")
        },
    );
    vec![
        (
            "weights.yaml",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: weights}\nspec:\n  hosts: [echo]\n  http:\n  - route:\n    - destination: {host: echo, port: {number: 8000}}\n      weight: -10\n".into(),
            vec!["weights.yaml:9:", "VirtualService default/weights", "-10"],
        ),
        (
            "twice.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twice}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: twice}\n".into(),
            vec!["twice.yaml:5", "ConfigMap default/twice", "twice.yaml:1 already"],
        ),
        (
            "unknown.yaml",
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: unknown}\nspec:\n  host: echo\n  trafficPolicyy: {}\n".into(),
            vec!["unknown.yaml:6:3", "DestinationRule default/unknown", "trafficPolicyy", "unknown field"],
        ),
        ("syntax.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: syntax\ndata: {}\n".into(), vec!["syntax.yaml:4:"]),
        ("big.yaml", format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata:\n  text: \"{}\"\n", "x".repeat(10_000_000)), vec!["big.yaml", "10000000 bytes"]),
        ("aliases.yaml", format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: aliases}}\n{aliases}"), vec!["aliases.yaml:", "aliases repeat too much"]),
        (
            "secretless.yaml",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: secretless}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n  - port: {number: 443, name: https, protocol: HTTPS}\n    hosts: [secure.example]\n    tls: {mode: SIMPLE, credentialName: absent}\n".into(),
            vec!["secretless.yaml:9:", "Gateway default/secretless", "istio-system/absent"],
        ),
        ("mismatch.yaml", mismatched_secret(), vec!["mismatch.yaml:", "Secret istio-system/mismatch", "does not belong to the certificate"]),
        (
            "label.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: label\n  labels: {version: 1.0}\nspec: {containers: [{name: c, image: busybox}]}\n".into(),
            vec!["label.yaml:5:", "Pod default/label", "metadata.labels.version: must be text", "quotes"],
        ),
        (
            "template.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: template}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata:\n      labels: {a: b, inject: true}\n    spec: {containers: [{name: c, image: busybox}]}\n".into(),
            vec!["template.yaml:8:", "Deployment default/template", "spec.template.metadata.labels.", "must be text"],
        ),
        ("image.yaml", pod("unmapped", "{name: main, image: 'example.org/nothing:1'}"), vec!["example.org/nothing:1", "has no entry in the image map"]),
        ("image.yaml", pod("unmapped", "{name: main, image: 'example.org/nothing:1'}"), vec!["- match: \"example.org/nothing\""]),
        ("crash.yaml", pod("crashing", "{name: main, image: busybox, args: [/bin/sh, -c, exit 3]}"), vec!["not ready: default/crashing", "CrashLoopBackOff"]),
    ]
}

fn pod(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {container}\n"
    )
}

/// A certificate with the key of another one, and a Gateway that uses it.
fn mismatched_secret() -> String {
    let make = || {
        rcgen::generate_simple_self_signed(["secure.example".to_owned()]).expect("a certificate")
    };
    let (certificate, key) = (make().cert.pem(), make().signing_key.serialize_pem());
    let block = |text: &str| {
        text.lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: mismatch, namespace: istio-system}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n\
         apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: mismatch}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  \
         - port: {{number: 443, name: https-mismatch, protocol: HTTPS}}\n    hosts: [mismatch.example]\n    tls: {{mode: SIMPLE, credentialName: mismatch}}\n",
        block(&certificate),
        block(&key)
    )
}

fn everything_bad_is_reported_and_hurts_nothing_else(proxy: Proxy) {
    let ingress =
        std::fs::read_to_string(testkit::root().join("samples/demo/ingress-gateway.yaml"))
            .expect("the sample");
    let yaml = base()
        + &echo("echo").with_service()
        + &service("default", "good", &[("app", "echo")])
        + &ingress;
    let mesh = Mesh::builder()
        .proxy(proxy)
        .file("mesh.yaml", &yaml)
        .start();
    let url = "http://echo:8000/get";
    mesh.wait_for_status(CLIENT, url, &[], 200);
    for (file, content, told) in bad_files() {
        mesh.write(file, &content);
        eventually(
            &format!("{file} is reported as {told:?}"),
            Duration::from_secs(15),
            || {
                let status = mesh.tanbark(&["status"]).stdout;
                if status
                    .lines()
                    .any(|line| told.iter().all(|word| line.contains(word)))
                {
                    Ok(())
                } else {
                    Err(status)
                }
            },
        );
        let answer = mesh.request(CLIENT, url, &[]);
        assert_eq!(answer.status, 200, "after {file}: {answer:?}");
    }
    // What is good still takes effect beside it all.
    let aborting = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: good}\nspec:\n  hosts: [good]\n  http:\n  - directResponse: {status: 218}\n";
    mesh.write("good.yaml", aborting);
    mesh.wait_for_status(CLIENT, "http://good:8000/", &[], 218);
    for file in [
        "weights",
        "twice",
        "unknown",
        "syntax",
        "big",
        "aliases",
        "secretless",
        "mismatch",
        "label",
        "template",
        "image",
        "crash",
    ] {
        mesh.remove(&format!("{file}.yaml"));
    }
    eventually("nothing is wrong any more", Duration::from_secs(20), || {
        let status = mesh.tanbark(&["status", "--exit-code"]);
        if status.code == 0 {
            Ok(())
        } else {
            Err(status.stdout)
        }
    });
    mesh.assert_no_nack();
}

#[test]
fn with_our_proxy() {
    everything_bad_is_reported_and_hurts_nothing_else(Proxy::Tanbark);
}

#[test]
fn with_envoy() {
    everything_bad_is_reported_and_hurts_nothing_else(Proxy::Envoy);
}

#[test]
fn a_port_in_use_is_reported_and_another_one_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: public}}\nspec:\n  type: LoadBalancer\n  selector: {{app: echo}}\n  ports: [{{name: http, port: {port}, targetPort: 8080}}]\n"
    );
    let mesh = Mesh::builder()
        .file("mesh.yaml", &(base() + &echo("echo").yaml()))
        .start();
    mesh.write("public.yaml", &service);
    let published = mesh.published("default", "public", port);
    assert_ne!(published, format!("127.0.0.1:{port}"));
    assert_eq!(
        mesh.request_from_outside(&format!("http://{published}/get"), &[])
            .status,
        200
    );
    eventually("the port is reported", Duration::from_secs(10), || {
        let log = mesh.up_log();
        if log.contains("PortInUse") && log.contains(&port.to_string()) {
            Ok(())
        } else {
            Err(log)
        }
    });
    drop(taken);
}
