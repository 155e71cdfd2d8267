//! What a proxy with a view's whole configuration decides.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_model::Snapshot;
use proxy::{
    chain::{ConnectionFacts, match_chain},
    filters::rbac,
    route::{LiveRouteTable, RouteFacts, match_route},
};
use proxy_config::{
    FilterChain, HttpConnectionManager, Listener, RouteTable,
    cluster::Discovery,
    endpoint::EndpointAddress,
    filter::{HttpFilterKind, NetworkFilter},
    http_connection_manager::RouteSource,
    listener::{ListenAddress, Terminal},
    matcher::HeaderView,
    metadata::Metadata,
    route::{Forward, RequireTls, RouteAction, Target},
};
use telemetry::record::TlsInfo;
use xds_decode::{Decoder, Resource};
use xds_encode::{Client, View, clusters, endpoints, listeners, packed, routes};

use crate::question::{Question, Towards};

/// Where captured inbound connections come in.
const INBOUND_PORT: u16 = 15006;
/// Where captured outbound connections come in that no other listener takes.
const OUTBOUND_PORT: u16 = 15001;

/// A proxy's configuration, decoded.
pub struct Proxy {
    view: View,
    own: SocketAddr,
    listeners: Vec<Listener>,
    /// Cluster → its endpoints, where they are sent.
    clusters: BTreeMap<String, Option<Vec<String>>>,
}

fn decode(resource: &wire_envoy::pb::Any) -> Resource {
    Decoder::default()
        .decode(resource)
        .unwrap_or_else(|reject| panic!("our own decoder refuses it: {reject}"))
}

impl Proxy {
    pub fn new(snapshot: &Snapshot, client: &Arc<Client>) -> Self {
        let view = View::new(snapshot, client);
        let listeners = listeners(&view.listener_inputs())
            .iter()
            .filter_map(|listener| match decode(&packed(listener)) {
                Resource::Listener(listener) => Some(listener),
                _ => None,
            })
            .collect();
        let clusters = clusters(&view.cluster_inputs())
            .iter()
            .map(|cluster| {
                let Resource::Cluster(decoded) = decode(&packed(cluster)) else {
                    unreachable!("a cluster decodes to a cluster");
                };
                let sent = match decoded.discovery {
                    Discovery::Eds { .. } => view.endpoint_inputs(&cluster.name),
                    _ => None,
                };
                let addresses = sent.map(|inputs| match decode(&packed(&endpoints(&inputs))) {
                    Resource::Endpoints(sent) => addresses(&sent),
                    _ => Vec::new(),
                });
                (cluster.name.clone(), addresses)
            })
            .collect();
        Self {
            view,
            own: SocketAddr::new(client.address(), 0),
            listeners,
            clusters,
        }
    }

    pub fn answer(&self, question: &Question) -> String {
        let facts = self.facts(question);
        let Some(listener) = self.listener(question, facts.destination) else {
            return "no listener".into();
        };
        let chain = match_chain(&listener.chains, &facts)
            .and_then(|at| listener.chains.get(at))
            .or(listener.default_chain.as_ref());
        let Some(chain) = chain else {
            return format!("{}: no chain", listener.name.as_str());
        };
        let mut answer = match &chain.tls {
            Some(tls) if tls.require_client_certificate => "mTLS, ".to_owned(),
            Some(_) => "TLS, ".to_owned(),
            None => String::new(),
        };
        answer += &match &chain.terminal {
            _ if self.denies_connection(chain, question, &facts).is_some() => self
                .denies_connection(chain, question, &facts)
                .unwrap_or_default(),
            Terminal::Http(http) => self.request(http, question, &facts),
            Terminal::Tcp(tcp) => {
                let names: Vec<String> = tcp
                    .proxy
                    .clusters
                    .iter()
                    .map(|c| self.cluster(c.name.as_str()))
                    .collect();
                format!("TCP to {}", names.join(" or "))
            }
            Terminal::Close => "closed".into(),
        };
        answer
    }

    /// What the kernel and the inspectors would find out about the connection.
    fn facts(&self, question: &Question) -> ConnectionFacts {
        let destination = match question.towards {
            Towards::Out(address) => address,
            Towards::In(port) => SocketAddr::new(self.own.ip(), port),
        };
        let mesh_tls = question.from.is_some();
        let client = match question.towards {
            Towards::Out(_) => self.own.ip(),
            Towards::In(_) => IpAddr::from([10, 9, 9, 9]),
        };
        let offered: &[&str] = match (mesh_tls, &question.sni, question.is_http()) {
            (true, ..) if question.is_http() => &["istio", "istio-peer-exchange", "istio-http/1.1"],
            (true, ..) => &["istio-peer-exchange", "istio"],
            (false, Some(_), _) => &["h2", "http/1.1"],
            (false, None, true) => &["http/1.1"],
            (false, None, false) => &[],
        };
        ConnectionFacts {
            destination,
            source: SocketAddr::new(client, 40_000),
            direct_source: SocketAddr::new(client, 40_000),
            server_name: question.sni.as_deref().map(Arc::from),
            is_tls: mesh_tls || question.sni.is_some(),
            application_protocols: offered.iter().map(|name| Arc::from(*name)).collect(),
        }
    }

