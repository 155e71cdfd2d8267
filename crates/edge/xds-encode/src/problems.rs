//! What could not be encoded for a client, or contradicts something else, by object.
//!
//! The generators leave such things out (and nothing else with them); this says so. Reading errors are reported where objects are read.

use std::collections::BTreeSet;

use mesh_model::{
    Meta, Service,
    destination_rule::ClientTlsMode,
    gateway::{ServerCertificates, ServerTls},
    mesh_config::ProviderKind,
    object::Text,
    peer_authentication::MtlsMode,
};

use crate::{ClientKind, Problem, View, listeners, view::destinations};

/// All problems, sorted, each once.
pub fn problems(view: &View) -> Vec<Problem> {
    let mut found = BTreeSet::new();
    for service in view.services.iter() {
        tls_conflicts(view, service, &mut found);
    }
    let rules: Vec<_> = match view.client.kind {
        ClientKind::Gateway => {
            gateway_servers(view, &mut found);
            view.gateway_rules(&view.gateway_servers())
        }
        ClientKind::Sidecar => view
            .egress
            .iter()
            .flat_map(|scope| scope.virtual_services.iter().cloned())
            .collect(),
    };
    for rule in rules {
        for destination in destinations(&rule) {
            unknown_destination(
                view,
                &rule.meta,
                destination.host.as_str(),
                destination.subset.as_deref(),
                &mut found,
            );
        }
    }
    for telemetry in view.telemetries().iter() {
        let logs = telemetry
            .access_logging
            .iter()
            .flat_map(|block| block.providers.iter());
        let spans = telemetry
            .tracing
            .iter()
            .flat_map(|block| block.providers.iter());
        let metrics = telemetry
            .metrics
            .iter()
            .flat_map(|block| block.providers.iter());
        logs.chain(spans)
            .chain(metrics)
            .for_each(|name| provider(view, &telemetry.meta, name, &mut found));
    }
    found.into_iter().collect()
}

fn say(found: &mut BTreeSet<Problem>, about: &Meta, message: String) {
    found.insert(Problem {
        object: about.object.clone(),
        message,
    });
}

/// A rule for plaintext to a workload that takes none, or for mutual TLS to one that takes only plaintext.
fn tls_conflicts(view: &View, service: &Service, found: &mut BTreeSet<Problem>) {
    let Some(rule) = view.rule_of(service) else {
        return;
    };
    let endpoints = view.snapshot.endpoints_of(service);
    for (port, list) in endpoints.iter().flat_map(|all| all.ports.iter()) {
        let Some(tls) = rule.policy.for_port(*port).tls else {
            continue;
        };
        if tls.credential_name.is_some() && view.client.kind == ClientKind::Sidecar {
            say(
                found,
                &rule.meta,
                format!(
                    "credentialName has no effect in sidecars: {} at port {port} is called without it",
                    service.host
                ),
            );
        }
        let modes = list.iter().map(|endpoint| {
            if endpoint.mesh_tls {
                view.snapshot
                    .mtls_mode(&endpoint.namespace, &endpoint.labels, endpoint.port)
            } else {
                MtlsMode::Disable
            }
        });
        for mode in modes.collect::<std::collections::HashSet<_>>() {
            match (tls.mode, mode) {
                (ClientTlsMode::Disable, MtlsMode::Strict) => say(
                    found,
                    &rule.meta,
                    format!(
                        "tls DISABLE for {} port {port}, whose PeerAuthentication is STRICT: connections will be refused",
                        service.host
                    ),
                ),
                (ClientTlsMode::IstioMutual, MtlsMode::Disable) => say(
                    found,
                    &rule.meta,
                    format!(
                        "tls ISTIO_MUTUAL for {} port {port}, which takes only plaintext: connections will fail",
                        service.host
                    ),
                ),
                _ => {}
            }
        }
    }
}

fn unknown_destination(
    view: &View,
    rule: &Meta,
    host: &str,
    subset: Option<&str>,
    found: &mut BTreeSet<Problem>,
) {
    let Some(service) = view
        .service(host)
        .or_else(|| view.snapshot.service(host, &view.client.namespace))
    else {
        say(
            found,
            rule,
            format!("destination host {host} is not a known service: requests to it get 503"),
        );
        return;
    };
    let known = subset.is_none_or(|name| {
        view.rule_of(service)
            .is_some_and(|rule| rule.subsets.iter().any(|subset| &*subset.name == name))
    });
    if !known {
        say(
            found,
            rule,
            format!(
                "destination subset {} of {host} is not defined by any DestinationRule: requests to it get 503",
                subset.unwrap_or_default()
            ),
        );
    }
}

fn gateway_servers(view: &View, found: &mut BTreeSet<Problem>) {
    let servers = view.gateway_servers();
    let (_, conflicting) = listeners::by_port(&servers);
    for server in conflicting {
        let port = server.server.port.number;
        say(
            found,
            &server.gateway.meta,
            format!(
                "server {} is left out: port {port} is used by an older server of another protocol",
                server.server.port.name
            ),
        );
    }
    for server in &servers {
        let about = &server.gateway.meta;
        if listeners::is_forbidden(&view.client, server.listen_port) {
            say(
                found,
                about,
                format!(
                    "port {} cannot be opened by an unprivileged gateway: let its Service's targetPort be 1024 or more",
                    server.listen_port
                ),
            );
        }
        let ServerTls::Terminate(tls) = &server.server.tls else {
            continue;
        };
        if let ServerCertificates::Credentials(names) = &tls.certificates {
            for name in names.iter().filter(|name| !name.contains('/')) {
                let key = (view.client.namespace.clone(), Text::from(&**name));
                match view.snapshot.credentials.get(&key) {
                    None => say(
                        found,
                        about,
                        format!(
                            "Secret {}/{name} does not exist: TLS at port {} waits for it",
                            view.client.namespace, server.server.port.number
                        ),
                    ),
                    Some(credential) if credential.certificate.is_none() => say(
                        found,
                        about,
                        format!(
                            "Secret {}/{name} holds no certificate and key",
                            view.client.namespace
                        ),
                    ),
                    Some(_) => {}
                }
            }
        }
    }
}

fn provider(view: &View, about: &Meta, name: &str, found: &mut BTreeSet<Problem>) {
    match crate::telemetry::provider(&view.snapshot.mesh, name) {
        None => say(
            found,
            about,
            format!("provider {name} is not in MeshConfig's extensionProviders"),
        ),
        Some(ProviderKind::Unsupported { kind }) => say(
            found,
            about,
            format!("provider {name} ({kind}) is not supported yet"),
        ),
        Some(_) => {}
    }
}
