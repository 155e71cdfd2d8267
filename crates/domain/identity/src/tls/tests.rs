use std::{
    io::{Read, Write},
    time::{Duration, SystemTime},
};

use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::*;

const WEB: &str = "spiffe://cluster.local/ns/default/sa/web";
const API: &str = "spiffe://cluster.local/ns/default/sa/api";
const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> CertificateAuthority {
    CertificateAuthority::self_signed(&TrustDomain::default(), SystemTime::now()).unwrap()
}

fn handle(authority: &CertificateAuthority, id: &str) -> IdentityHandle {
    let id = SpiffeId::parse(id).unwrap();
    IdentityHandle::with(
        authority
            .issue_workload(&id, HOUR, SystemTime::now())
            .unwrap(),
    )
}

fn alpn(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|n| n.as_bytes().to_vec()).collect()
}

fn inbound(identity: &IdentityHandle) -> ServerTls {
    let names = vec![SanMatcher::uri_prefix("spiffe://cluster.local/")];
    ServerTls::workload(
        identity.clone(),
        names,
        alpn(&["istio-peer-exchange", "h2", "http/1.1"]),
    )
}

fn outbound(identity: &IdentityHandle, expected: &str) -> ClientTls {
    let sni = Some("outbound_.80_._.api.default.svc.cluster.local".to_owned());
    ClientTls::workload(
        identity.clone(),
        vec![SanMatcher::uri_exact(expected)],
        sni,
        alpn(&["istio", "h2"]),
    )
}

struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

/// Moves bytes until both sides are quiet; the first error of either side ends it.
fn handshake(
    client: &ClientConfig,
    server: &Arc<rustls::ServerConfig>,
) -> Result<Pair, rustls::Error> {
    let client = ClientConnection::new(client.rustls.clone(), client.server_name.clone())?;
    let server = ServerConnection::new(server.clone())?;
    let mut pair = Pair { client, server };
    pair.pump()?;
    pair.server.writer().write_all(b"hi").unwrap();
    pair.pump()?;
    let mut two = [0; 2];
    pair.client.reader().read_exact(&mut two).unwrap();
    Ok(pair)
}

