//! Clusters, by Istio's names: `outbound|9080|v1|reviews.default.svc.cluster.local`.

use serde_json::Value;

use super::cluster_name::{ClusterName, service_filter};
use super::dump::{Dump, config_of, text};
use super::source::Source;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rule_of_a_cluster_is_named() {
        let cluster = json!({"name": "outbound|80||a", "type": "EDS", "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/orders"}}}});
        assert_eq!(
            row(&cluster),
            ["a", "80", "-", "outbound", "EDS", "orders.shop"].map(str::to_owned)
        );
    }
}
