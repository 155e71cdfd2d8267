//! What a certificate and a finished handshake say, in the forms that access logs, headers and
//! metrics want.
//!
//! Subject and issuer are written as RFC 2253 (last attribute first), serial and SHA-256 in
//! lower-case hexadecimal: Envoy's forms.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{CommonState, HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate, X509Name};

use crate::{CertificateChain, IdentityError, SpiffeId, pem::encode};

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCertificate {
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub email_sans: Vec<String>,
    pub ip_sans: Vec<IpAddr>,
    /// RFC 2253; empty for a workload's certificate.
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    /// SHA-256 of the DER bytes, in hexadecimal.
    pub sha256: String,
    /// SHA-1 of the DER bytes, in hexadecimal (`%DOWNSTREAM_PEER_FINGERPRINT_1%`).
    pub sha1: String,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub pem: String,
}

/// What a finished handshake says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionInfo {
    /// The peer's leaf, when it presented one (also after resumption).
    pub peer: Option<Arc<PeerCertificate>>,
    /// Leaf and the rest of the peer's chain.
    pub peer_chain: Option<CertificateChain>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher, as `%DOWNSTREAM_TLS_CIPHER%` prints it.
    pub cipher: &'static str,
    pub alpn: Option<Vec<u8>>,
    /// The key exchange's group, by BoringSSL's name (`X25519`, `P-256`, …); empty when it is not
    /// known, as after a resumption without one.
    pub group: &'static str,
    pub resumed: bool,
}

impl PeerCertificate {
    pub fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        let bad = |why: String| IdentityError::Certificate(why);
        let (rest, x509) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| bad(format!("is not X.509: {e}")))?;
        if !rest.is_empty() {
            return Err(bad("has bytes after its end".into()));
        }
        let mut facts = Self {
            subject: rfc2253(x509.subject()),
            issuer: rfc2253(x509.issuer()),
            serial: serial(x509.raw_serial()),
            sha256: hex(digest(&SHA256, der).as_ref()),
            sha1: hex(digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
            pem: encode("CERTIFICATE", der),
            ..Self::default()
        };
        facts.read_names(&x509);
        Ok(facts)
    }

    fn read_names(&mut self, x509: &X509Certificate<'_>) {
        for extension in x509.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
            else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::URI(uri) => self.uri_sans.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => self.dns_sans.push((*dns).to_owned()),
                    GeneralName::RFC822Name(email) => self.email_sans.push((*email).to_owned()),
                    GeneralName::IPAddress(bytes) => self.ip_sans.extend(ip(bytes)),
                    _ => {}
                }
            }
        }
    }

    /// The first URI name that is a SPIFFE id.
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.uri_sans
            .iter()
            .find_map(|uri| SpiffeId::parse(uri).ok())
    }

    pub fn not_before_time(&self) -> SystemTime {
        time(self.not_before)
    }

    pub fn not_after_time(&self) -> SystemTime {
        time(self.not_after)
    }

    /// Whether `now` is inside the validity. To be asked after a resumed handshake, which does not
    /// verify again.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        self.not_before <= seconds && seconds <= self.not_after
    }

    /// Something a reader recognises: first URI or DNS name, else the subject, else the serial.
    pub fn name(&self) -> String {
        let first = self.uri_sans.first().or(self.dns_sans.first());
        match first {
            Some(name) => name.clone(),
            None if !self.subject.is_empty() => self.subject.clone(),
            None => format!("serial {}", self.serial),
        }
    }
}

impl ConnectionInfo {
    /// Call it when the handshake is complete. Takes what both `ServerConnection` and
    /// `ClientConnection` dereference to (`tokio_rustls::{server,client}::TlsStream::get_ref().1`).
    pub fn of(connection: &CommonState) -> Self {
        let certificates = connection.peer_certificates().filter(|c| !c.is_empty());
        Self {
            peer: certificates
                .and_then(|c| c.first())
                .and_then(|c| PeerCertificate::parse(c).ok())
                .map(Arc::new),
            peer_chain: certificates.and_then(|c| CertificateChain::from_der(owned(c)).ok()),
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .map_or("", |s| crate::tls::openssl_name(s.suite())),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            group: connection
                .negotiated_key_exchange_group()
                .map_or("", |group| group_name(group.name())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// Names as `%DOWNSTREAM_TLS_GROUP%` prints them.
fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}

fn owned(chain: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|c| c.clone().into_owned()).collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Whole bytes, as OpenSSL prints it: a leading zero digit stays, a sign byte does not.
fn serial(raw: &[u8]) -> String {
    match raw.iter().position(|byte| *byte != 0) {
        Some(first) => hex(raw.get(first..).unwrap_or_default()),
        None => "0".into(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    // Four bits are a digit.
    halves
        .filter_map(|half| char::from_digit(u32::from(half), 16))
        .collect()
}

/// RFC 2253: the most specific attribute first, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|a| {
                    let oid = a.attr_type().to_id_string();
                    let key = attribute_name(&oid);
                    format!("{key}={}", escaped(a.as_str().unwrap_or_default()))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute_name(oid: &str) -> &str {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        other => other,
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_whole_bytes() {
        assert_eq!(serial(&[0x06, 0x88]), "0688");
        assert_eq!(serial(&[0x00, 0xf6, 0x00]), "f600");
        assert_eq!(serial(&[0x00]), "0");
    }
}
