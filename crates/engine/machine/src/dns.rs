//! The cluster's DNS server at 10.96.0.10, as CoreDNS answers on Kubernetes.
//!
//! Names under `cluster.local` are answered from Services and EndpointSlices: A, AAAA (no data),
//! SRV, the pods of headless Services, ExternalName as CNAME with what is behind it, reverse names
//! of Service addresses. Hosts of ServiceEntries that were given a virtual address are that address
//! to pods with a sidecar. Everything else goes to the machine's resolvers, through the broker;
//! without any it is refused. One question a message, as everybody asks; UDP answers that do not
//! fit are truncated and asked again over TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::broker::{Broker, HostSocket};
use crate::error::{Context, Result};
use crate::network::DNS_ADDRESS;
use crate::object;
use crate::store::Store;
use crate::store::kinds::{ENDPOINT_SLICES, NAMESPACES, PODS, SERVICE_ENTRIES, SERVICES};
use inject::TEMPLATE_ANNOTATION;

const ZONE: &str = "cluster.local";
/// CoreDNS' time to live for cluster names.
const TTL_SECONDS: u32 = 5;
/// Aliases that are followed from one name.
const MAX_ALIASES: usize = 8;
/// Questions that are answered at the same time.
const MAX_QUESTIONS: usize = 512;
/// Largest UDP answer without EDNS.
const MAX_PLAIN_BYTES: usize = 512;
/// How long a resolver of the machine gets: less than clients wait, so that they get an answer all
/// the same.
const FORWARD_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How long one gets that did not answer the last time.
const SILENT_TIMEOUT: Duration = Duration::from_millis(500);

/// The server.
#[derive(Debug)]
pub struct Dns {
    store: Arc<Store>,
    broker: Arc<Broker>,
    resolvers: Vec<Resolver>,
    limit: Arc<Semaphore>,
}

/// A resolver of the machine.
#[derive(Debug)]
struct Resolver {
    address: SocketAddr,
    /// It did not answer the last question in time.
    silent: AtomicBool,
}

/// What a name is, as far as the cluster knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// It is not the cluster's.
    Elsewhere,
    /// It does not exist.
    Nothing,
    /// It exists, with these records (perhaps none of the asked type).
    Records(Vec<RData>, Vec<(Name, Ipv4Addr)>),
}

impl Dns {
    /// Opens the sockets and serves until the tasks are dropped.
    pub async fn start(
        store: Arc<Store>,
        broker: Arc<Broker>,
        resolvers: Vec<SocketAddr>,
    ) -> Result<()> {
        let dns = Arc::new(Self {
            store,
            broker,
            resolvers: resolvers
                .into_iter()
                .map(|address| Resolver {
                    address,
                    silent: AtomicBool::new(false),
                })
                .collect(),
            limit: Arc::new(Semaphore::new(MAX_QUESTIONS)),
        });
        let udp = UdpSocket::bind((DNS_ADDRESS, 53))
            .await
            .context(|| "open the DNS server's UDP socket".into())?;
        let tcp = TcpListener::bind((DNS_ADDRESS, 53))
            .await
            .context(|| "open the DNS server's TCP socket".into())?;
        // task: the DNS server's UDP side; lives as long as the machine
        tokio::spawn(dns.clone().serve_udp(Arc::new(udp)));
        // task: the DNS server's TCP side; lives as long as the machine
        tokio::spawn(dns.serve_tcp(tcp));
        Ok(())
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut bytes = vec![0_u8; 4_096];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut bytes).await else {
                continue;
            };
            let Ok(permit) = self.limit.clone().acquire_owned().await else {
                return;
            };
            let question = bytes.get(..length).unwrap_or_default().to_vec();
            let (dns, socket) = (self.clone(), socket.clone());
            // task: one question by UDP; holds one of MAX_QUESTIONS places, ends with its answer
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(answer) = dns.answer(&question, peer.ip(), true).await {
                    let _ = socket.send_to(&answer, peer).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = self.limit.clone().acquire_owned().await else {
                return;
            };
            let dns = self.clone();
            // task: one DNS connection by TCP; holds one of MAX_QUESTIONS places, ends after 10 s
            // at the latest
            tokio::spawn(async move {
                let _permit = permit;
                let _ = timeout(Duration::from_secs(10), dns.serve_stream(stream, peer.ip())).await;
            });
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        loop {
            let length = stream.read_u16().await?;
            let mut question = vec![0_u8; usize::from(length)];
            stream.read_exact(&mut question).await?;
            let Some(answer) = self.answer(&question, peer, false).await else {
                return Ok(());
            };
            stream
                .write_u16(u16::try_from(answer.len()).map_err(io::Error::other)?)
                .await?;
            stream.write_all(&answer).await?;
        }
    }

