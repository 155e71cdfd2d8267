//! Which EndpointSlices belong to a service, and which services a pod stands behind.
//!
//! Without it every service would look at every slice of its namespace, and every pod too.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::object::Text;

use crate::kubernetes::endpoint_slice::Slice;

/// Namespace and name of a Service or a Pod.
type Name = (Text, Text);

#[derive(Default)]
pub(super) struct Slices {
    /// Names of the slices of a service, in order.
    by_service: BTreeMap<Name, BTreeSet<Text>>,
    /// Services behind which a pod stands, each with the number of slices that say so.
    by_pod: BTreeMap<Name, BTreeMap<Text, usize>>,
}

impl Slices {
    pub fn add(&mut self, slice: &Slice) {
        let namespace = &slice.meta.object.namespace;
        self.by_service
            .entry((namespace.clone(), slice.service.clone()))
            .or_default()
            .insert(slice.meta.object.name.clone());
        for pod in pods(slice) {
            let services = self.by_pod.entry((namespace.clone(), pod)).or_default();
            *services.entry(slice.service.clone()).or_default() += 1;
        }
    }

    pub fn remove(&mut self, slice: &Slice) {
        let namespace = &slice.meta.object.namespace;
        let service = (namespace.clone(), slice.service.clone());
        if let Some(slices) = self.by_service.get_mut(&service) {
            slices.remove(&slice.meta.object.name);
            if slices.is_empty() {
                self.by_service.remove(&service);
            }
        }
        for pod in pods(slice) {
            let pod = (namespace.clone(), pod);
            let Some(services) = self.by_pod.get_mut(&pod) else {
                continue;
            };
            if let Some(count) = services.get_mut(&slice.service) {
                *count -= 1;
                if *count == 0 {
                    services.remove(&slice.service);
                }
            }
            if services.is_empty() {
                self.by_pod.remove(&pod);
            }
        }
    }

    pub fn of_service(&self, namespace: &Text, service: &Text) -> impl Iterator<Item = &Text> {
        self.by_service
            .get(&(namespace.clone(), service.clone()))
            .into_iter()
            .flatten()
    }

    pub fn services_of(&self, namespace: &Text, pod: &Text) -> impl Iterator<Item = &Text> {
        self.by_pod
            .get(&(namespace.clone(), pod.clone()))
            .into_iter()
            .flat_map(BTreeMap::keys)
    }
}

/// Each pod once.
fn pods(slice: &Slice) -> BTreeSet<Text> {
    slice
        .endpoints
        .iter()
        .filter_map(|endpoint| endpoint.pod.clone())
        .collect()
}
