//! Endpoints and how they are, from the proxy's `/clusters`.

use serde_json::{Value, json};

use super::cluster_name::{ClusterName, service_filter};
use super::dump::{Dump, field, list, number, text};
use super::source::Source;
use crate::output::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: Source,
    /// Name of the cluster
    #[arg(long)]
    cluster: Option<String>,
    /// Part of the service's name
    #[arg(long)]
    fqdn: Option<String>,
    /// Port of the endpoint
    #[arg(long)]
    port: Option<u64>,
    /// Part of the subset's name
    #[arg(long)]
    subset: Option<String>,
    /// `inbound` or `outbound`
    #[arg(long)]
    direction: Option<String>,
    /// Address of the endpoint
    #[arg(long)]
    address: Option<String>,
    /// `healthy` or `unhealthy`
    #[arg(long)]
    status: Option<String>,
}

/// The cluster statuses that match, each with only the hosts that match.
pub fn select(page: &Value, args: &Args) -> Vec<Value> {
    let mut found = Vec::new();
    for cluster in list(page, "cluster_statuses") {
        let name = text(cluster, "name");
        let parsed = ClusterName::parse(name);
        if args.cluster.as_deref().is_some_and(|wanted| wanted != name)
            || !service_filter(
                &parsed,
                None,
                args.subset.as_deref(),
                args.direction.as_deref(),
                args.fqdn.as_deref(),
            )
        {
            continue;
        }
        let hosts: Vec<Value> = list(cluster, "host_statuses")
            .iter()
            .filter(|host| wanted(host, args))
            .cloned()
            .collect();
        if !hosts.is_empty() {
            let mut cluster = cluster.clone();
            let key = if cluster.get("hostStatuses").is_some() {
                "hostStatuses"
            } else {
                "host_statuses"
            };
            cluster[key] = hosts.into();
            found.push(cluster);
        }
    }
    found
}

fn wanted(host: &Value, args: &Args) -> bool {
    let (address, port) = address_of(host);
    args.port.is_none_or(|wanted| port == Some(wanted))
        && args
            .address
            .as_deref()
            .is_none_or(|wanted| address == wanted)
        && args
            .status
            .as_deref()
            .is_none_or(|wanted| health(host).eq_ignore_ascii_case(wanted))
}

fn address_of(host: &Value) -> (String, Option<u64>) {
    let pipe = text(host, "address.pipe.path");
    if !pipe.is_empty() {
        return (format!("unix://{pipe}"), None);
    }
    (
        text(host, "address.socket_address.address").to_owned(),
        number(host, "address.socket_address.port_value"),
    )
}

fn health(host: &Value) -> &str {
    match text(host, "health_status.eds_health_status") {
        "" | "UNKNOWN" => "HEALTHY",
        status => status,
    }
}

/// Ejected by outlier detection?
fn outlier(host: &Value) -> &'static str {
    let failed = field(host, "health_status")
        .and_then(|status| field(status, "failed_outlier_check"))
        == Some(&Value::Bool(true));
    if failed { "FAILED" } else { "OK" }
}

pub fn table(clusters: &[Value]) -> Table {
    let mut rows: Vec<(String, String, &str, &str)> = Vec::new();
    for cluster in clusters {
        for host in list(cluster, "host_statuses") {
            let (address, port) = address_of(host);
            let endpoint = port.map_or_else(
                || address.clone(),
                |port| {
                    if address.contains(':') {
                        format!("[{address}]:{port}")
                    } else {
                        format!("{address}:{port}")
                    }
                },
            );
            rows.push((
                endpoint,
                text(cluster, "name").to_owned(),
                health(host),
                outlier(host),
            ));
        }
    }
    rows.sort();
    let mut table = Table::new(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for (endpoint, cluster, health, outlier) in rows {
        let tone = |good: bool| if good { Tone::Plain } else { Tone::Bad };
        table.row([
            Cell::from(endpoint),
            Cell(health.into(), tone(health == "HEALTHY")),
            Cell(outlier.into(), tone(outlier == "OK")),
            Cell::from(cluster),
        ]);
    }
    table
}

/// A saved dump has addresses but no states; they count as healthy as EDS said.
pub fn statuses_of(dump: &Dump) -> Value {
    let clusters: Vec<Value> = dump
        .endpoints()
        .iter()
        .map(|assignment| {
            let hosts: Vec<Value> = list(assignment, "endpoints")
                .iter()
                .flat_map(|locality| list(locality, "lb_endpoints"))
                .map(|endpoint| {
                    let address = field(endpoint, "endpoint").and_then(|endpoint| field(endpoint, "address")).cloned();
                    json!({"address": address, "health_status": {"eds_health_status": text(endpoint, "health_status")}})
                })
                .collect();
            json!({"name": text(assignment, "cluster_name"), "host_statuses": hosts})
        })
        .collect();
    json!({"cluster_statuses": clusters})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Colour;

    #[test]
    fn endpoints_show_health_and_ejection() {
        let page = json!({"cluster_statuses": [{"name": "outbound|80||a", "host_statuses": [
            {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 8080}}, "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true}},
            {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 8080}}, "health_status": {"eds_health_status": "UNHEALTHY"}},
        ]}]});
        let text = table(list(&page, "cluster_statuses")).render(Colour::Off);
        let lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert!(
            lines[0].starts_with("10.0.0.1:8080   UNHEALTHY   OK"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("10.0.0.2:8080   HEALTHY     FAILED"),
            "{text}"
        );
    }
}
