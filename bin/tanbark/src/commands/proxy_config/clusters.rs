//! Clusters, by Istio's names: `outbound|9080|v1|reviews.default.svc.cluster.local`.

use serde_json::Value;

use super::dump::{Dump, text};
use super::{Source, service_filter};
use crate::output::{Cell, Table};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: Source,
    /// Part of the service's name
    #[arg(long)]
    fqdn: Option<String>,
    /// Port of the service
    #[arg(long)]
    port: Option<u16>,
    /// Part of the subset's name
    #[arg(long)]
    subset: Option<String>,
    /// `inbound` or `outbound`
    #[arg(long)]
    direction: Option<String>,
}

/// What a cluster's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName {
    pub direction: String,
    pub port: Option<u16>,
    pub subset: String,
    /// The service, or the whole name of a cluster that is named otherwise.
    pub service: String,
}

impl ClusterName {
    pub fn parse(name: &str) -> Self {
        let parts: Vec<&str> = name.split('|').collect();
        match parts.as_slice() {
            [direction, port, subset, service] => Self {
                direction: direction.trim_end_matches('_').trim_end_matches('.').into(),
                port: port.parse().ok(),
                subset: (*subset).into(),
                service: (*service).into(),
            },
            _ => Self {
                direction: String::new(),
                port: None,
                subset: String::new(),
                service: name.into(),
            },
        }
    }
}

pub fn select(dump: &Dump, args: &Args) -> Vec<Value> {
    let wanted = |cluster: &Value| {
        service_filter(
            &ClusterName::parse(text(cluster, "name")),
            args.port,
            args.subset.as_deref(),
            args.direction.as_deref(),
            args.fqdn.as_deref(),
        )
    };
    dump.clusters().into_iter().filter(wanted).collect()
}

pub fn table(clusters: &[Value]) -> Table {
    let mut rows: Vec<[String; 6]> = clusters.iter().map(row).collect();
    rows.sort_by_cached_key(|[service, port, rest @ ..]| {
        (service.clone(), port.parse::<u16>().ok(), rest.clone())
    });
    let mut table = Table::new([
        "SERVICE FQDN",
        "PORT",
        "SUBSET",
        "DIRECTION",
        "TYPE",
        "DESTINATION RULE",
    ]);
    for row in rows {
        table.row(row.map(Cell::from));
    }
    table
}

fn row(cluster: &Value) -> [String; 6] {
    let dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let name = ClusterName::parse(text(cluster, "name"));
    let kind = match text(cluster, "type") {
        "" if cluster
            .get("cluster_type")
            .or(cluster.get("clusterType"))
            .is_some() =>
        {
            text(cluster, "cluster_type.name").to_owned()
        }
        "" => "STATIC".to_owned(),
        kind => kind.to_owned(),
    };
    let port = name.port.map(|port| port.to_string()).unwrap_or_default();
    [
        name.service.clone(),
        dash(&port),
        dash(&name.subset),
        dash(&name.direction),
        kind,
        config_of(cluster).unwrap_or_default(),
    ]
}

/// `name.namespace` of the object that Istio's metadata names.
pub fn config_of(resource: &Value) -> Option<String> {
    let config = resource
        .pointer("/metadata")
        .and_then(|metadata| super::dump::field(metadata, "filter_metadata"))?
        .get("istio")?
        .get("config")?
        .as_str()?;
    let mut parts = config.rsplit('/');
    let name = parts.next()?;
    let _kind = parts.next()?;
    Some(format!("{name}.{}", parts.next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = ClusterName::parse("outbound|9080|v1|reviews.default.svc.cluster.local");
        assert_eq!(
            (
                name.direction.as_str(),
                name.port,
                name.subset.as_str(),
                name.service.as_str()
            ),
            (
                "outbound",
                Some(9080),
                "v1",
                "reviews.default.svc.cluster.local"
            )
        );
        assert_eq!(
            ClusterName::parse("PassthroughCluster").service,
            "PassthroughCluster"
        );
        assert_eq!(ClusterName::parse("inbound|9080||").direction, "inbound");
    }

    #[test]
    fn the_rule_of_a_cluster_is_named() {
        let cluster = json!({"name": "outbound|80||a", "type": "EDS", "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/orders"}}}});
        assert_eq!(
            row(&cluster),
            ["a", "80", "-", "outbound", "EDS", "orders.shop"].map(str::to_owned)
        );
    }
}
