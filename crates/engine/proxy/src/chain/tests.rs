//! One table of chains, many connections: which chain takes each.

use super::*;

fn chain(name: &str, change: impl FnOnce(&mut ChainMatch)) -> Arc<FilterChain> {
    let mut matches = ChainMatch::default();
    change(&mut matches);
    Arc::new(FilterChain {
        name: name.into(),
        matches,
        tls: None,
        transport_socket_connect_timeout: None,
        network_filters: Arc::from([]),
        terminal: proxy_config::listener::Terminal::Close,
        metadata: proxy_config::metadata::Metadata::default(),
    })
}

fn strings(texts: &[&str]) -> Arc<[Arc<str>]> {
    texts.iter().map(|text| Arc::from(*text)).collect()
}

fn nets(texts: &[&str]) -> Arc<[IpNet]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// `destination source tls sni alpn,…`, `-` for none.
fn facts(text: &str) -> ConnectionFacts {
    let words: Vec<&str> = text.split(' ').collect();
    let given = |at: usize| words.get(at).copied().filter(|word| *word != "-");
    let source = given(1).unwrap_or("10.9.9.9:999").parse().unwrap();
    ConnectionFacts {
        destination: words[0].parse().unwrap(),
        source,
        direct_source: source,
        is_tls: given(2) == Some("tls"),
        server_name: given(3).map(Arc::from),
        application_protocols: given(4)
            .map(|list| list.split(',').map(Arc::from).collect())
            .unwrap_or_default(),
    }
}

fn check(chains: &[Arc<FilterChain>], table: &[(&str, &str)]) {
    for (connection, expected) in table {
        let found = match_chain(chains, &facts(connection)).map_or("none", |at| &chains[at].name);
        assert_eq!(found, *expected, "{connection}");
        let mut reversed: Vec<_> = chains.to_vec();
        reversed.reverse();
        let found =
            match_chain(&reversed, &facts(connection)).map_or("none", |at| &reversed[at].name);
        assert_eq!(found, *expected, "{connection}, chains in reverse");
    }
}

#[test]
fn istios_permissive_inbound_listener() {
    let istio_http = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
    let chains = [
        chain("blackhole", |m| m.destination_port = Some(15006)),
        chain("mtls-http", |m| {
            m.transport_protocol = TransportProtocol::Tls;
            m.application_protocols = strings(istio_http);
        }),
        chain("plain-http", |m| {
            m.transport_protocol = TransportProtocol::RawBuffer;
            m.application_protocols = strings(&["http/1.1", "h2c"]);
        }),
        chain("mtls-tcp", |m| {
            m.transport_protocol = TransportProtocol::Tls;
            m.application_protocols = strings(&["istio-peer-exchange", "istio"]);
        }),
        chain("plain-tcp", |m| {
            m.transport_protocol = TransportProtocol::RawBuffer
        }),
        chain("tls-through", |m| {
            m.transport_protocol = TransportProtocol::Tls
        }),
        chain("9080-mtls", |m| {
            m.destination_port = Some(9080);
            m.transport_protocol = TransportProtocol::Tls;
            m.application_protocols =
                strings(&["istio", "istio-peer-exchange", "istio-http/1.1", "istio-h2"]);
        }),
        chain("9080-plain", |m| {
            m.destination_port = Some(9080);
            m.transport_protocol = TransportProtocol::RawBuffer;
        }),
    ];
    check(
        &chains,
        &[
            ("10.0.0.1:15006", "blackhole"),
            ("10.0.0.1:80 - plain - http/1.1", "plain-http"),
            ("10.0.0.1:80", "plain-tcp"),
            (
                "10.0.0.1:80 - tls outbound_.80_._.a istio-http/1.1,istio,http/1.1",
                "mtls-http",
            ),
            ("10.0.0.1:80 - tls a istio-peer-exchange,istio", "mtls-tcp"),
            ("10.0.0.1:80 - tls a h2,http/1.1", "tls-through"),
            ("10.0.0.1:9080 - tls a istio-h2,istio,h2", "9080-mtls"),
            ("10.0.0.1:9080 - plain - http/1.1", "9080-plain"),
            // Once a port is named, chains without one are not looked at.
            ("10.0.0.1:9080 - tls a h2", "none"),
        ],
    );
}

#[test]
fn the_most_specific_wins_at_each_criterion_and_there_is_no_way_back() {
    let chains = [
        chain("any", |_| ()),
        chain("/8", |m| m.destination_prefixes = nets(&["10.0.0.0/8"])),
        chain("/24", |m| {
            m.destination_prefixes = nets(&["10.1.1.0/24", "10.2.2.0/24"])
        }),
        chain("exact-name", |m| m.server_names = strings(&["a.b.test"])),
        chain("wild", |m| m.server_names = strings(&["*.test"])),
        chain("wilder", |m| m.server_names = strings(&["*.b.test"])),
    ];
    check(
        &chains,
        &[
            ("10.5.5.5:1", "/8"),
            ("10.2.2.5:1", "/24"),
            ("11.0.0.1:1", "any"),
            ("11.0.0.1:1 - tls a.b.test", "exact-name"),
            ("11.0.0.1:1 - tls c.b.test", "wilder"),
            ("11.0.0.1:1 - tls b.test", "wild"),
            ("11.0.0.1:1 - tls other", "any"),
            // The destination is looked at before the name.
            ("10.5.5.5:1 - tls a.b.test", "/8"),
        ],
    );
}

#[test]
fn sources_come_last() {
    let chains = [
        chain("any", |_| ()),
        chain("local", |m| m.source_type = SourceType::SameIpOrLoopback),
        chain("net", |m| m.source_prefixes = nets(&["10.7.0.0/16"])),
        chain("port", |m| {
            m.source_prefixes = nets(&["10.7.0.0/16"]);
            m.source_ports = Arc::from([77]);
        }),
    ];
    check(
        &chains,
        &[
            ("10.0.0.1:1 127.0.0.1:9", "local"),
            ("10.0.0.1:1 10.0.0.1:9", "local"),
            ("10.0.0.1:1 10.7.1.1:9", "net"),
            ("10.0.0.1:1 10.7.1.1:77", "port"),
            ("10.0.0.1:1 10.8.1.1:77", "any"),
        ],
    );
    assert_eq!(match_chain(&[], &facts("10.0.0.1:1")), None);
}
