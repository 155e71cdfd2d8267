use super::*;

fn with() -> Injection {
    Injection {
        proxy: ProxyKind::Tanbark,
        trust_domain: "cluster.local".into(),
    }
}

#[test]
fn the_injection_matrix() {
    for (injection, revision, inject, pod_revision, expected) in [
        (Some("enabled"), None, None, None, true),
        (Some("enabled"), Some("r"), None, None, true),
        (Some("enabled"), None, Some("false"), None, false),
        (Some("disabled"), None, Some("true"), None, false),
        (Some("disabled"), Some("r"), None, Some("r"), false),
        (None, Some("r"), None, None, true),
        (None, Some("r"), Some("false"), None, false),
        (None, None, Some("true"), None, true),
        (None, None, None, Some("r"), true),
        (None, None, Some("false"), Some("r"), false),
        (None, None, None, None, false),
    ] {
        let mut namespace = json!({"metadata": {"name": "n"}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
        let set = |object: &mut Value, key: &str, value: Option<&str>| {
            if let Some(value) = value {
                object::label(object, key, value);
            }
        };
        set(&mut namespace, "istio-injection", injection);
        set(&mut namespace, "istio.io/rev", revision);
        set(&mut pod, "sidecar.istio.io/inject", inject);
        set(&mut pod, "istio.io/rev", pod_revision);
        assert_eq!(
            template_of(&pod, &namespace).is_some(),
            expected,
            "{injection:?} {revision:?} {inject:?} {pod_revision:?}"
        );
        pod["spec"]["hostNetwork"] = true.into();
        assert_eq!(template_of(&pod, &namespace), None);
    }
}

#[test]
fn an_injected_pod_has_labels_volumes_and_the_proxy_first() {
    let namespace = json!({"metadata": {"name": "n", "labels": {"istio-injection": "enabled"}}});
    let mut pod = json!({
        "metadata": {"name": "reviews-v1-77-x", "namespace": "n", "labels": {"app": "reviews", "version": "v1", "pod-template-hash": "77"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "reviews-v1-77", "uid": "u", "controller": true}]},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 9080}]}], "initContainers": [{"name": "i"}]},
    });
    inject(&mut pod, &namespace, &with()).expect("injected");
    let labels = object::labels(&pod);
    assert_eq!(labels["service.istio.io/canonical-name"], "reviews");
    assert_eq!(labels["service.istio.io/canonical-revision"], "v1");
    assert_eq!(labels["security.istio.io/tlsMode"], "istio");
    assert_eq!(
        object::text(&pod, "/spec/initContainers/0/name"),
        "istio-proxy"
    );
    assert_eq!(object::text(&pod, "/spec/initContainers/1/name"), "i");
    let environment = object::list(&pod, "/spec/initContainers/0/env");
    let value = |name: &str| {
        environment
            .iter()
            .find(|item| item["name"] == name)
            .map(|item| object::text(item, "/value"))
    };
    assert_eq!(value("ISTIO_META_WORKLOAD_NAME"), Some("reviews-v1"));
    assert_eq!(
        value("ISTIO_META_OWNER"),
        Some("kubernetes://apis/apps/v1/namespaces/n/deployments/reviews-v1")
    );
    let before = pod.clone();
    inject(&mut pod, &namespace, &with()).expect("once only");
    assert_eq!(pod, before);
}

#[test]
fn a_gateway_becomes_the_proxy_and_keeps_what_it_says() {
    let namespace = json!({"metadata": {"name": "n"}});
    let mut pod = json!({
        "metadata": {"name": "g", "namespace": "n", "labels": {"sidecar.istio.io/inject": "true"}, "annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": {"containers": [{"name": "istio-proxy", "image": "auto", "env": [{"name": "ISTIO_META_X", "value": "1"}]}]},
    });
    inject(&mut pod, &namespace, &with()).expect("injected");
    assert_eq!(object::list(&pod, "/spec/containers").len(), 1);
    assert_eq!(object::text(&pod, "/spec/containers/0/args/0"), "gateway");
    assert!(
        object::list(&pod, "/spec/containers/0/env")
            .iter()
            .any(|item| item["name"] == "ISTIO_META_X")
    );
    // Clients speak mutual TLS to pods with this label, and a gateway's plain server does not.
    assert!(!object::labels(&pod).contains_key("security.istio.io/tlsMode"));
    // Pods may open any port; a gateway that is told otherwise opens none below 1024.
    assert!(
        !object::list(&pod, "/spec/containers/0/env")
            .iter()
            .any(|item| item["name"] == "ISTIO_META_UNPRIVILEGED_POD")
    );
}