impl Pair {
    fn pump(&mut self) -> Result<(), rustls::Error> {
        loop {
            let mut moved = false;
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                moved = true;
                self.server.read_tls(&mut rest).unwrap();
                self.server.process_new_packets()?;
            }
            bytes.clear();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                moved = true;
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets()?;
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

fn peer_id(connection: &rustls::CommonState) -> String {
    ConnectionInfo::of(connection)
        .peer
        .unwrap()
        .spiffe_id()
        .unwrap()
        .to_string()
}

#[test]
fn mutual_tls_shows_each_side_the_other() {
    let ca = authority();
    let (web, api) = (handle(&ca, WEB), handle(&ca, API));
    let server = server_config(&inbound(&api)).unwrap();
    let client = client_config(&outbound(&web, API)).unwrap();
    let pair = handshake(&client, &server).unwrap();
    assert_eq!(peer_id(&pair.server), WEB);
    assert_eq!(peer_id(&pair.client), API);
    let info = ConnectionInfo::of(&pair.server);
    assert_eq!(info.version, "TLSv1.3");
    assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
    assert_eq!(info.alpn.as_deref(), Some(&b"h2"[..]));
    let peer = info.peer.unwrap();
    assert_eq!(peer.sha256.len(), 64);
    assert_eq!(
        (peer.subject.as_str(), peer.issuer.as_str()),
        ("", "O=cluster.local")
    );
    assert!(peer.pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(
        pair.server.server_name(),
        Some("outbound_.80_._.api.default.svc.cluster.local")
    );
}

#[test]
fn resumption_keeps_the_peer_and_ends_with_a_new_identity() {
    for maximum in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let ca = authority();
        let (web, api) = (handle(&ca, WEB), handle(&ca, API));
        let server = server_config(&inbound(&api)).unwrap();
        let mut tls = outbound(&web, API);
        tls.settings.maximum = maximum;
        let client = client_config(&tls).unwrap();
        assert!(!ConnectionInfo::of(&handshake(&client, &server).unwrap().server).resumed);
        let second = handshake(&client, &server).unwrap();
        assert!(ConnectionInfo::of(&second.server).resumed, "{maximum:?}");
        assert_eq!(
            (peer_id(&second.server), peer_id(&second.client)),
            (WEB.into(), API.into())
        );

        let renewed = ca
            .issue_workload(&SpiffeId::parse(API).unwrap(), HOUR, SystemTime::now())
            .unwrap();
        let serial = renewed.certificate().leaf().serial.clone();
        api.publish(renewed);
        let third = handshake(&client, &server).unwrap();
        assert!(!ConnectionInfo::of(&third.server).resumed);
        assert_eq!(
            ConnectionInfo::of(&third.client).peer.unwrap().serial,
            serial
        );
        assert!(ConnectionInfo::of(&handshake(&client, &server).unwrap().server).resumed);

        web.publish(
            ca.issue_workload(&SpiffeId::parse(WEB).unwrap(), HOUR, SystemTime::now())
                .unwrap(),
        );
        assert!(!ConnectionInfo::of(&handshake(&client, &server).unwrap().client).resumed);
    }
}

#[test]
fn a_replaced_trust_bundle_refuses_peers_of_the_old_root() {
    let (old, new) = (authority(), authority());
    let (web, api) = (handle(&old, WEB), handle(&old, API));
    let server = server_config(&inbound(&api)).unwrap();
    let client = client_config(&outbound(&web, API)).unwrap();
    handshake(&client, &server).unwrap();
    handshake(&client, &server).unwrap();
    api.publish(
        new.issue_workload(&SpiffeId::parse(API).unwrap(), HOUR, SystemTime::now())
            .unwrap(),
    );
    assert!(handshake(&client, &server).is_err());
    let both = new.bundle().union(old.bundle());
    assert_eq!(both.len(), 2);
}

#[test]
fn the_wrong_server_is_refused() {
    let ca = authority();
    let (web, api) = (handle(&ca, WEB), handle(&ca, API));
    let server = server_config(&inbound(&api)).unwrap();
    let refused = |tls: ClientTls| handshake(&client_config(&tls).unwrap(), &server).is_err();
    assert!(refused(outbound(&web, WEB)));
    assert!(refused(outbound(&handle(&authority(), WEB), API)));
    let mut by_prefix = outbound(&web, API);
    by_prefix.validation.names = vec![SanMatcher::uri_prefix("spiffe://other.domain/")];
    assert!(refused(by_prefix.clone()));
    by_prefix
        .validation
        .names
        .push(SanMatcher::uri_prefix("spiffe://cluster.local/"));
    assert!(!refused(by_prefix.clone()));
    by_prefix.validation.names = vec![SanMatcher::new(
        SanKind::Uri,
        SanPattern::Suffix("/sa/api".into()),
    )];
    assert!(!refused(by_prefix.clone()));
    by_prefix.validation.names = vec![SanMatcher::new(
        SanKind::Uri,
        SanPattern::Regex(SanRegex::parse("spiffe://[a-z.]+/ns/.*").unwrap()),
    )];
    assert!(!refused(by_prefix));
}

#[test]
fn clients_without_or_with_a_foreign_certificate_are_refused() {
    let ca = authority();
    let api = handle(&ca, API);
    let server = server_config(&inbound(&api)).unwrap();
    let mut bare = outbound(&api, API);
    bare.presented = None;
    assert!(handshake(&client_config(&bare).unwrap(), &server).is_err());
    let mut foreign = outbound(&handle(&authority(), WEB), API);
    foreign.validation = PeerValidation::workload(api.clone(), vec![]);
    assert!(handshake(&client_config(&foreign).unwrap(), &server).is_err());
    let elsewhere = "spiffe://elsewhere/ns/default/sa/web";
    let mut other_domain = outbound(&handle(&ca, elsewhere), API);
    assert!(handshake(&client_config(&other_domain).unwrap(), &server).is_err());
    let mut aliased = inbound(&api);
    if let ClientAuth::Required(validation) = &mut aliased.client_auth {
        validation
            .names
            .push(SanMatcher::uri_prefix("spiffe://elsewhere/"));
    }
    other_domain.resumption = false;
    let pair = handshake(
        &client_config(&other_domain).unwrap(),
        &server_config(&aliased).unwrap(),
    )
    .unwrap();
    assert_eq!(peer_id(&pair.server), elsewhere);
}

#[test]
fn expired_certificates_are_refused_on_both_sides() {
    let past = SystemTime::now() - 48 * HOUR;
    let ca = CertificateAuthority::self_signed(&TrustDomain::default(), past).unwrap();
    let expired = |id| {
        IdentityHandle::with(
            ca.issue_workload(&SpiffeId::parse(id).unwrap(), HOUR, past)
                .unwrap(),
        )
    };
    let try_with = |web: &IdentityHandle, api: &IdentityHandle| {
        handshake(
            &client_config(&outbound(web, API)).unwrap(),
            &server_config(&inbound(api)).unwrap(),
        )
        .is_ok()
    };
    let (web, api) = (handle(&ca, WEB), handle(&ca, API));
    assert!(try_with(&web, &api));
    assert!(!try_with(&expired(WEB), &api));
    assert!(!try_with(&web, &expired(API)));
    let leaf = expired(WEB).load().unwrap().certificate().leaf().clone();
    assert!(!leaf.is_valid_at(SystemTime::now()) && leaf.is_valid_at(past));
}

#[test]
fn without_an_identity_nothing_is_accepted_and_a_late_one_is_used() {
    let ca = authority();
    let (web, api) = (handle(&ca, WEB), IdentityHandle::new());
    let server = server_config(&inbound(&api)).unwrap();
    let client = client_config(&outbound(&web, API)).unwrap();
    assert!(handshake(&client, &server).is_err());
    api.publish(
        ca.issue_workload(&SpiffeId::parse(API).unwrap(), HOUR, SystemTime::now())
            .unwrap(),
    );
    assert!(handshake(&client, &server).is_ok());
}

fn gateway(
    ca: &CertificateAuthority,
    names: &[&[&str]],
    client_auth: ClientAuth,
) -> Arc<rustls::ServerConfig> {
    let certificates: Vec<TlsCertificate> = names
        .iter()
        .map(|n| ca.issue_server(n, HOUR, SystemTime::now()).unwrap())
        .collect();
    let tls = ServerTls {
        presented: Presented::Fixed(certificates.into()),
        client_auth,
        alpn: alpn(&["h2", "http/1.1"]),
        settings: TlsSettings::default(),
        resumption: true,
    };
    server_config(&tls).unwrap()
}

/// What `openssl req -x509` makes: it may sign, and is signed by itself.
fn self_made(name: &str, until: SystemTime) -> TlsCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = (until - 2 * HOUR).into();
    params.not_after = until.into();
    let pem = params.self_signed(&key).unwrap().pem();
    TlsCertificate::from_pem(&pem, &key.serialize_pem()).unwrap()
}

#[test]
fn a_self_made_certificate_that_is_among_the_roots_is_taken() {
    let ca = authority();
    let now = SystemTime::now();
    let (own, other) = (self_made("me", now + HOUR), self_made("me", now + HOUR));
    let old = self_made("me", now - HOUR / 2);
    let roots = format!("{}{}", own.chain().to_pem(), old.chain().to_pem());
    let validation = PeerValidation {
        match_server_name: false,
        ..PeerValidation::web(TrustBundle::from_pem(&roots).unwrap())
    };
    let server = gateway(&ca, &[&["a.example"]], ClientAuth::Required(validation));
    let shakes = |certificate: &TlsCertificate| {
        let tls = ClientTls {
            presented: Some(Presented::Fixed([certificate.clone()].into())),
            ..browser(&ca, "a.example")
        };
        handshake(&client_config(&tls).unwrap(), &server).is_ok()
    };
    assert!(shakes(&own));
    assert!(!shakes(&other), "another of the same name");
    assert!(!shakes(&old), "one whose time is over");
}

fn browser(ca: &CertificateAuthority, host: &str) -> ClientTls {
    ClientTls {
        presented: None,
        validation: PeerValidation::web(ca.bundle().clone()),
        sni: Some(host.into()),
        alpn: alpn(&["http/1.1"]),
        settings: TlsSettings::default(),
        resumption: false,
    }
}

#[test]
fn a_gateway_chooses_by_sni_and_a_client_checks_the_name() {
    let ca = authority();
    let server = gateway(&ca, &[&["a.example"], &["*.b.example"]], ClientAuth::None);
    let names = |host: &str| {
        let pair = handshake(&client_config(&browser(&ca, host)).unwrap(), &server)?;
        Ok::<_, rustls::Error>(
            ConnectionInfo::of(&pair.client)
                .peer
                .unwrap()
                .dns_sans
                .clone(),
        )
    };
    assert_eq!(names("a.example").unwrap(), ["a.example"]);
    assert_eq!(names("x.b.example").unwrap(), ["*.b.example"]);
    assert!(names("x.y.b.example").is_err());
    assert!(names("b.example").is_err());
    let mut skip = browser(&ca, "whatever.example");
    skip.validation = PeerValidation::unverified();
    assert!(handshake(&client_config(&skip).unwrap(), &server).is_ok());
}

#[test]
fn mutual_and_optional_mutual_gateways() {
    let (ca, clients) = (authority(), authority());
    let validation = PeerValidation {
        match_server_name: false,
        ..PeerValidation::web(clients.bundle().clone())
    };
    let required = gateway(
        &ca,
        &[&["a.example"]],
        ClientAuth::Required(validation.clone()),
    );
    let optional = gateway(&ca, &[&["a.example"]], ClientAuth::Optional(validation));
    let with = |authority: &CertificateAuthority| {
        let own = authority
            .issue_server(&["client.example"], HOUR, SystemTime::now())
            .unwrap();
        let tls = ClientTls {
            presented: Some(Presented::Fixed([own].into())),
            ..browser(&ca, "a.example")
        };
        client_config(&tls).unwrap()
    };
    let without = client_config(&browser(&ca, "a.example")).unwrap();
    assert!(handshake(&without, &required).is_err());
    assert!(handshake(&with(&ca), &required).is_err());
    assert!(handshake(&with(&clients), &required).is_ok());
    assert!(
        ConnectionInfo::of(&handshake(&without, &optional).unwrap().server)
            .peer
            .is_none()
    );
    assert!(handshake(&with(&ca), &optional).is_err());
    assert!(
        ConnectionInfo::of(&handshake(&with(&clients), &optional).unwrap().server)
            .peer
            .is_some()
    );
}

#[test]
fn versions_and_ciphers_follow_the_settings() {
    let ca = authority();
    let mut tls = browser(&ca, "a.example");
    let (ciphers, unsupported) = CipherSuites::parse(&[
        "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
        "AES128-SHA",
    ])
    .unwrap();
    assert_eq!(unsupported, ["AES128-SHA"]);
    tls.settings = TlsSettings {
        maximum: TlsVersion::V1_2,
        ciphers,
        ..TlsSettings::default()
    };
    let server = gateway(&ca, &[&["a.example"]], ClientAuth::None);
    let info = ConnectionInfo::of(
        &handshake(&client_config(&tls).unwrap(), &server)
            .unwrap()
            .server,
    );
    assert_eq!(
        (info.version, info.cipher),
        ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
    );
    assert!(CipherSuites::parse(&["AES128-SHA"]).is_err());
    let (curves, unknown) = Curves::parse(&["P-256", "P-521"]).unwrap();
    assert_eq!(unknown, ["P-521"]);
    tls.settings = TlsSettings {
        minimum: TlsVersion::V1_3,
        curves,
        ..TlsSettings::default()
    };
    assert!(handshake(&client_config(&tls).unwrap(), &server).is_ok());
    tls.settings.maximum = TlsVersion::V1_2;
    assert!(client_config(&tls).is_err());
}

#[test]
fn a_client_hello_is_read_at_any_cut() {
    let ca = authority();
    let client = client_config(&outbound(&handle(&ca, WEB), API)).unwrap();
    let mut connection = ClientConnection::new(client.rustls, client.server_name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    for cut in 0..bytes.len() {
        assert_eq!(
            peek_client_hello(&bytes[..cut]),
            HelloPeek::Incomplete,
            "{cut}"
        );
    }
    let hello = ClientHello {
        sni: Some("outbound_.80_._.api.default.svc.cluster.local".into()),
        alpn: alpn(&["istio", "h2"]),
    };
    assert_eq!(peek_client_hello(&bytes), HelloPeek::Hello(hello.clone()));
    bytes.extend_from_slice(b"more bytes that came along");
    assert_eq!(peek_client_hello(&bytes), HelloPeek::Hello(hello));
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"\x16\x02",
        b"\x16\x03\x01\x00\x05\x02",
        &[0; 32],
    ] {
        assert_eq!(peek_client_hello(other), HelloPeek::NotTls);
    }
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x7f, 0xff][..], &[0; 20_000]].concat();
    assert_eq!(peek_client_hello(&endless), HelloPeek::NotTls);
}

#[test]
fn a_certificate_with_two_uri_names_is_no_workload() {
    let ca = authority();
    let files = ca.to_pem();
    let issuer_key = PrivateKey::from_pem(&files.ca_key).unwrap();
    let issuer =
        rcgen::Issuer::from_ca_cert_pem(&files.ca_cert, issuer_key.pair().unwrap()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = [WEB, API]
        .map(|id| rcgen::SanType::URI(id.try_into().unwrap()))
        .to_vec();
    let leaf = params
        .signed_by(&key.pair().unwrap(), &issuer)
        .unwrap()
        .pem();
    let chain = CertificateChain::from_pem(&leaf).unwrap();
    let two =
        TlsCertificate::new(PrivateKey::from_pem(&key.to_pem()).unwrap(), chain.clone()).unwrap();
    assert!(WorkloadIdentity::new(key, chain, ca.bundle().clone()).is_err());
    let api = handle(&ca, API);
    let mut tls = outbound(&api, API);
    tls.presented = Some(Presented::Fixed([two].into()));
    assert!(
        handshake(
            &client_config(&tls).unwrap(),
            &server_config(&inbound(&api)).unwrap()
        )
        .is_err()
    );
}