    /// `None` when what came is no question.
    async fn answer(&self, bytes: &[u8], peer: IpAddr, udp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).ok()?;
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let query = question.queries.first()?.clone();
        let found = match lookup(&self.store, query.name()) {
            Found::Elsewhere => outside(&self.store, query.name(), peer),
            found => found,
        };
        if found == Found::Elsewhere {
            return match self.forward(bytes, udp).await {
                Some(answer) => Some(answer),
                None => {
                    let code = if self.resolvers.is_empty() {
                        ResponseCode::Refused
                    } else {
                        ResponseCode::ServFail
                    };
                    reply(&question, code, Vec::new(), Vec::new(), usize::MAX)
                }
            };
        }
        let wanted = query.query_type();
        let (code, mut answers, additional) = records_for(&found, query.name(), wanted);
        if wanted != RecordType::CNAME
            && let Some(target) = alias_in(&answers)
        {
            answers.extend(self.behind(target, wanted).await);
        }
        let room = match (udp, &question.edns) {
            (false, _) => usize::from(u16::MAX),
            (true, Some(edns)) => usize::from(edns.max_payload()).max(MAX_PLAIN_BYTES),
            (true, None) => MAX_PLAIN_BYTES,
        };
        reply(&question, code, answers, additional, room)
    }

    /// The records behind an alias, further aliases included: nobody's resolver asks for them a
    /// second time.
    async fn behind(&self, mut name: Name, wanted: RecordType) -> Vec<Record> {
        let mut answers = Vec::new();
        for _ in 0..MAX_ALIASES {
            let found = lookup(&self.store, &name);
            if found == Found::Elsewhere {
                answers.extend(self.ask(name, wanted).await);
                break;
            }
            let (_, next, _) = records_for(&found, &name, wanted);
            let alias = alias_in(&next);
            answers.extend(next);
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
        answers
    }

    /// Asks the machine's resolvers for a name.
    async fn ask(&self, name: Name, wanted: RecordType) -> Vec<Record> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(name, wanted));
        let Ok(bytes) = question.to_vec() else {
            return Vec::new();
        };
        let answer = self.forward(&bytes, true).await;
        let message = answer.and_then(|bytes| Message::from_vec(&bytes).ok());
        message.map_or_else(Vec::new, |message| message.answers)
    }

    async fn forward(&self, question: &[u8], udp: bool) -> Option<Vec<u8>> {
        for Resolver { address, silent } in &self.resolvers {
            let patience = if silent.load(Ordering::Relaxed) {
                SILENT_TIMEOUT
            } else {
                FORWARD_TIMEOUT
            };
            let attempt = if udp {
                timeout(patience, self.ask_udp(question, *address)).await
            } else {
                timeout(patience, self.ask_tcp(question, *address)).await
            };
            silent.store(attempt.is_err(), Ordering::Relaxed);
            match attempt {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%error, %address, "the resolver did not answer"),
                Err(_) => tracing::debug!(%address, "the resolver did not answer in time"),
            }
        }
        None
    }

    async fn ask_udp(&self, question: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = std::net::UdpSocket::from(
            self.broker
                .open(HostSocket::Datagram { address: resolver })
                .await?,
        );
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        socket.send(question).await?;
        let mut bytes = vec![0_u8; 4_096];
        loop {
            let length = socket.recv(&mut bytes).await?;
            if bytes.get(..2) == question.get(..2) {
                bytes.truncate(length);
                return Ok(bytes);
            }
        }
    }

    async fn ask_tcp(&self, question: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
        let wanted = HostSocket::Connect { address: resolver };
        let mut stream = self.broker.connect(wanted, FORWARD_TIMEOUT).await?;
        stream
            .write_u16(u16::try_from(question.len()).map_err(io::Error::other)?)
            .await?;
        stream.write_all(question).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0_u8; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

/// What the records say that their name is another name for.
fn alias_in(records: &[Record]) -> Option<Name> {
    records.iter().find_map(|record| match &record.data {
        RData::CNAME(CNAME(target)) => Some(target.clone()),
        _ => None,
    })
}

fn reply(
    question: &Message,
    code: ResponseCode,
    answers: Vec<Record>,
    additional: Vec<Record>,
    room: usize,
) -> Option<Vec<u8>> {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = true;
    message.metadata.response_code = code;
    message.add_queries(question.queries.iter().cloned());
    if let Some(edns) = &question.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(edns.max_payload().max(512));
        message.set_edns(own);
    }
    message.add_answers(answers);
    message.add_additionals(additional);
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    message.answers.clear();
    message.additionals.clear();
    message.metadata.truncation = true;
    message.to_vec().ok()
}

