//! `x-forwarded-client-cert`: what the next hop is told about the client's certificate. Follows Envoy's XFCC documentation.

use http::{HeaderMap, HeaderValue};
use proxy_config::http_connection_manager::{ClientCertDetails, ForwardClientCert};

use crate::{headers::names::X_FORWARDED_CLIENT_CERT, tls::Secured};

/// Keeps, drops, appends or sets the header.
pub fn apply(
    headers: &mut HeaderMap,
    tls: Option<&Secured>,
    mode: ForwardClientCert,
    details: ClientCertDetails,
) {
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let peer = tls.filter(|tls| tls.info.mutual);
    let Some(tls) = peer else {
        // Without mutual TLS nothing vouches for what came.
        headers.remove(X_FORWARDED_CLIENT_CERT);
        return;
    };
    match mode {
        ForwardClientCert::Sanitize => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
        ForwardClientCert::ForwardOnly | ForwardClientCert::AlwaysForwardOnly => {}
        ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet => {
            let mut value = element(tls, details);
            if mode == ForwardClientCert::AppendForward
                && let Some(before) = headers
                    .get(X_FORWARDED_CLIENT_CERT)
                    .and_then(|v| v.to_str().ok())
            {
                value = format!("{before},{value}");
            }
            match HeaderValue::from_str(&value) {
                Ok(value) => drop(headers.insert(X_FORWARDED_CLIENT_CERT, value)),
                Err(_) => drop(headers.remove(X_FORWARDED_CLIENT_CERT)),
            }
        }
    }
}

/// One element: `By`, `Hash`, then what is asked for.
fn element(tls: &Secured, details: ClientCertDetails) -> String {
    let info = &tls.info;
    let mut parts = Vec::with_capacity(8);
    parts.extend(info.local_uri_sans.iter().map(|uri| format!("By={uri}")));
    parts.extend(
        info.peer_fingerprint_256
            .iter()
            .map(|hash| format!("Hash={hash}")),
    );
    if details.cert
        && let Some(peer) = &tls.connection.peer
    {
        parts.push(format!("Cert=\"{}\"", url_encoded(&peer.pem)));
    }
    if details.chain
        && let Some(chain) = &tls.connection.peer_chain
    {
        parts.push(format!("Chain=\"{}\"", url_encoded(&chain.to_pem())));
    }
    if details.subject {
        parts.push(format!(
            "Subject=\"{}\"",
            info.peer_subject
                .as_deref()
                .unwrap_or("")
                .replace('"', "\\\"")
        ));
    }
    if details.uri {
        match info.peer_uri_sans.is_empty() {
            true => parts.push("URI=".to_owned()),
            false => parts.extend(info.peer_uri_sans.iter().map(|uri| format!("URI={uri}"))),
        }
    }
    if details.dns {
        parts.extend(info.peer_dns_sans.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}

/// Everything but unreserved characters as `%XX`.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use identity::ConnectionInfo;
    use telemetry::record::TlsInfo;

    use super::*;

    fn secured(mutual: bool) -> Secured {
        Secured {
            info: Arc::new(TlsInfo {
                mutual,
                local_uri_sans: vec!["spiffe://td/ns/a/sa/server".into()],
                peer_uri_sans: vec!["spiffe://td/ns/a/sa/client".into()],
                peer_fingerprint_256: Some("ab12".into()),
                ..TlsInfo::default()
            }),
            connection: Arc::new(ConnectionInfo {
                group: "",
                peer: None,
                peer_chain: None,
                version: "TLSv1.3",
                cipher: "",
                alpn: None,
                resumed: false,
            }),
        }
    }

    #[test]
    fn a_sidecar_appends_one_element_as_istio_does() {
        let details = ClientCertDetails {
            subject: true,
            dns: true,
            uri: true,
            ..ClientCertDetails::default()
        };
        let mut headers = HeaderMap::new();
        apply(
            &mut headers,
            Some(&secured(true)),
            ForwardClientCert::AppendForward,
            details,
        );
        let element =
            "By=spiffe://td/ns/a/sa/server;Hash=ab12;Subject=\"\";URI=spiffe://td/ns/a/sa/client";
        assert_eq!(headers[X_FORWARDED_CLIENT_CERT], element);
        apply(
            &mut headers,
            Some(&secured(true)),
            ForwardClientCert::AppendForward,
            details,
        );
        assert_eq!(
            headers[X_FORWARDED_CLIENT_CERT],
            format!("{element},{element}")
        );
        apply(
            &mut headers,
            Some(&secured(true)),
            ForwardClientCert::SanitizeSet,
            details,
        );
        assert_eq!(headers[X_FORWARDED_CLIENT_CERT], element);
    }

    #[test]
    fn without_mutual_tls_the_header_goes() {
        for (tls, mode) in [
            (None, ForwardClientCert::AppendForward),
            (Some(secured(false)), ForwardClientCert::ForwardOnly),
            (Some(secured(true)), ForwardClientCert::Sanitize),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_CLIENT_CERT, HeaderValue::from_static("By=me"));
            apply(
                &mut headers,
                tls.as_ref(),
                mode,
                ClientCertDetails::default(),
            );
            assert!(!headers.contains_key(X_FORWARDED_CLIENT_CERT), "{mode:?}");
        }
    }
}
