//! From the variables that an injector sets beside a proxy to [`Settings`]. Pure: the program
//! passes its environment in.
//!
//! The names are Istio's (`POD_NAME`, `ISTIO_META_…`, `PROXY_CONFIG`, `CA_ADDR`, …) and ours where
//! Istio has none (`TANBARK_MARK`, `TANBARK_TOKEN_FILE`, `TANBARK_ROOT_CERT`). Node id and metadata
//! follow Istio's agent: `ISTIO_META_X` becomes `X`; JSON objects (labels, annotations) become
//! structures.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use identity::{ServiceAccountName, TrustDomain};
use serde_json::{Map, Value, json};
use wire_envoy::{
    pb::core::{Locality, Node},
    structs,
};
use xds_protocol::Flavour;

use crate::{
    FeedError,
    settings::{Address, Certificates, Discovery, Limits, Server, ServerAuthentication, Settings},
};

#[cfg(test)]
mod tests;

const DISCOVERY: &str = "istiod.istio-system.svc:15012";
const TOKEN_FILE: &str = "/var/run/secrets/tokens/istio-token";
const ROOT_FILE: &str = "/var/run/secrets/istio/root-cert.pem";
/// The release of Istio whose configuration we obey; control planes look at it.
const ISTIO_VERSION: &str = "1.31.0";

/// The role of a proxy, as in its node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    Gateway,
}

/// What the program's environment says.
#[derive(Debug, Clone)]
pub struct Environment {
    role: Role,
    variables: BTreeMap<String, String>,
    proxy_config: Map<String, Value>,
}

impl Role {
    fn node_type(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "router",
        }
    }
}

impl Environment {
    pub fn new(
        role: Role,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, FeedError> {
        let variables: BTreeMap<String, String> = variables
            .into_iter()
            .filter(|(_, v)| !v.is_empty())
            .collect();
        let proxy_config = match variables.get("PROXY_CONFIG") {
            None => Map::new(),
            Some(text) => parse_proxy_config(text)?,
        };
        Ok(Self {
            role,
            variables,
            proxy_config,
        })
    }

    pub fn settings(&self) -> Result<Settings, FeedError> {
        let discovery = self
            .config_text("discoveryAddress")
            .unwrap_or(DISCOVERY)
            .to_owned();
        let ca = self.variable("CA_ADDR").unwrap_or(&discovery).to_owned();
        let plaintext = self.config_text("controlPlaneAuthPolicy") == Some("NONE");
        let delta = self.variable("ISTIO_DELTA_XDS") != Some("false");
        Ok(Settings {
            node: self.node()?,
            discovery: Some(Discovery {
                server: self.server("discoveryAddress", &discovery, plaintext)?,
                flavour: if delta {
                    Flavour::Delta
                } else {
                    Flavour::StateOfTheWorld
                },
            }),
            certificates: Some(Certificates {
                server: self.server("CA_ADDR", &ca, false)?,
                trust_domain: self.trust_domain()?,
                account: self.account()?,
                ttl: self
                    .seconds("SECRET_TTL")?
                    .unwrap_or(Duration::from_secs(24 * 3600)),
                renew_after: 0.5,
                jitter: 0.01,
                cluster_id: self
                    .variable("ISTIO_META_CLUSTER_ID")
                    .unwrap_or("Kubernetes")
                    .to_owned(),
            }),
            environment: xds_decode::Environment {
                hostname: self
                    .variable("HOSTNAME")
                    .or(self.variable("POD_NAME"))
                    .unwrap_or_default()
                    .to_owned(),
                variables: self.variables.clone().into_iter().collect(),
            },
            limits: Limits::default(),
        })
    }

    /// The ProxyConfig given in `PROXY_CONFIG`.
    pub fn proxy_config(&self) -> &Map<String, Value> {
        &self.proxy_config
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// Node with Istio's id and metadata.
    pub fn node(&self) -> Result<Node, FeedError> {
        let (name, namespace) = (self.required("POD_NAME")?, self.namespace()?);
        let address = self.required("INSTANCE_IP")?;
        address
            .parse::<IpAddr>()
            .map_err(|_| self.invalid("INSTANCE_IP", "is no IP address"))?;
        let domain = self
            .variable("DNS_DOMAIN")
            .map_or_else(|| format!("{namespace}.svc.cluster.local"), str::to_owned);
        let metadata = self.metadata()?;
        let cluster = metadata
            .pointer("/LABELS/service.istio.io~1canonical-name")
            .or_else(|| metadata.pointer("/LABELS/app"))
            .and_then(Value::as_str)
            .or(self.variable("ISTIO_META_WORKLOAD_NAME"))
            .map_or_else(
                || "istio-proxy".to_owned(),
                |app| format!("{app}.{namespace}"),
            );
        Ok(Node {
            id: format!(
                "{}~{address}~{name}.{namespace}~{domain}",
                self.role.node_type()
            ),
            cluster,
            metadata: structs::from_json(&metadata),
            locality: Some(self.locality()),
            user_agent_name: "tanbark-proxy".into(),
            ..Node::default()
        })
    }

    fn metadata(&self) -> Result<Value, FeedError> {
        let mut fields = Map::new();
        for (key, value) in &self.variables {
            if let Some(key) = key.strip_prefix("ISTIO_META_") {
                fields.insert(key.to_owned(), self.meta_value(key, value)?);
            }
        }
        let namespace = self.namespace()?;
        let account = self.account()?;
        fields.insert("NAME".into(), json!(self.required("POD_NAME")?));
        fields.insert("NAMESPACE".into(), json!(namespace));
        fields.insert("SERVICE_ACCOUNT".into(), json!(account.name()));
        fields.insert(
            "INSTANCE_IPS".into(),
            json!(
                self.variable("INSTANCE_IPS")
                    .unwrap_or(self.required("INSTANCE_IP")?)
            ),
        );
        fields.insert(
            "PROXY_CONFIG".into(),
            Value::Object(self.proxy_config.clone()),
        );
        fields
            .entry("PILOT_SAN")
            .or_insert_with(|| json!(["istiod.istio-system.svc"]));
        fields
            .entry("ISTIO_VERSION")
            .or_insert_with(|| json!(ISTIO_VERSION));
        fields.entry("ENVOY_STATUS_PORT").or_insert(json!(15021));
        fields
            .entry("ENVOY_PROMETHEUS_PORT")
            .or_insert(json!(15090));
        if let Some(mark) = self.mark()? {
            fields.insert("TANBARK_MARK".into(), json!(mark));
        }
        Ok(Value::Object(fields))
    }

    fn meta_value(&self, key: &str, value: &str) -> Result<Value, FeedError> {
        if !matches!(key, "LABELS" | "ANNOTATIONS" | "PLATFORM_METADATA") {
            return Ok(json!(value));
        }
        match serde_json::from_str(value) {
            Ok(object @ Value::Object(_)) => Ok(object),
            _ => Err(self.invalid(&format!("ISTIO_META_{key}"), "is no JSON object")),
        }
    }

    fn locality(&self) -> Locality {
        let mut parts = self
            .variable("ISTIO_META_LOCALITY")
            .unwrap_or_default()
            .split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Locality {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }

    fn server(&self, what: &str, address: &str, plaintext: bool) -> Result<Server, FeedError> {
        let address = Address::parse(address)
            .ok_or_else(|| self.invalid(what, "must be host:port or unix:/path"))?;
        let tls = match &address {
            Address::Host { name, .. } if !plaintext => Some(ServerAuthentication {
                root_file: self.path("TANBARK_ROOT_CERT", ROOT_FILE),
                name: self
                    .variable("TANBARK_CONTROL_PLANE_NAME")
                    .unwrap_or(name)
                    .to_owned(),
            }),
            _ => None,
        };
        // A token in plaintext would be anybody's.
        let token_file = tls
            .is_some()
            .then(|| self.path("TANBARK_TOKEN_FILE", TOKEN_FILE));
        Ok(Server {
            address,
            tls,
            token_file,
            mark: self.mark()?,
        })
    }

    /// SO_MARK of our own connections.
    pub fn mark(&self) -> Result<Option<u32>, FeedError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| self.invalid("TANBARK_MARK", "is no number"))
        };
        self.variable("TANBARK_MARK").map(parse).transpose()
    }