fn records_for(
    found: &Found,
    name: &Name,
    wanted: RecordType,
) -> (ResponseCode, Vec<Record>, Vec<Record>) {
    let Found::Records(all, targets) = found else {
        return (ResponseCode::NXDomain, Vec::new(), Vec::new());
    };
    let fits = |data: &&RData| {
        data.record_type() == wanted
            || data.record_type() == RecordType::CNAME
            || wanted == RecordType::ANY
    };
    let mut answers: Vec<Record> = all
        .iter()
        .filter(fits)
        .map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data.clone()))
        .collect();
    // A client that takes the first address gets another one each time.
    fastrand::shuffle(&mut answers);
    let additional = match wanted {
        RecordType::SRV => targets
            .iter()
            .map(|(name, address)| {
                Record::from_rdata(name.clone(), TTL_SECONDS, RData::A(A(*address)))
            })
            .collect(),
        _ => Vec::new(),
    };
    (ResponseCode::NoError, answers, additional)
}

/// What a name is; pure but for reading the store.
fn lookup(store: &Store, name: &Name) -> Found {
    let text = name.to_ascii().to_lowercase();
    let text = text.trim_end_matches('.');
    if let Some(reversed) = text.strip_suffix(".in-addr.arpa") {
        return reverse(store, reversed);
    }
    let Some(inner) = text
        .strip_suffix(ZONE)
        .and_then(|rest| rest.strip_suffix('.').or(rest.is_empty().then_some("")))
    else {
        return Found::Elsewhere;
    };
    let labels: Vec<&str> = inner.split('.').filter(|label| !label.is_empty()).collect();
    match labels.as_slice() {
        [] | ["svc" | "pod"] => empty(),
        [namespace, "svc"] | [namespace, "pod"] => {
            if store.find(&NAMESPACES, "", namespace).is_some() {
                empty()
            } else {
                Found::Nothing
            }
        }
        [address, namespace, "pod"] => match address.replace('-', ".").parse() {
            Ok(address) if store.find(&NAMESPACES, "", namespace).is_some() => {
                Found::Records(vec![RData::A(A(address))], Vec::new())
            }
            _ => Found::Nothing,
        },
        [service, namespace, "svc"] => of_service(store, service, namespace),
        [port, protocol, service, namespace, "svc"]
            if port.starts_with('_') && protocol.starts_with('_') =>
        {
            of_port(
                store,
                (
                    port.trim_start_matches('_'),
                    protocol.trim_start_matches('_'),
                ),
                service,
                namespace,
            )
        }
        [pod, service, namespace, "svc"] => of_pod(store, pod, service, namespace),
        _ => Found::Nothing,
    }
}

