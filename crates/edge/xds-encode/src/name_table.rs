//! Name table (NDS): what a proxy that answers its application's DNS questions needs to know.
//!
//! Services with a virtual address are that address; headless services are the addresses of their ready pods, and each pod that has a host
//! name is found under it. Gateways get an empty table.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_model::{
    Service,
    object::Text,
    service::Resolution,
    workload::{EndpointAddress, Readiness},
};
use wire_envoy::pb::istio::nds::{NameTable, name_table::NameInfo};

use crate::{ClientKind, View};

/// Everything that a name table depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameTableInputs {
    names: Arc<BTreeMap<Text, Name>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    addresses: Vec<IpAddr>,
    registry: &'static str,
    short: Text,
    namespace: Text,
}

impl View {
    pub fn name_table_inputs(&self) -> NameTableInputs {
        if self.client.kind == ClientKind::Gateway {
            return NameTableInputs::default();
        }
        let mut names = BTreeMap::new();
        for service in self
            .services
            .iter()
            .filter(|service| service.alias_of.is_none())
        {
            let mut addresses: Vec<IpAddr> = service.vips().collect();
            if addresses.is_empty() && service.resolution == Resolution::Passthrough {
                addresses = self.headless(service, &mut names);
            }
            if !addresses.is_empty() {
                names.insert(service.host.shared(), name(service, addresses));
            }
        }
        self.add_aliases(&mut names);
        NameTableInputs {
            names: Arc::new(names),
        }
    }

    /// Addresses of a headless service; its pods' names are added to the table.
    fn headless(&self, service: &Service, names: &mut BTreeMap<Text, Name>) -> Vec<IpAddr> {
        let all = self.snapshot.endpoints_of(service);
        let endpoints = all
            .iter()
            .flat_map(|all| all.ports.values())
            .flat_map(|list| list.iter());
        let mut addresses = Vec::new();
        for endpoint in endpoints
            .filter(|endpoint| endpoint.ready == Readiness::Ready || service.publish_not_ready)
        {
            let EndpointAddress::Ip(ip) = endpoint.address else {
                continue;
            };
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
            if let Some(pod) = &endpoint.hostname {
                let full: Text = format!("{pod}.{}", service.host).into();
                let short = format!("{pod}.{}", service.name).into();
                names.insert(
                    full,
                    Name {
                        short,
                        ..name(service, vec![ip])
                    },
                );
            }
        }
        addresses
    }

    fn add_aliases(&self, names: &mut BTreeMap<Text, Name>) {
        for service in self.services.iter() {
            let target = service
                .alias_of
                .as_ref()
                .and_then(|target| names.get(target.as_str()))
                .map(|target| target.addresses.clone());
            if let Some(addresses) = target {
                names.insert(service.host.shared(), name(service, addresses));
            }
        }
    }
}

fn name(service: &Service, addresses: Vec<IpAddr>) -> Name {
    let is_kubernetes = &*service.meta.object.kind == "Service";
    Name {
        addresses,
        registry: if is_kubernetes {
            "Kubernetes"
        } else {
            "External"
        },
        short: if is_kubernetes {
            service.name.clone()
        } else {
            "".into()
        },
        namespace: if is_kubernetes {
            service.meta.object.namespace.clone()
        } else {
            "".into()
        },
    }
}

/// The table. Addresses are in the order of the endpoints.
pub fn name_table(inputs: &NameTableInputs) -> NameTable {
    let info = |name: &Name| NameInfo {
        ips: name.addresses.iter().map(IpAddr::to_string).collect(),
        registry: name.registry.to_owned(),
        shortname: name.short.to_string(),
        namespace: name.namespace.to_string(),
        ..Default::default()
    };
    NameTable {
        table: inputs
            .names
            .iter()
            .map(|(host, name)| (host.to_string(), info(name)))
            .collect(),
        ..Default::default()
    }
}
