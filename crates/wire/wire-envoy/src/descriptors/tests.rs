use super::*;
use crate::pb;
use crate::{any, type_url};
use serde_json::json;

#[test]
fn an_any_is_written_out_and_read_back_in_both_spellings() {
    let descriptors = Descriptors::load().expect("built-in");
    let cluster = pb::cluster::Cluster {
        name: "a".to_owned(),
        connect_timeout: Some(pb::Duration {
            seconds: 10,
            nanos: 0,
        }),
        transport_socket: Some(pb::core::TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(pb::core::transport_socket::ConfigType::TypedConfig(any(
                &pb::tls::UpstreamTlsContext {
                    sni: "x".to_owned(),
                    ..Default::default()
                },
            ))),
        }),
        ..Default::default()
    };
    let snake = descriptors
        .to_json(&cluster, Names::Snake)
        .expect("snake case");
    assert_eq!(snake["connect_timeout"], "10s");
    assert_eq!(snake["transport_socket"]["typed_config"]["sni"], "x");
    let camel = descriptors
        .to_json(&cluster, Names::Camel)
        .expect("camel case");
    assert_eq!(camel["connectTimeout"], "10s");
    for text in [snake, camel] {
        let back: pb::cluster::Cluster = descriptors
            .from_json(text, Unknown::Deny)
            .expect("its own output");
        assert_eq!(back, cluster);
    }
}

#[test]
fn numbers_in_a_struct_are_printed_as_integers() {
    let descriptors = Descriptors::load().expect("built-in");
    let typed = pb::typed_struct::Udpa {
        type_url: "type.googleapis.com/x.Y".to_owned(),
        value: structs::from_json(&json!({"weight": 2, "half": 0.5})),
    };
    let text = descriptors
        .any_to_json(&any(&typed), Names::Snake)
        .expect("TypedStruct is known");
    assert_eq!(text["value"].to_string(), r#"{"half":0.5,"weight":2}"#);
    assert_eq!(
        text["@type"],
        "type.googleapis.com/udpa.type.v1.TypedStruct"
    );
}

#[test]
fn a_yaml_error_says_line_and_column_inside_an_any_too() {
    let descriptors = Descriptors::load().expect("built-in");
    let yaml = "name: a\ntransport_socket:\n  name: t\n  typed_config:\n    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    snii: a\n";
    let error = descriptors
        .from_yaml::<pb::cluster::Cluster>(yaml)
        .expect_err("no field snii")
        .to_string();
    assert!(error.contains("snii"), "{error}");
    // Inside an Any the place is that of the message, as its type is known only after its fields were read.
    assert!(error.contains("line 5"), "{error}");
    let skipped: pb::cluster::Cluster = descriptors
        .from_json(json!({"name": "a", "novel": 1}), Unknown::Skip)
        .expect("skipped");
    assert_eq!(skipped.name, "a");
}

#[test]
fn every_message_of_ours_has_a_descriptor_and_a_type_url() {
    let descriptors = Descriptors::load().expect("built-in");
    for url in [
        type_url::<pb::istio::auth::IstioCertificateRequest>(),
        type_url::<pb::istio::alpn::FilterConfig>(),
        type_url::<pb::istio::peer_metadata::Config>(),
        type_url::<pb::istio::metadata_exchange::MetadataExchange>(),
        type_url::<pb::istio::stats::PluginConfig>(),
        type_url::<pb::istio::nds::NameTable>(),
        type_url::<pb::typed_struct::Udpa>(),
        type_url::<pb::typed_struct::Xds>(),
        type_url::<pb::cluster::Cluster>(),
    ] {
        descriptors.message(&url).expect("known");
    }
    assert_eq!(
        type_url::<pb::istio::alpn::FilterConfig>(),
        "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
    );
    assert!(matches!(
        descriptors.any_from_json(json!({"@type": "type.googleapis.com/no.Such"}), Unknown::Deny),
        Err(JsonError::UnknownType(name)) if name == "no.Such"
    ));
}
