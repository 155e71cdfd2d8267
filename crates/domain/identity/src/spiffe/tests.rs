use super::*;

#[test]
fn workload_form_round_trips() {
    let account = ServiceAccountName::parse("default/bookinfo-reviews").unwrap();
    let id = SpiffeId::workload(&TrustDomain::default(), &account);
    assert_eq!(
        id.as_str(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id);
    assert_eq!(id.namespace(), Some("default"));
    assert_eq!(id.service_account(), Some(account));
    assert_eq!(
        id.principal(),
        "cluster.local/ns/default/sa/bookinfo-reviews"
    );
    assert_eq!(id.path(), "/ns/default/sa/bookinfo-reviews");
}

#[test]
fn other_paths_are_ids_but_no_workloads() {
    for text in [
        "spiffe://td",
        "spiffe://td/a",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a/sb/b",
    ] {
        let id = SpiffeId::parse(text).unwrap();
        assert_eq!(id.namespace(), None, "{text}");
    }
}

#[test]
fn what_the_standard_forbids_is_refused() {
    let long = format!("spiffe://td/{}", "a".repeat(2048));
    for text in [
        "",
        "http://td/a",
        "SPIFFE://td/a",
        "spiffe://",
        "spiffe:///a",
        "spiffe://TD/a",
        "spiffe://td:1/a",
        "spiffe://u@td/a",
        "spiffe://td/a/",
        "spiffe://td//a",
        "spiffe://td/./a",
        "spiffe://td/../a",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://td/%41",
        "spiffe://td/ä",
        "spiffe://td/",
        &long,
    ] {
        assert!(SpiffeId::parse(text).is_err(), "{text}");
    }
}

#[test]
fn accounts_must_be_dns_names() {
    assert!(ServiceAccountName::new("default", "a.b-c").is_ok());
    for (namespace, name) in [
        ("", "a"),
        ("a", ""),
        ("A", "a"),
        ("a.b", "a"),
        ("a", "a/b"),
        ("a", "a..b"),
        ("-a", "a"),
    ] {
        assert!(
            ServiceAccountName::new(namespace, name).is_err(),
            "{namespace} {name}"
        );
    }
    let account = ServiceAccountName::parse_subject("system:serviceaccount:a:b").unwrap();
    assert_eq!(account.subject(), "system:serviceaccount:a:b");
}

#[test]
fn mesh_config_writes_dots_for_at() {
    assert_eq!(
        TrustDomain::parse_mesh_config("mesh@project")
            .unwrap()
            .as_str(),
        "mesh.project"
    );
}
