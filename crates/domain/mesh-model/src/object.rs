//! What every object has: who it is, how old, whom it selects and who may see it.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// Shared text; cheap to clone.
pub type Text = Arc<str>;

/// Kind, namespace and name of a user's object: its identity in messages, keys and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// `VirtualService`, `Service`, …
    pub kind: Text,
    /// Empty for cluster-scoped kinds.
    pub namespace: Text,
    pub name: Text,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {}/{}", self.kind, namespace, self.name),
        }
    }
}

/// Identity and age of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub object: ObjectRef,
    /// Seconds since the epoch; older wins where two objects claim the same thing, then name, then namespace.
    pub created_at_seconds: i64,
    pub labels: Labels,
    pub annotations: Labels,
    /// API version as written, e.g. `networking.istio.io/v1`.
    pub api_version: Text,
}

impl Meta {
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }
    pub fn name(&self) -> &str {
        &self.object.name
    }
    /// Sorts the winner first: oldest, then name, then namespace.
    pub fn precedence(&self) -> (i64, &str, &str) {
        (
            self.created_at_seconds,
            &self.object.name,
            &self.object.namespace,
        )
    }
}

/// Labels or annotations, ordered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels(pub Arc<BTreeMap<Text, Text>>);

impl Labels {
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| &**v)
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Text>, V: Into<Text>> FromIterator<(K, V)> for Labels {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(items: T) -> Self {
        Self(Arc::new(
            items
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        ))
    }
}

/// `matchLabels`: all must be equal. An empty selector selects nothing by itself; policies without a selector say so by `Option`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector(pub Labels);

impl Selector {
    /// True when every wanted label has the wanted value. An empty selector matches everything.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0
            .iter()
            .all(|(key, value)| labels.value(key) == Some(value))
    }
}

/// A host name as rules use them: exact, `*.suffix`, or `*`. Lower case, fully qualified when it stands for a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Text);

impl Host {
    /// Accepts a DNS name (labels of letters, digits, `-`, `_`), an IP address, `*` or `*.` followed by a DNS name.
    pub fn parse(host: &str) -> Result<Self, InvalidHost> {
        let lower = host.to_ascii_lowercase();
        let name = lower
            .strip_prefix("*.")
            .unwrap_or(if lower == "*" { "all" } else { &lower });
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let is_ip = name.parse::<std::net::IpAddr>().is_ok();
        let is_name = name.len() <= 253
            && name
                .strip_suffix('.')
                .unwrap_or(name)
                .split('.')
                .all(is_label);
        if is_ip || is_name {
            Ok(Self(lower.into()))
        } else {
            Err(InvalidHost(host.into()))
        }
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    pub fn shared(&self) -> Text {
        self.0.clone()
    }
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }
    /// `self` as a pattern covers `name` (itself exact or a wildcard that is not wider).
    pub fn covers(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            None => &*self.0 == name,
            Some("") => true,
            Some(suffix) => {
                name.len() > suffix.len() && name.ends_with(suffix)
                    || name.strip_prefix('*') == Some(suffix)
            }
        }
    }
    /// Sorts the more specific first: exact before wildcards, longer wildcards before shorter.
    pub fn specificity(&self) -> (bool, std::cmp::Reverse<usize>) {
        (self.is_wildcard(), std::cmp::Reverse(self.0.len()))
    }
    /// A short name gets `.<namespace>.svc.<domain>`; names with a dot, wildcards and addresses stay as they are.
    pub fn qualified(&self, namespace: &str, cluster_domain: &str) -> Host {
        if self.0.contains('.') || self.is_wildcard() || self.0.contains(':') {
            self.clone()
        } else {
            Self(format!("{}.{namespace}.svc.{cluster_domain}", self.0).into())
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name: expected a DNS name, `*.domain` or `*`")]
pub struct InvalidHost(pub String);

/// Which namespaces may see an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ExportTo {
    All,
    /// Nobody (`~`).
    None,
    /// Namespace names; `.` was replaced by the object's own.
    Namespaces(Arc<[Text]>),
}

impl ExportTo {
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            ExportTo::All => true,
            ExportTo::None => false,
            ExportTo::Namespaces(names) => names.iter().any(|n| &**n == namespace),
        }
    }
}
