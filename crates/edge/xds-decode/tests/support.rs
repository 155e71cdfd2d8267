//! `docs/xds-support.md` is what the decoder says about itself; `UPDATE_EXPECT=1` rewrites it.

#![allow(
    clippy::disallowed_methods,
    reason = "UPDATE_EXPECT in the environment rewrites the expected file"
)]

use std::{fmt::Write, path::Path};

use xds_decode::{Judgement, left_out, support_matrix};

fn page() -> String {
    let mut page = String::from(
        "# Envoy's wire surface: what the proxy obeys\n\n\
         Generated from the decoder (`UPDATE_EXPECT=1 cargo test -p xds-decode --test support`). For every message that is opened:\n\
         the fields that are obeyed (each has a reader outside of the decoder, as a test of `proxy-config` sees to), those that are ignored (with the reason why that is harmless), and those whose use is refused\n\
         with a NACK that names the field. An extension (anything inside an `Any`) that is not on this page is refused by its name.\n\
         Name tables (NDS, `ISTIO_META_DNS_CAPTURE`) are not supported: the proxy does not answer DNS.\n\
         Small messages that are read whole, such as string matchers, are not listed; nor are header operations and durations.\n\n\
         ## Left out\n\nExtensions that do not decide about traffic are left out instead of refusing their listener.\n\n\
         | type | what is lost |\n|---|---|\n",
    );
    for (name, lost) in left_out() {
        let _ = writeln!(page, "| `{name}` | {lost} |");
    }
    for (message, fields) in support_matrix() {
        let _ = write!(page, "\n## {message}\n\n");
        let obeyed: Vec<_> = fields
            .iter()
            .filter(|(_, j)| **j == Judgement::Read)
            .map(|(f, _)| format!("`{f}`"))
            .collect();
        if !obeyed.is_empty() {
            let _ = writeln!(page, "Obeyed: {}", obeyed.join(", "));
        }
        for (field, judgement) in &fields {
            let _ = match judgement {
                Judgement::Read => Ok(()),
                Judgement::Ignored(why) => writeln!(page, "- ignored: `{field}` ({why})"),
                Judgement::LeftOut(why) => {
                    writeln!(page, "- left out and named in a NACK: `{field}` ({why})")
                }
                Judgement::Rejected(why) => writeln!(page, "- refused: `{field}` ({why})"),
            };
        }
    }
    page
}

#[test]
fn the_published_page_is_what_the_decoder_does() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/xds-support.md");
    let page = page();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&file, &page).expect("docs");
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        published == page,
        "{} is not current (UPDATE_EXPECT=1 rewrites it)",
        file.display()
    );
}

#[test]
fn every_resource_type_is_judged() {
    let matrix = support_matrix();
    for message in [
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ] {
        assert!(matrix.contains_key(message), "{message}");
    }
    assert_eq!(
        matrix["envoy.config.cluster.v3.Cluster"]["name"],
        Judgement::Read
    );
    assert!(matches!(
        matrix["envoy.config.cluster.v3.Cluster"]["transport_socket_matcher"],
        Judgement::Rejected(_)
    ));
    assert!(matrix.len() > 60, "{} messages", matrix.len());
}
