//! Istio's DNS name table → `NameTable`.

use proxy_config::name_table::{NameEntry, NameTable};
use wire_envoy::pb::istio::nds;

use crate::{
    context::Cx,
    judgement::take,
    reject::{Refusal, Within, each},
    scalar,
};

pub(crate) fn name_table(cx: &mut Cx, value: nds::NameTable) -> Result<NameTable, Refusal> {
    take!(cx, value => nds::NameTable {
        read { table }
        reject "one table holds all names" { name_info }
    });
    let mut names = std::collections::BTreeMap::new();
    for (host, info) in table {
        let entry = entry(cx, info).within_key("table", &host)?;
        names.insert(host.to_ascii_lowercase().into(), entry);
    }
    Ok(NameTable(names))
}

fn entry(cx: &mut Cx, value: nds::name_table::NameInfo) -> Result<NameEntry, Refusal> {
    take!(cx, value => nds::name_table::NameInfo {
        read { ips, registry, shortname, namespace }
        ignore "was experimental in Istio and is sent no more" { alt_hosts }
    });
    Ok(NameEntry {
        addresses: each("ips", ips, |ip| {
            ip.parse()
                .map_err(|_| Refusal::new(format!("{ip:?} is no IP address")))
        })?,
        kubernetes: registry == "Kubernetes",
        short_name: scalar::text(shortname),
        namespace: scalar::text(namespace),
    })
}
