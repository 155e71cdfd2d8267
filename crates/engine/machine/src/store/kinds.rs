//! The kinds that the local API serves: all of [`wire_kube::kinds`]; names here for those that the
//! runtime's code works with.

use wire_kube::kinds::{KINDS, Kind as Id};
pub use wire_kube::kinds::{
    KindInfo as Kind, Scope, Support, find_by_category as by_category, find_by_name as by_word,
    find_by_plural as by_plural, find_served as by_object,
};

macro_rules! names {
    ($($name:ident = $id:ident;)*) => {$(
        #[doc = concat!("[`Id::", stringify!($id), "`]")]
        pub static $name: Kind = KINDS[Id::$id as usize];
    )*};
}

names! {
    NAMESPACES = Namespace;
    NODES = Node;
    PODS = Pod;
    SERVICES = Service;
    ENDPOINTS = Endpoints;
    SERVICE_ACCOUNTS = ServiceAccount;
    CONFIG_MAPS = ConfigMap;
    SECRETS = Secret;
    EVENTS = Event;
    DEPLOYMENTS = Deployment;
    REPLICA_SETS = ReplicaSet;
    STATEFUL_SETS = StatefulSet;
    DAEMON_SETS = DaemonSet;
    JOBS = Job;
    ENDPOINT_SLICES = EndpointSlice;
    SERVICE_ENTRIES = ServiceEntry;
    CUSTOM_RESOURCE_DEFINITIONS = CustomResourceDefinition;
    MUTATING_WEBHOOK_CONFIGURATIONS = MutatingWebhookConfiguration;
}

/// All of them.
pub static ALL: &[Kind] = KINDS;
