//! The kinds that the local API serves: one line each.
//!
//! An object is stored once per group and plural name; a kind with several served versions answers in the one asked for.

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They belong to the whole machine.
    Cluster,
}

/// What the runtime does with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The runtime or the control plane obeys them.
    Obeyed,
    /// They are stored so that files with them apply, and have no effect on one machine.
    Inert,
}

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Served versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// `Pod`
    pub kind: &'static str,
    /// `pods`
    pub plural: &'static str,
    /// `po`
    pub short: &'static [&'static str],
    /// Namespaced or not.
    pub scope: Scope,
    /// What is done with them.
    pub effect: Effect,
}

use Effect::{Inert, Obeyed};
use Scope::{Cluster, Namespaced};

macro_rules! kinds {
    ($($name:ident: $group:literal $versions:tt $kind:literal $plural:literal $short:tt $scope:ident $effect:ident;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of group `", $group, "`")]
            pub static $name: Kind = Kind {
                group: $group, versions: &$versions, kind: $kind, plural: $plural, short: &$short, scope: $scope, effect: $effect,
            };
        )*
        /// All of them.
        pub static ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    NAMESPACES: "" ["v1"] "Namespace" "namespaces" ["ns"] Cluster Obeyed;
    NODES: "" ["v1"] "Node" "nodes" ["no"] Cluster Obeyed;
    PODS: "" ["v1"] "Pod" "pods" ["po"] Namespaced Obeyed;
    SERVICES: "" ["v1"] "Service" "services" ["svc"] Namespaced Obeyed;
    ENDPOINTS: "" ["v1"] "Endpoints" "endpoints" ["ep"] Namespaced Obeyed;
    SERVICE_ACCOUNTS: "" ["v1"] "ServiceAccount" "serviceaccounts" ["sa"] Namespaced Obeyed;
    CONFIG_MAPS: "" ["v1"] "ConfigMap" "configmaps" ["cm"] Namespaced Obeyed;
    SECRETS: "" ["v1"] "Secret" "secrets" [] Namespaced Obeyed;
    EVENTS: "" ["v1"] "Event" "events" ["ev"] Namespaced Obeyed;
    REPLICATION_CONTROLLERS: "" ["v1"] "ReplicationController" "replicationcontrollers" ["rc"] Namespaced Inert;
    PERSISTENT_VOLUME_CLAIMS: "" ["v1"] "PersistentVolumeClaim" "persistentvolumeclaims" ["pvc"] Namespaced Inert;
    PERSISTENT_VOLUMES: "" ["v1"] "PersistentVolume" "persistentvolumes" ["pv"] Cluster Inert;
    LIMIT_RANGES: "" ["v1"] "LimitRange" "limitranges" ["limits"] Namespaced Inert;
    RESOURCE_QUOTAS: "" ["v1"] "ResourceQuota" "resourcequotas" ["quota"] Namespaced Inert;
    DEPLOYMENTS: "apps" ["v1"] "Deployment" "deployments" ["deploy"] Namespaced Obeyed;
    REPLICA_SETS: "apps" ["v1"] "ReplicaSet" "replicasets" ["rs"] Namespaced Obeyed;
    STATEFUL_SETS: "apps" ["v1"] "StatefulSet" "statefulsets" ["sts"] Namespaced Obeyed;
    DAEMON_SETS: "apps" ["v1"] "DaemonSet" "daemonsets" ["ds"] Namespaced Obeyed;
    JOBS: "batch" ["v1"] "Job" "jobs" [] Namespaced Obeyed;
    CRON_JOBS: "batch" ["v1"] "CronJob" "cronjobs" ["cj"] Namespaced Inert;
    ENDPOINT_SLICES: "discovery.k8s.io" ["v1"] "EndpointSlice" "endpointslices" [] Namespaced Obeyed;
    LEASES: "coordination.k8s.io" ["v1"] "Lease" "leases" [] Namespaced Obeyed;
    ROLES: "rbac.authorization.k8s.io" ["v1"] "Role" "roles" [] Namespaced Inert;
    ROLE_BINDINGS: "rbac.authorization.k8s.io" ["v1"] "RoleBinding" "rolebindings" [] Namespaced Inert;
    CLUSTER_ROLES: "rbac.authorization.k8s.io" ["v1"] "ClusterRole" "clusterroles" [] Cluster Inert;
    CLUSTER_ROLE_BINDINGS: "rbac.authorization.k8s.io" ["v1"] "ClusterRoleBinding" "clusterrolebindings" [] Cluster Inert;
    NETWORK_POLICIES: "networking.k8s.io" ["v1"] "NetworkPolicy" "networkpolicies" ["netpol"] Namespaced Inert;
    INGRESSES: "networking.k8s.io" ["v1"] "Ingress" "ingresses" ["ing"] Namespaced Inert;
    INGRESS_CLASSES: "networking.k8s.io" ["v1"] "IngressClass" "ingressclasses" [] Cluster Inert;
    AUTOSCALERS: "autoscaling" ["v2", "v1"] "HorizontalPodAutoscaler" "horizontalpodautoscalers" ["hpa"] Namespaced Inert;
    DISRUPTION_BUDGETS: "policy" ["v1"] "PodDisruptionBudget" "poddisruptionbudgets" ["pdb"] Namespaced Inert;
    RESOURCE_DEFINITIONS: "apiextensions.k8s.io" ["v1"] "CustomResourceDefinition" "customresourcedefinitions" ["crd"] Cluster Inert;
    MUTATING_WEBHOOKS: "admissionregistration.k8s.io" ["v1"] "MutatingWebhookConfiguration" "mutatingwebhookconfigurations" [] Cluster Inert;
    VALIDATING_WEBHOOKS: "admissionregistration.k8s.io" ["v1"] "ValidatingWebhookConfiguration" "validatingwebhookconfigurations" [] Cluster Inert;
    VIRTUAL_SERVICES: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "VirtualService" "virtualservices" ["vs"] Namespaced Obeyed;
    DESTINATION_RULES: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "DestinationRule" "destinationrules" ["dr"] Namespaced Obeyed;
    ISTIO_GATEWAYS: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Gateway" "gateways" ["gw"] Namespaced Obeyed;
    SERVICE_ENTRIES: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "ServiceEntry" "serviceentries" ["se"] Namespaced Obeyed;
    WORKLOAD_ENTRIES: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadEntry" "workloadentries" ["we"] Namespaced Obeyed;
    WORKLOAD_GROUPS: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "WorkloadGroup" "workloadgroups" ["wg"] Namespaced Obeyed;
    SIDECARS: "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "Sidecar" "sidecars" [] Namespaced Obeyed;
    ENVOY_FILTERS: "networking.istio.io" ["v1alpha3"] "EnvoyFilter" "envoyfilters" [] Namespaced Obeyed;
    PROXY_CONFIGS: "networking.istio.io" ["v1beta1"] "ProxyConfig" "proxyconfigs" [] Namespaced Obeyed;
    PEER_AUTHENTICATIONS: "security.istio.io" ["v1", "v1beta1"] "PeerAuthentication" "peerauthentications" ["pa"] Namespaced Obeyed;
    REQUEST_AUTHENTICATIONS: "security.istio.io" ["v1", "v1beta1"] "RequestAuthentication" "requestauthentications" ["ra"] Namespaced Obeyed;
    AUTHORIZATION_POLICIES: "security.istio.io" ["v1", "v1beta1"] "AuthorizationPolicy" "authorizationpolicies" ["ap"] Namespaced Obeyed;
    TELEMETRIES: "telemetry.istio.io" ["v1", "v1alpha1"] "Telemetry" "telemetries" ["telemetry"] Namespaced Obeyed;
    WASM_PLUGINS: "extensions.istio.io" ["v1alpha1"] "WasmPlugin" "wasmplugins" [] Namespaced Obeyed;
    TRAFFIC_EXTENSIONS: "extensions.istio.io" ["v1alpha1"] "TrafficExtension" "trafficextensions" [] Namespaced Obeyed;
    GATEWAY_CLASSES: "gateway.networking.k8s.io" ["v1", "v1beta1"] "GatewayClass" "gatewayclasses" ["gc"] Cluster Obeyed;
    GATEWAYS: "gateway.networking.k8s.io" ["v1", "v1beta1"] "Gateway" "gateways" ["gtw"] Namespaced Obeyed;
    HTTP_ROUTES: "gateway.networking.k8s.io" ["v1", "v1beta1"] "HTTPRoute" "httproutes" [] Namespaced Obeyed;
    GRPC_ROUTES: "gateway.networking.k8s.io" ["v1"] "GRPCRoute" "grpcroutes" [] Namespaced Obeyed;
    TLS_ROUTES: "gateway.networking.k8s.io" ["v1", "v1alpha3", "v1alpha2"] "TLSRoute" "tlsroutes" [] Namespaced Obeyed;
    TCP_ROUTES: "gateway.networking.k8s.io" ["v1", "v1alpha2"] "TCPRoute" "tcproutes" [] Namespaced Obeyed;
    UDP_ROUTES: "gateway.networking.k8s.io" ["v1", "v1alpha2"] "UDPRoute" "udproutes" [] Namespaced Obeyed;
    REFERENCE_GRANTS: "gateway.networking.k8s.io" ["v1", "v1beta1", "v1alpha2"] "ReferenceGrant" "referencegrants" ["refgrant"] Namespaced Obeyed;
    BACKEND_TLS_POLICIES: "gateway.networking.k8s.io" ["v1", "v1alpha3"] "BackendTLSPolicy" "backendtlspolicies" ["btlspolicy"] Namespaced Obeyed;
    LISTENER_SETS: "gateway.networking.k8s.io" ["v1"] "ListenerSet" "listenersets" ["lset"] Namespaced Obeyed;
    BACKEND_TRAFFIC_POLICIES: "gateway.networking.x-k8s.io" ["v1alpha1"] "XBackendTrafficPolicy" "xbackendtrafficpolicies" [] Namespaced Obeyed;
    BACKENDS: "gateway.networking.x-k8s.io" ["v1alpha1"] "XBackend" "xbackends" [] Namespaced Obeyed;
    MESHES: "gateway.networking.x-k8s.io" ["v1alpha1"] "XMesh" "xmeshes" [] Cluster Obeyed;
    INFERENCE_POOLS: "inference.networking.k8s.io" ["v1"] "InferencePool" "inferencepools" [] Namespaced Obeyed;
    SERVICE_EXPORTS: "multicluster.x-k8s.io" ["v1alpha1"] "ServiceExport" "serviceexports" [] Namespaced Obeyed;
    SERVICE_IMPORTS: "multicluster.x-k8s.io" ["v1alpha1"] "ServiceImport" "serviceimports" [] Namespaced Obeyed;
}

impl Kind {
    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_string()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// The version that is answered when none is asked for.
    pub fn preferred(&self) -> &'static str {
        self.versions.first().copied().unwrap_or("v1")
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `pod`, as discovery and messages have it.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// The words that mean several kinds at once: `all`, `istio-io`, `gateway-api`.
    pub fn categories(&self) -> &'static [&'static str] {
        match (self.group, self.kind) {
            ("", "Pod" | "Service" | "ReplicationController")
            | ("apps" | "batch", _)
            | ("autoscaling", _) => &["all"],
            ("networking.istio.io", _) => &["istio-io", "networking-istio-io"],
            ("security.istio.io", _) => &["istio-io", "security-istio-io"],
            ("telemetry.istio.io", _) => &["istio-io", "telemetry-istio-io"],
            ("extensions.istio.io", _) => &["istio-io", "extensions-istio-io"],
            ("gateway.networking.k8s.io" | "gateway.networking.x-k8s.io", _) => &["gateway-api"],
            _ => &[],
        }
    }

    /// `pods` or `deployments.apps`, as messages have it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The path of the list or of one object, in the preferred version.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            "/api".to_string()
        } else {
            format!("/apis/{}", self.group)
        };
        let namespace = match namespace {
            Some(namespace) if self.namespaced() => format!("/namespaces/{namespace}"),
            _ => String::new(),
        };
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!(
            "{root}/{}{namespace}/{}{name}",
            self.preferred(),
            self.plural
        )
    }
}