/// A host of a ServiceEntry that the control plane gave a virtual address, for pods whose sidecar
/// takes what is sent there. To all others that address would lead nowhere.
fn outside(store: &Store, name: &Name, asker: IpAddr) -> Found {
    let text = name.to_ascii().to_lowercase();
    let host = text.trim_end_matches('.');
    let entries = store.all(&SERVICE_ENTRIES);
    let mut given = entries
        .iter()
        .filter_map(|entry| Some((entry, address_of(entry, host)?)))
        .peekable();
    if given.peek().is_none() {
        return Found::Elsewhere;
    }
    let asker = asker.to_string();
    let pods = store.all(&PODS);
    let pod = pods
        .iter()
        .find(|pod| object::text(pod, "/status/podIP") == asker && sends_all_through_sidecar(pod));
    let Some(namespace) = pod.map(|pod| object::namespace(pod)) else {
        return Found::Elsewhere;
    };
    let seen = given.filter(|(entry, _)| is_exported(entry, namespace));
    // As a proxy chooses: the own namespace's first.
    match seen.min_by_key(|(entry, _)| object::namespace(entry) != namespace) {
        Some((_, address)) => Found::Records(vec![RData::A(A(address))], Vec::new()),
        None => Found::Elsewhere,
    }
}

fn address_of(entry: &Value, host: &str) -> Option<Ipv4Addr> {
    let given = object::list(entry, "/status/addresses")
        .iter()
        .find(|given| object::text(given, "/host") == host)?;
    object::text(given, "/value").parse().ok()
}

fn sends_all_through_sidecar(pod: &Value) -> bool {
    let annotation = |name: &str| {
        let key = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        object::text(pod, &key)
    };
    let ranges = annotation("traffic.sidecar.istio.io/includeOutboundIPRanges");
    annotation(TEMPLATE_ANNOTATION) == "sidecar" && matches!(ranges, "" | "*")
}

fn is_exported(entry: &Value, namespace: &str) -> bool {
    let to = object::list(entry, "/spec/exportTo");
    let includes = |to: &Value| match to.as_str() {
        Some("*") => true,
        Some(".") => object::namespace(entry) == namespace,
        Some(name) => name == namespace,
        None => false,
    };
    to.is_empty() || to.iter().any(includes)
}

fn empty() -> Found {
    Found::Records(Vec::new(), Vec::new())
}

fn reverse(store: &Store, reversed: &str) -> Found {
    let parts: Vec<&str> = reversed.split('.').rev().collect();
    let Ok(address) = parts.join(".").parse::<Ipv4Addr>() else {
        return Found::Elsewhere;
    };
    let [first, second, ..] = address.octets();
    if first != 10 || (second != 96 && second != 244) {
        return Found::Elsewhere;
    }
    let services = store.all(&SERVICES);
    let service = services
        .iter()
        .find(|service| object::text(service, "/spec/clusterIP") == address.to_string());
    let name = service.and_then(|service| service_name(service));
    name.map_or(Found::Nothing, |name| {
        Found::Records(vec![RData::PTR(PTR(name))], Vec::new())
    })
}

fn service_name(service: &Value) -> Option<Name> {
    Name::from_str(&format!(
        "{}.{}.svc.{ZONE}.",
        object::name(service),
        object::namespace(service)
    ))
    .ok()
}

/// A ready endpoint of a headless Service: its own name, its address, its ports by name.
struct Member {
    label: String,
    address: Ipv4Addr,
    ports: Vec<(String, String, u16)>,
}

fn members(store: &Store, service: &Value) -> Vec<Member> {
    let early = object::flag(service, "/spec/publishNotReadyAddresses");
    let slices = store
        .list(&ENDPOINT_SLICES, Some(object::namespace(service)))
        .0;
    let own = slices.iter().filter(|slice| {
        object::labels(slice)
            .get("kubernetes.io/service-name")
            .map(String::as_str)
            == Some(object::name(service))
    });
    let mut members = Vec::new();
    for slice in own {
        let ports: Vec<(String, String, u16)> = object::list(slice, "/ports")
            .iter()
            .filter_map(|port| {
                let number = u16::try_from(object::number(port, "/port")?).ok()?;
                Some((
                    object::text(port, "/name").into(),
                    object::text(port, "/protocol").to_lowercase(),
                    number,
                ))
            })
            .collect();
        for endpoint in object::list(slice, "/endpoints") {
            let ready = endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                .unwrap_or(true);
            let Some(address) = object::text(endpoint, "/addresses/0")
                .parse::<Ipv4Addr>()
                .ok()
                .filter(|_| ready || early)
            else {
                continue;
            };
            let label = match object::text(endpoint, "/hostname") {
                "" => address.to_string().replace('.', "-"),
                hostname => hostname.to_string(),
            };
            members.push(Member {
                label,
                address,
                ports: ports.clone(),
            });
        }
    }
    members
}