    pub fn trust_domain(&self) -> Result<TrustDomain, FeedError> {
        match self.variable("TRUST_DOMAIN") {
            None => Ok(TrustDomain::default()),
            Some(text) => TrustDomain::parse_mesh_config(text).map_err(FeedError::Identity),
        }
    }

    pub fn account(&self) -> Result<ServiceAccountName, FeedError> {
        let name = self.variable("SERVICE_ACCOUNT").unwrap_or("default");
        ServiceAccountName::new(self.namespace()?, name).map_err(FeedError::Identity)
    }

    fn namespace(&self) -> Result<&str, FeedError> {
        self.required("POD_NAMESPACE")
    }

    /// Seconds, or Go's form (`24h`, `1h30m`, `90s`).
    fn seconds(&self, key: &str) -> Result<Option<Duration>, FeedError> {
        let parse = |text: &str| {
            parse_duration(text)
                .ok_or_else(|| self.invalid(key, "is no duration such as 24h or 90s"))
        };
        self.variable(key).map(parse).transpose()
    }

    pub fn variable(&self, key: &str) -> Option<&str> {
        self.variables.get(key).map(String::as_str)
    }

    /// A duration of the ProxyConfig (`drainDuration`, `terminationDrainDuration`).
    pub fn proxy_duration(&self, key: &str) -> Option<Duration> {
        self.config_text(key).and_then(parse_duration)
    }

    /// A positive number of the ProxyConfig (`concurrency`, `statusPort`).
    pub fn proxy_number(&self, key: &str) -> Option<u64> {
        self.proxy_config
            .get(key)
            .and_then(Value::as_u64)
            .filter(|number| *number > 0)
    }

    /// A path from a variable, else the default.
    pub fn path(&self, key: &str, default: &str) -> PathBuf {
        self.variable(key).unwrap_or(default).into()
    }

    fn required(&self, key: &'static str) -> Result<&str, FeedError> {
        self.variable(key).ok_or(FeedError::Missing(key))
    }

    fn config_text(&self, key: &str) -> Option<&str> {
        self.proxy_config
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    fn invalid(&self, key: &str, why: &'static str) -> FeedError {
        FeedError::Variable {
            name: key.to_owned(),
            why,
        }
    }
}

/// Injectors write the ProxyConfig as JSON; people write YAML.
fn parse_proxy_config(text: &str) -> Result<Map<String, Value>, FeedError> {
    let why = "is no object in JSON or YAML";
    match serde_saphyr::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        _ => Err(FeedError::Variable {
            name: "PROXY_CONFIG".into(),
            why,
        }),
    }
}

/// `90`, `90s`, `1h30m`, `100ms`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|_| !text.is_empty())
}