    /// As capture and `use_original_dst` choose it.
    fn listener(&self, question: &Question, destination: SocketAddr) -> Option<&Listener> {
        let at = |wanted: SocketAddr| {
            self.listeners
                .iter()
                .find(|listener| listener.addresses.contains(&ListenAddress::Socket(wanted)))
        };
        let any = |port: u16| at(SocketAddr::from(([0, 0, 0, 0], port)));
        match question.towards {
            Towards::In(_) => any(INBOUND_PORT),
            Towards::Out(_) => at(destination)
                .or_else(|| any(destination.port()))
                .or_else(|| any(OUTBOUND_PORT)),
        }
    }

    fn request(
        &self,
        http: &HttpConnectionManager,
        question: &Question,
        facts: &ConnectionFacts,
    ) -> String {
        let table = match &http.routes {
            RouteSource::Inline(table) => Some(table.clone()),
            RouteSource::Named(name) => self.table(name.as_str()),
        };
        let Some(table) = table else {
            return "no route table".into();
        };
        let head = head(question);
        let tls = tls(question);
        let metadata = Metadata::default();
        let rbac_facts = rbac::Facts {
            head: Some(head),
            connection: facts,
            remote: facts.source.ip(),
            tls: tls.as_ref(),
            metadata: &metadata,
        };
        // A route is chosen before the filters run, but a denial answers first.
        for filter in http.filters.iter() {
            if let HttpFilterKind::Rbac(config) = &filter.kind
                && let Some(denied) = denial(config, &rbac_facts)
            {
                return format!("403 {denied}");
            }
        }
        let facts = RouteFacts {
            head,
            metadata: &metadata,
            is_connect: false,
            is_grpc: false,
            certificate: (tls.is_some(), tls.is_some()),
            random: 0,
        };
        match match_route(&LiveRouteTable::new(table), &facts) {
            None => "404 no route".into(),
            Some(matched) if matched.virtual_host.require_tls != RequireTls::No => {
                "301 to https".into()
            }
            Some(matched) => match &matched.route.action {
                RouteAction::Forward(rules) => self.forward(rules),
                RouteAction::Redirect(rules) => format!("redirect {}", rules.status.as_u16()),
                RouteAction::DirectResponse { status, .. } => {
                    format!("answers {}", status.as_u16())
                }
                RouteAction::NonForwarding => "404 no action".into(),
                RouteAction::Refused(refused) => format!("503 refused {}", refused.name),
            },
        }
    }

    fn table(&self, name: &str) -> Option<Arc<RouteTable>> {
        let table = routes(&self.view.route_inputs(name)?);
        match decode(&packed(&table)) {
            Resource::Routes(table) => Some(Arc::new(table)),
            _ => None,
        }
    }

    fn forward(&self, rules: &Forward) -> String {
        let mut text = self.target(&rules.target);
        if let Some(timeout) = rules.timeout {
            let _ = write!(text, ", timeout {timeout:?}");
        }
        if let Some(retry) = &rules.retry {
            let _ = write!(text, ", {} retries", retry.num_retries);
        }
        for mirror in rules.mirrors.iter() {
            let _ = write!(text, ", mirrored to {}", self.target(&mirror.target));
        }
        text
    }

    fn target(&self, target: &Target) -> String {
        match target {
            Target::Cluster(name) => self.cluster(name.as_str()),
            Target::ClusterHeader(header) => format!("the cluster that {header} names"),
            Target::Weighted { clusters, .. } => clusters
                .iter()
                .map(|c| format!("{}% {}", c.weight, self.cluster(c.name.as_str())))
                .collect::<Vec<_>>()
                .join(" + "),
        }
    }

    /// A cluster with what is behind it.
    fn cluster(&self, name: &str) -> String {
        match self.clusters.get(name) {
            None => format!("{name} (no such cluster)"),
            Some(None) => name.to_owned(),
            Some(Some(endpoints)) => format!("{name} [{}]", endpoints.join(" ")),
        }
    }

    fn denies_connection(
        &self,
        chain: &FilterChain,
        question: &Question,
        facts: &ConnectionFacts,
    ) -> Option<String> {
        let tls = tls(question);
        let metadata = Metadata::default();
        let facts = rbac::Facts {
            head: None,
            connection: facts,
            remote: facts.source.ip(),
            tls: tls.as_ref(),
            metadata: &metadata,
        };
        chain
            .network_filters
            .iter()
            .find_map(|filter| match filter {
                NetworkFilter::Rbac(config) => {
                    denial(config, &facts).map(|denied| format!("closed {denied}"))
                }
                _ => None,
            })
    }
}

fn head(question: &Question) -> HeaderView<'_> {
    HeaderView {
        headers: &question.headers,
        authority: &question.host,
        method: &question.method,
        path: &question.path,
        scheme: "http",
        protocol: "",
        status: None,
    }
}

fn tls(question: &Question) -> Option<TlsInfo> {
    let (namespace, account) = question.from.as_deref()?.split_once('/')?;
    let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
    Some(TlsInfo {
        peer_uri_sans: vec![id.into()],
        mutual: true,
        ..TlsInfo::default()
    })
}

fn denial(config: &proxy_config::filter::rbac::Rbac, facts: &rbac::Facts<'_>) -> Option<String> {
    let decision = rbac::decide(config.rules.as_ref()?, facts);
    (!decision.allowed).then(|| match decision.policy {
        Some(policy) => format!("by {policy}"),
        None => "as no policy allows it".into(),
    })
}

fn addresses(sent: &proxy_config::Endpoints) -> Vec<String> {
    let hosts = sent.localities.iter().flat_map(|l| l.endpoints.iter());
    hosts
        .map(|host| match &host.address {
            EndpointAddress::Socket(address) => address.to_string(),
            EndpointAddress::Pipe(path) => path.to_string(),
        })
        .collect()
}