fn of_service(store: &Store, service: &str, namespace: &str) -> Found {
    let Some(service) = store.find(&SERVICES, namespace, service) else {
        return Found::Nothing;
    };
    let external = object::text(&service, "/spec/externalName");
    if object::text(&service, "/spec/type") == "ExternalName" {
        let target = Name::from_str(&format!("{}.", external.trim_end_matches('.')));
        return target.map_or(Found::Nothing, |target| {
            Found::Records(vec![RData::CNAME(CNAME(target))], Vec::new())
        });
    }
    match object::text(&service, "/spec/clusterIP").parse::<Ipv4Addr>() {
        Ok(address) => Found::Records(vec![RData::A(A(address))], Vec::new()),
        Err(_) => {
            let members = members(store, &service);
            // CoreDNS says that a headless Service without endpoints does not exist.
            if members.is_empty() {
                Found::Nothing
            } else {
                Found::Records(
                    members
                        .iter()
                        .map(|member| RData::A(A(member.address)))
                        .collect(),
                    Vec::new(),
                )
            }
        }
    }
}

fn of_pod(store: &Store, pod: &str, service: &str, namespace: &str) -> Found {
    let Some(service) = store.find(&SERVICES, namespace, service) else {
        return Found::Nothing;
    };
    let own = members(store, &service)
        .into_iter()
        .filter(|member| member.label == pod);
    let records: Vec<RData> = own.map(|member| RData::A(A(member.address))).collect();
    if records.is_empty() {
        Found::Nothing
    } else {
        Found::Records(records, Vec::new())
    }
}

