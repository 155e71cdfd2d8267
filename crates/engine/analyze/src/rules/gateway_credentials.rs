//! Are the Secrets of a Gateway's servers there, and of use?

use ingest::{Domain, Key, Severity, code};
use mesh_model::gateway::{ServerCertificates, ServerTls, TerminateMode, TerminateTls};
use mesh_model::object::Text;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "gateway_credentials",
    codes: &[
        (code::REFERENCE_NOT_FOUND, Severity::Error),
        (code::GATEWAY_CREDENTIAL, Severity::Error),
    ],
    docs: "A server's credentialName names a Secret that does not exist in the namespace of the gateway's pods, that holds no certificate with its key, or, for MUTUAL, no CA. The server takes no TLS connections.",
    reads: &[Source::Workloads, Source::Objects(Kind::Secret)],
    units: Units::Each {
        kinds: &[Kind::Gateway],
        check,
    },
};

/// Secrets are looked for where the gateway's workloads run.
fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::Gateway(gateway) = domain else {
        return;
    };
    for (index, server) in gateway.servers.iter().enumerate() {
        let ServerTls::Terminate(tls) = &server.tls else {
            continue;
        };
        let ServerCertificates::Credentials(names) = &tls.certificates else {
            continue;
        };
        let namespaces = cx.selected_in(None, &gateway.selector);
        for name in names.iter() {
            for namespace in &namespaces {
                if let Err((code, message)) = usable(cx, namespace, name, tls) {
                    let path = format!("spec.servers[{index}].tls.credentialName");
                    cx.say(key, code, path, message);
                }
            }
        }
    }
}

fn usable(
    cx: &mut Cx,
    namespace: &Text,
    name: &Text,
    tls: &TerminateTls,
) -> Result<(), (&'static str, String)> {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace.into(), name.into()),
        None => (namespace.clone(), name.clone()),
    };
    let Some(credential) = cx.credential(&namespace, &name) else {
        let exists = cx.exists(&Key {
            kind: Kind::Secret,
            namespace: namespace.clone(),
            name: name.clone(),
        });
        return Err(match exists {
            true => (
                code::GATEWAY_CREDENTIAL,
                format!(
                    "Secret {namespace}/{name} holds no usable certificate: this server cannot take TLS connections"
                ),
            ),
            false => (
                code::REFERENCE_NOT_FOUND,
                format!(
                    "no Secret {namespace}/{name} exists (it belongs into the namespace of the gateway's pods): this server cannot take TLS connections"
                ),
            ),
        });
    };
    if credential.certificate.is_none() {
        return Err((
            code::GATEWAY_CREDENTIAL,
            format!(
                "Secret {namespace}/{name} holds no certificate with its key: this server cannot take TLS connections"
            ),
        ));
    }
    let wants_clients = matches!(
        tls.mode,
        TerminateMode::Mutual | TerminateMode::OptionalMutual
    );
    let apart = tls
        .ca_credential_name
        .clone()
        .unwrap_or_else(|| format!("{name}-cacert").into());
    let has_ca = credential.ca_pem.is_some()
        || cx
            .credential(&namespace, &apart)
            .is_some_and(|c| c.ca_pem.is_some());
    if wants_clients && !has_ca && tls.ca_file.is_none() {
        return Err((
            code::GATEWAY_CREDENTIAL,
            format!(
                "mode MUTUAL needs a CA: put ca.crt into Secret {namespace}/{name}, or into {name}-cacert"
            ),
        ));
    }
    Ok(())
}
