//! What differs between two snapshots, as far as it decides how much of a proxy's configuration has
//! to be looked at again.

use std::{collections::BTreeMap, sync::Arc};

use mesh_model::{
    Service, Snapshot,
    object::Text,
    service::Resolution,
    snapshot::{ServiceEndpoints, ServiceKey},
};

/// See the module.
#[derive(Debug, Clone)]
pub enum Change {
    /// Nothing but endpoints and workloads: by host, what changed.
    Endpoints(BTreeMap<Text, Moved>),
    Everything,
}

/// What changed about the endpoints of a host.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Services of that host with other endpoints, one a namespace.
    pub services: Vec<Arc<Service>>,
    /// Clusters, listeners or names depend on these endpoints too.
    pub beyond_endpoints: bool,
}

impl Change {
    pub fn between(from: &Snapshot, to: &Snapshot) -> Self {
        if !rules_are_the_same(from, to) {
            return Self::Everything;
        }
        let mut moved: BTreeMap<Text, Moved> = BTreeMap::new();
        let keys = from.endpoints.keys().chain(to.endpoints.keys());
        for key in keys {
            let (before, after) = (from.endpoints.get(key), to.endpoints.get(key));
            let is_same = match (before, after) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                (None, None) => true,
                _ => false,
            };
            if is_same || moved.get(&key.host).is_some_and(|known| known.has(key)) {
                continue;
            }
            let known = moved.entry(key.host.clone()).or_insert(Moved {
                services: Vec::new(),
                beyond_endpoints: false,
            });
            known.beyond_endpoints |= !have_same_facts(before, after);
            let services = to
                .services
                .get(&key.host)
                .into_iter()
                .flat_map(|list| list.iter());
            for service in services.filter(|s| *s.namespace() == *key.namespace) {
                known.beyond_endpoints |= service.resolution != Resolution::ClientSide;
                known.services.push(service.clone());
            }
        }
        Self::Endpoints(moved)
    }
}

impl Moved {
    fn has(&self, key: &ServiceKey) -> bool {
        self.services
            .iter()
            .any(|service| *service.namespace() == *key.namespace)
    }
}

fn have_same_facts(
    before: Option<&Arc<ServiceEndpoints>>,
    after: Option<&Arc<ServiceEndpoints>>,
) -> bool {
    let facts = |all: &Arc<ServiceEndpoints>| (all.accounts.clone(), all.mesh_tls_ports.clone());
    before.map(facts) == after.map(facts)
}

/// Every part but endpoints and workloads is the one of before.
fn rules_are_the_same(from: &Snapshot, to: &Snapshot) -> bool {
    let Snapshot {
        version: _,
        mesh,
        namespaces,
        services,
        endpoints: _,
        workloads: _,
        workload_by_address: _,
        virtual_services,
        destination_rules,
        gateways,
        sidecars,
        peer_authentications,
        authorization_policies,
        telemetries,
        credentials,
    } = from;
    Arc::ptr_eq(mesh, &to.mesh)
        && Arc::ptr_eq(namespaces, &to.namespaces)
        && Arc::ptr_eq(services, &to.services)
        && Arc::ptr_eq(virtual_services, &to.virtual_services)
        && Arc::ptr_eq(destination_rules, &to.destination_rules)
        && Arc::ptr_eq(gateways, &to.gateways)
        && Arc::ptr_eq(sidecars, &to.sidecars)
        && Arc::ptr_eq(peer_authentications, &to.peer_authentications)
        && Arc::ptr_eq(authorization_policies, &to.authorization_policies)
        && Arc::ptr_eq(telemetries, &to.telemetries)
        && Arc::ptr_eq(credentials, &to.credentials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(ready: bool) -> Arc<serde_json::Value> {
        Arc::new(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 80}], "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": ready}}]}),
        )
    }

    fn service(ip: &str) -> Arc<serde_json::Value> {
        Arc::new(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}}),
        )
    }

    #[test]
    fn endpoints_are_told_from_everything_else() {
        let mut store = ingest::Store::new(ingest::default_mesh());
        store.apply(service("10.96.0.1"));
        store.apply(slice(true));
        let first = store.build();
        store.apply(slice(false));
        let second = store.build();
        let Change::Endpoints(moved) = Change::between(&first, &second) else {
            panic!("only endpoints changed");
        };
        let web = &moved["web.shop.svc.cluster.local"];
        assert!(
            !web.beyond_endpoints && web.services.len() == 1,
            "{moved:?}"
        );
        store.apply(service("None"));
        let third = store.build();
        assert!(matches!(
            Change::between(&second, &third),
            Change::Everything
        ));
        store.apply(slice(true));
        let fourth = store.build();
        let Change::Endpoints(moved) = Change::between(&third, &fourth) else {
            panic!("only endpoints changed");
        };
        assert!(
            moved["web.shop.svc.cluster.local"].beyond_endpoints,
            "a headless service's pods have listeners"
        );
    }
}
