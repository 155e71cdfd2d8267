use super::*;

fn variables(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let base = [
        ("POD_NAME", "productpage-v1-a"),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", "10.1.0.1"),
        ("SERVICE_ACCOUNT", "bookinfo-productpage"),
        ("ISTIO_META_WORKLOAD_NAME", "productpage-v1"),
        (
            "ISTIO_META_LABELS",
            r#"{"app":"productpage","version":"v1"}"#,
        ),
        (
            "ISTIO_META_POD_PORTS",
            r#"[{"containerPort":9080,"protocol":"TCP"}]"#,
        ),
        (
            "PROXY_CONFIG",
            r#"{"discoveryAddress":"istiod.mesh.svc:15012","statusPort":15020,"concurrency":2}"#,
        ),
        ("TANBARK_MARK", "1337"),
        ("EMPTY", ""),
    ];
    base.iter()
        .chain(more)
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn settings(more: &[(&str, &str)]) -> Result<Settings, FeedError> {
    Environment::new(Role::Sidecar, variables(more))?.settings()
}

#[test]
fn a_sidecars_node_is_istios() {
    let settings = settings(&[]).unwrap();
    assert_eq!(
        settings.node.id,
        "sidecar~10.1.0.1~productpage-v1-a.default~default.svc.cluster.local"
    );
    assert_eq!(settings.node.cluster, "productpage.default");
    let metadata = structs::to_json(settings.node.metadata.as_ref().unwrap());
    assert_eq!(metadata["LABELS"]["app"], "productpage");
    assert_eq!(
        metadata["POD_PORTS"],
        r#"[{"containerPort":9080,"protocol":"TCP"}]"#
    );
    assert_eq!(metadata["PROXY_CONFIG"]["concurrency"], 2);
    assert_eq!(metadata["SERVICE_ACCOUNT"], "bookinfo-productpage");
    assert_eq!(metadata["INSTANCE_IPS"], "10.1.0.1");
    assert_eq!(metadata["TANBARK_MARK"], 1337);
    assert_eq!(metadata.get("EMPTY"), None);
    let router = Environment::new(Role::Gateway, variables(&[]))
        .unwrap()
        .node()
        .unwrap();
    assert!(router.id.starts_with("router~10.1.0.1~"));
}

#[test]
fn the_control_plane_is_reached_as_told() {
    let told = settings(&[]).unwrap();
    let discovery = told.discovery.unwrap();
    assert_eq!(discovery.flavour, Flavour::Delta);
    assert_eq!(
        discovery.server.address,
        Address::Host {
            name: "istiod.mesh.svc".into(),
            port: 15012
        }
    );
    assert_eq!(discovery.server.tls.unwrap().name, "istiod.mesh.svc");
    assert_eq!(discovery.server.mark, Some(1337));
    let certificates = told.certificates.unwrap();
    assert_eq!(
        certificates.server.address,
        Address::parse("istiod.mesh.svc:15012").unwrap()
    );
    assert_eq!(
        certificates.account.to_string(),
        "default/bookinfo-productpage"
    );
    let other = settings(&[
        ("CA_ADDR", "ca.example:443"),
        ("SECRET_TTL", "1m"),
        ("ISTIO_DELTA_XDS", "false"),
    ])
    .unwrap();
    let certificates = other.certificates.unwrap();
    assert_eq!(certificates.server.address.to_string(), "ca.example:443");
    assert_eq!(certificates.ttl, Duration::from_secs(60));
    assert_eq!(other.discovery.unwrap().flavour, Flavour::StateOfTheWorld);
}

#[test]
fn what_is_wrong_is_named() {
    for (variable, value) in [
        ("PROXY_CONFIG", "[1"),
        ("ISTIO_META_LABELS", "a=b"),
        ("TANBARK_MARK", "x"),
        ("CA_ADDR", "nowhere"),
        ("SECRET_TTL", "soon"),
        ("INSTANCE_IP", "localhost"),
    ] {
        let error = settings(&[(variable, value)]).unwrap_err().to_string();
        assert!(error.contains(variable), "{error}");
    }
    assert!(
        settings(&[("POD_NAME", "")]).is_ok(),
        "an empty variable does not hide one that is set"
    );
    let without = variables(&[]).into_iter().filter(|(k, _)| k != "POD_NAME");
    let error = Environment::new(Role::Sidecar, without)
        .unwrap()
        .settings()
        .unwrap_err();
    assert_eq!(error.to_string(), "the variable POD_NAME is not set");
}

#[test]
fn durations_are_gos() {
    let parse = |text| parse_duration(text).map(|d| d.as_millis());
    assert_eq!(parse("24h"), Some(86_400_000));
    assert_eq!(parse("1h30m"), Some(5_400_000));
    assert_eq!(parse("1.5s"), Some(1500));
    assert_eq!(parse("250ms"), Some(250));
    assert_eq!(parse("90"), Some(90_000));
    assert_eq!(
        (parse(""), parse("h"), parse("5x"), parse("-1s")),
        (None, None, None, None)
    );
}

#[test]
fn addresses_parse_both_ways() {
    for text in [
        "istiod.istio-system.svc:15012",
        "[::1]:15012",
        "unix:/run/xds",
    ] {
        assert_eq!(Address::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "host", ":1", "host:port", "unix:"] {
        assert_eq!(Address::parse(text), None, "{text}");
    }
}