/// The kind that a path names.
pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    ALL.iter().copied().find(|kind| {
        kind.group == group && kind.plural == plural && kind.versions.contains(&version)
    })
}

/// The kind that an object says it is.
pub fn by_object(api_version: &str, name: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ALL.iter()
        .copied()
        .find(|kind| kind.group == group && kind.kind == name && kind.versions.contains(&version))
}

/// The kinds that a word such as `all` or `istio-io` means; empty for any other word.
pub fn by_category(word: &str) -> Vec<&'static Kind> {
    ALL.iter()
        .copied()
        .filter(|kind| kind.categories().contains(&word))
        .collect()
}

/// The kind that somebody typed: `po`, `pods`, `pod`, `deployments.apps`, `Gateway`.
pub fn by_word(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let (plain, group) = match word.split_once('.') {
        Some((plain, group)) => (plain, Some(group)),
        None => (word.as_str(), None),
    };
    ALL.iter().copied().find(|kind| {
        let named = kind.plural == plain || kind.singular() == plain || kind.short.contains(&plain);
        named
            && group.is_none_or(|group| {
                kind.group == group
                    || kind
                        .versions
                        .iter()
                        .any(|version| group == format!("{version}.{}", kind.group))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_object_path_and_word() {
        assert_eq!(
            by_object("networking.istio.io/v1alpha3", "DestinationRule"),
            Some(&DESTINATION_RULES)
        );
        assert_eq!(by_object("networking.istio.io/v2", "DestinationRule"), None);
        assert_eq!(
            by_plural("gateway.networking.k8s.io", "v1", "gateways"),
            Some(&GATEWAYS)
        );
        assert_eq!(by_word("po"), Some(&PODS));
        assert_eq!(
            by_word("gateways.gateway.networking.k8s.io"),
            Some(&GATEWAYS)
        );
        assert_eq!(by_word("Gateway"), Some(&ISTIO_GATEWAYS));
        assert_eq!(
            DEPLOYMENTS.path(Some("a"), Some("b")),
            "/apis/apps/v1/namespaces/a/deployments/b"
        );
        assert_eq!(NODES.path(Some("a"), None), "/api/v1/nodes");
    }

    #[test]
    fn what_the_control_plane_knows_is_served_under_its_newest_version() {
        for info in wire_kube::kinds::KINDS {
            if info.support == wire_kube::kinds::Support::RuntimeOnly {
                continue;
            }
            let kind = by_object(&info.api_version(), info.kind)
                .unwrap_or_else(|| panic!("{} {} is not served", info.api_version(), info.kind));
            let namespaced = info.scope == wire_kube::kinds::Scope::Namespaced;
            assert_eq!(
                (kind.plural, kind.versions, kind.namespaced()),
                (info.plural, info.versions, namespaced),
                "{}",
                info.kind
            );
        }
    }

    #[test]
    fn some_words_mean_several_kinds() {
        let names = |word: &str| -> Vec<&str> {
            by_category(word).iter().map(|kind| kind.plural).collect()
        };
        assert!(names("all").starts_with(&["pods", "services"]));
        assert!(names("istio-io").contains(&"virtualservices"));
        assert!(!names("all").contains(&"configmaps"));
        assert!(names("pods").is_empty());
    }

    #[test]
    fn no_two_kinds_share_a_path() {
        let mut paths: Vec<String> = ALL.iter().map(|kind| kind.path(None, None)).collect();
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