fn of_port(store: &Store, (port, protocol): (&str, &str), service: &str, namespace: &str) -> Found {
    let Some(service) = store.find(&SERVICES, namespace, service) else {
        return Found::Nothing;
    };
    let Some(name) = service_name(&service) else {
        return Found::Nothing;
    };
    let mut records = Vec::new();
    let mut targets = Vec::new();
    if let Ok(address) = object::text(&service, "/spec/clusterIP").parse::<Ipv4Addr>() {
        for entry in object::list(&service, "/spec/ports") {
            let number =
                object::number(entry, "/port").and_then(|number| u16::try_from(number).ok());
            if let Some(number) = number
                && object::text(entry, "/name") == port
                && object::text(entry, "/protocol").eq_ignore_ascii_case(protocol)
            {
                records.push(RData::SRV(SRV::new(0, 100, number, name.clone())));
                targets.push((name.clone(), address));
            }
        }
    } else {
        for member in members(store, &service) {
            let number = member
                .ports
                .iter()
                .find(|(name, of, _)| name == port && of == protocol)
                .map(|(_, _, number)| *number);
            let target = Name::from_str(&format!("{}.{name}", member.label));
            if let (Some(number), Ok(target)) = (number, target) {
                records.push(RData::SRV(SRV::new(0, 100, number, target.clone())));
                targets.push((target, member.address));
            }
        }
    }
    if records.is_empty() {
        Found::Nothing
    } else {
        Found::Records(records, targets)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> Store {
        let store = Store::default();
        let add = |kind, object| store.create(kind, object).map(drop).expect("created");
        add(&NAMESPACES, json!({"metadata": {"name": "n"}}));
        add(
            &SERVICES,
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.99", "ports": [{"name": "http", "port": 80}]}}),
        );
        add(
            &SERVICES,
            json!({"metadata": {"name": "h", "namespace": "n"}, "spec": {"clusterIP": "None", "ports": [{"name": "db", "port": 1}]}}),
        );
        add(
            &SERVICES,
            json!({"metadata": {"name": "x", "namespace": "n"}, "spec": {"type": "ExternalName", "externalName": "example.org"}}),
        );
        add(
            &ENDPOINT_SLICES,
            json!({"metadata": {"name": "h-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "h"}},
            "ports": [{"name": "db", "protocol": "TCP", "port": 5432}],
            "endpoints": [{"addresses": ["10.244.0.7"], "hostname": "h-0", "conditions": {"ready": true}}, {"addresses": ["10.244.0.8"], "conditions": {"ready": false}}]}),
        );
        store
    }

    fn ask(name: &str) -> String {
        let name = Name::from_str(name).expect("a name");
        match lookup(&store(), &name) {
            Found::Elsewhere => "elsewhere".into(),
            Found::Nothing => "nothing".into(),
            Found::Records(records, _) => records
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(";"),
        }
    }

    #[test]
    fn cluster_names_are_known_and_others_are_elsewhere() {
        assert_eq!(ask("s.n.svc.cluster.local."), "10.96.0.99");
        assert_eq!(ask("S.N.svc.Cluster.Local."), "10.96.0.99");
        assert_eq!(ask("h.n.svc.cluster.local."), "10.244.0.7");
        assert_eq!(ask("h-0.h.n.svc.cluster.local."), "10.244.0.7");
        assert_eq!(ask("10-244-0-8.h.n.svc.cluster.local."), "nothing");
        assert_eq!(ask("x.n.svc.cluster.local."), "example.org.");
        assert_eq!(
            ask("_http._tcp.s.n.svc.cluster.local."),
            "0 100 80 s.n.svc.cluster.local."
        );
        assert_eq!(
            ask("_db._tcp.h.n.svc.cluster.local."),
            "0 100 5432 h-0.h.n.svc.cluster.local."
        );
        assert_eq!(ask("99.0.96.10.in-addr.arpa."), "s.n.svc.cluster.local.");
        assert_eq!(ask("none.n.svc.cluster.local."), "nothing");
        assert_eq!(ask("s.n.svc.cluster.local.example.org."), "elsewhere");
        assert_eq!(ask("example.org."), "elsewhere");
    }

    #[test]
    fn a_given_address_is_for_pods_whose_sidecar_takes_it() {
        let store = store();
        let add = |kind, object: Value| {
            let (name, status) = (object::name(&object).to_string(), object["status"].clone());
            store.create(kind, object).expect("created");
            store.set_status(kind, "n", &name, status);
        };
        let pod = |name: &str, ip: &str, annotations: Value| json!({"metadata": {"name": name, "namespace": "n", "annotations": annotations}, "status": {"podIP": ip}});
        add(
            &PODS,
            pod(
                "with",
                "10.244.0.20",
                json!({TEMPLATE_ANNOTATION: "sidecar"}),
            ),
        );
        add(&PODS, pod("without", "10.244.0.21", json!({})));
        add(
            &PODS,
            pod(
                "some",
                "10.244.0.22",
                json!({TEMPLATE_ANNOTATION: "sidecar", "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8"}),
            ),
        );
        let entry = |name: &str, export: &str, ip: &str| {
            json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"hosts": [format!("{name}.example")], "exportTo": [export]},
            "status": {"addresses": [{"value": ip, "host": format!("{name}.example")}]}})
        };
        add(&SERVICE_ENTRIES, entry("db", "*", "240.240.0.7"));
        add(&SERVICE_ENTRIES, entry("far", "other", "240.240.0.8"));
        let ask = |host: &str, asker: &str| {
            let name = Name::from_str(host).expect("a name");
            match outside(&store, &name, asker.parse().expect("an address")) {
                Found::Records(records, _) => records[0].to_string(),
                _ => "elsewhere".into(),
            }
        };
        assert_eq!(ask("DB.example.", "10.244.0.20"), "240.240.0.7");
        for asker in ["10.244.0.21", "10.244.0.22", "10.244.0.99"] {
            assert_eq!(ask("db.example.", asker), "elsewhere", "{asker}");
        }
        assert_eq!(
            ask("far.example.", "10.244.0.20"),
            "elsewhere",
            "not exported to it"
        );
        assert_eq!(ask("no.example.", "10.244.0.20"), "elsewhere");
    }

    #[test]
    fn an_existing_name_without_records_of_the_type_is_no_error() {
        let name = Name::from_str("s.n.svc.cluster.local.").expect("a name");
        let (code, answers, _) = records_for(&lookup(&store(), &name), &name, RecordType::AAAA);
        assert_eq!((code, answers.len()), (ResponseCode::NoError, 0));
        let name = Name::from_str("none.n.svc.cluster.local.").expect("a name");
        assert_eq!(
            records_for(&lookup(&store(), &name), &name, RecordType::A).0,
            ResponseCode::NXDomain
        );
    }
}
