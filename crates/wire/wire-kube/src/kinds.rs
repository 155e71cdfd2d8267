//! The table of kinds: what Tanbark knows, in which versions, and whether it is supported yet.
//!
//! Watching, the local API, analysis and messages about unsupported objects all read this one list.

/// One kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    pub id: Kind,
    /// Empty for the core group.
    pub group: &'static str,
    /// Every served version, newest first.
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    pub plural: &'static str,
    /// Short names as kubectl takes them.
    pub short_names: &'static [&'static str],
    pub scope: Scope,
    pub support: Support,
}

/// Whether objects of a kind live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What the control plane does with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Parsed and obeyed.
    Supported,
    /// Known by name, reported as not supported yet, never ignored in silence.
    NotYet,
    /// Used by the one-machine runtime, of no meaning to the control plane.
    RuntimeOnly,
}

impl KindInfo {
    /// `apiVersion` with the newest version.
    pub fn api_version(&self) -> String {
        let version = self.versions.first().copied().unwrap_or("v1");
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// Is this version served?
    pub fn serves(&self, version: &str) -> bool {
        self.versions.contains(&version)
    }
}

macro_rules! kinds {
    ($($id:ident: $group:literal [$($version:literal)+] $plural:literal [$($short:literal)*] $scope:ident $support:ident $(= $kind:literal)?;)*) => {
        /// A kind that Tanbark knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($id),* }

        /// Every known kind.
        pub const KINDS: &[KindInfo] = &[
            $(KindInfo {
                id: Kind::$id,
                group: $group,
                versions: &[$($version),+],
                kind: kinds!(@name $id $($kind)?),
                plural: $plural,
                short_names: &[$($short),*],
                scope: Scope::$scope,
                support: Support::$support,
            }),*
        ];
    };
    (@name $id:ident $kind:literal) => { $kind };
    (@name $id:ident) => { stringify!($id) };
}

kinds! {
    VirtualService: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "virtualservices" ["vs"] Namespaced Supported;
    DestinationRule: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "destinationrules" ["dr"] Namespaced Supported;
    Gateway: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "gateways" ["gw"] Namespaced Supported;
    ServiceEntry: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "serviceentries" ["se"] Namespaced Supported;
    WorkloadEntry: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "workloadentries" ["we"] Namespaced Supported;
    WorkloadGroup: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "workloadgroups" ["wg"] Namespaced NotYet;
    Sidecar: "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "sidecars" [] Namespaced Supported;
    EnvoyFilter: "networking.istio.io" ["v1alpha3"] "envoyfilters" [] Namespaced NotYet;
    ProxyConfig: "networking.istio.io" ["v1beta1"] "proxyconfigs" [] Namespaced NotYet;
    PeerAuthentication: "security.istio.io" ["v1" "v1beta1"] "peerauthentications" ["pa"] Namespaced Supported;
    AuthorizationPolicy: "security.istio.io" ["v1" "v1beta1"] "authorizationpolicies" ["ap"] Namespaced Supported;
    RequestAuthentication: "security.istio.io" ["v1" "v1beta1"] "requestauthentications" ["ra"] Namespaced NotYet;
    Telemetry: "telemetry.istio.io" ["v1" "v1alpha1"] "telemetries" ["telemetry"] Namespaced Supported;
    WasmPlugin: "extensions.istio.io" ["v1alpha1"] "wasmplugins" [] Namespaced NotYet;
    TrafficExtension: "extensions.istio.io" ["v1alpha1"] "trafficextensions" [] Namespaced NotYet;
    GatewayClass: "gateway.networking.k8s.io" ["v1" "v1beta1"] "gatewayclasses" ["gc"] Cluster NotYet;
    ApiGateway: "gateway.networking.k8s.io" ["v1" "v1beta1"] "gateways" ["gtw"] Namespaced NotYet = "Gateway";
    HttpRoute: "gateway.networking.k8s.io" ["v1" "v1beta1"] "httproutes" [] Namespaced NotYet = "HTTPRoute";
    GrpcRoute: "gateway.networking.k8s.io" ["v1"] "grpcroutes" [] Namespaced NotYet = "GRPCRoute";
    TlsRoute: "gateway.networking.k8s.io" ["v1" "v1alpha3" "v1alpha2"] "tlsroutes" [] Namespaced NotYet = "TLSRoute";
    TcpRoute: "gateway.networking.k8s.io" ["v1" "v1alpha2"] "tcproutes" [] Namespaced NotYet = "TCPRoute";
    UdpRoute: "gateway.networking.k8s.io" ["v1" "v1alpha2"] "udproutes" [] Namespaced NotYet = "UDPRoute";
    ReferenceGrant: "gateway.networking.k8s.io" ["v1" "v1beta1" "v1alpha2"] "referencegrants" ["refgrant"] Namespaced NotYet;
    BackendTlsPolicy: "gateway.networking.k8s.io" ["v1" "v1alpha3"] "backendtlspolicies" ["btlspolicy"] Namespaced NotYet = "BackendTLSPolicy";
    ListenerSet: "gateway.networking.k8s.io" ["v1"] "listenersets" ["lset"] Namespaced NotYet;
    XBackendTrafficPolicy: "gateway.networking.x-k8s.io" ["v1alpha1"] "xbackendtrafficpolicies" [] Namespaced NotYet;
    XBackend: "gateway.networking.x-k8s.io" ["v1alpha1"] "xbackends" [] Namespaced NotYet;
    XMesh: "gateway.networking.x-k8s.io" ["v1alpha1"] "xmeshes" [] Cluster NotYet;
    InferencePool: "inference.networking.k8s.io" ["v1"] "inferencepools" [] Namespaced NotYet;
    ServiceExport: "multicluster.x-k8s.io" ["v1alpha1"] "serviceexports" [] Namespaced NotYet;
    ServiceImport: "multicluster.x-k8s.io" ["v1alpha1"] "serviceimports" [] Namespaced NotYet;
    Ingress: "networking.k8s.io" ["v1"] "ingresses" ["ing"] Namespaced NotYet;
    IngressClass: "networking.k8s.io" ["v1"] "ingressclasses" [] Cluster NotYet;
    Namespace: "" ["v1"] "namespaces" ["ns"] Cluster Supported;
    Node: "" ["v1"] "nodes" ["no"] Cluster Supported;
    Service: "" ["v1"] "services" ["svc"] Namespaced Supported;
    Pod: "" ["v1"] "pods" ["po"] Namespaced Supported;
    ServiceAccount: "" ["v1"] "serviceaccounts" ["sa"] Namespaced Supported;
    Secret: "" ["v1"] "secrets" [] Namespaced Supported;
    ConfigMap: "" ["v1"] "configmaps" ["cm"] Namespaced Supported;
    EndpointSlice: "discovery.k8s.io" ["v1"] "endpointslices" [] Namespaced Supported;
    Deployment: "apps" ["v1"] "deployments" ["deploy"] Namespaced RuntimeOnly;
    StatefulSet: "apps" ["v1"] "statefulsets" ["sts"] Namespaced RuntimeOnly;
    ReplicaSet: "apps" ["v1"] "replicasets" ["rs"] Namespaced RuntimeOnly;
    DaemonSet: "apps" ["v1"] "daemonsets" ["ds"] Namespaced RuntimeOnly;
    Job: "batch" ["v1"] "jobs" [] Namespaced RuntimeOnly;
    CronJob: "batch" ["v1"] "cronjobs" ["cj"] Namespaced RuntimeOnly;
    PersistentVolumeClaim: "" ["v1"] "persistentvolumeclaims" ["pvc"] Namespaced RuntimeOnly;
    Event: "" ["v1"] "events" ["ev"] Namespaced RuntimeOnly;
}

impl Kind {
    /// The row of this kind.
    pub fn info(self) -> &'static KindInfo {
        #[expect(
            clippy::indexing_slicing,
            reason = "a constant: the compiler would say so"
        )]
        const UNLISTED: &KindInfo = &KINDS[0];
        KINDS.get(self as usize).unwrap_or(UNLISTED)
    }

    /// The kind's name as objects write it.
    pub fn name(self) -> &'static str {
        self.info().kind
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The group and version of an `apiVersion`; the core group is empty.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The kind of an object, whatever version it is written in.
pub fn find(api_version: &str, kind: &str) -> Option<&'static KindInfo> {
    let (group, _) = split_api_version(api_version);
    KINDS
        .iter()
        .find(|info| info.group == group && info.kind == kind)
}

/// The kind that a person means on a command line: `vs`, `virtualservice`, `VirtualService`, `virtualservices.networking.istio.io`.
pub fn find_by_name(name: &str) -> Option<&'static KindInfo> {
    let lower = name.to_ascii_lowercase();
    let (name, group) = match lower.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (lower.as_str(), None),
    };
    KINDS.iter().find(|info| {
        let named = info.plural == name
            || info.kind.eq_ignore_ascii_case(name)
            || info.short_names.contains(&name);
        named && group.is_none_or(|group| info.group == group)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_kind() {
        for info in KINDS {
            assert_eq!(info.id.info(), info);
            assert_eq!(find(&info.api_version(), info.kind), Some(info));
        }
    }

    #[test]
    fn names_of_people_are_understood() {
        assert_eq!(find_by_name("vs").map(|i| i.id), Some(Kind::VirtualService));
        assert_eq!(find_by_name("Services").map(|i| i.id), Some(Kind::Service));
        assert_eq!(find_by_name("gateway").map(|i| i.id), Some(Kind::Gateway));
        assert_eq!(
            find_by_name("gateways.gateway.networking.k8s.io").map(|i| i.id),
            Some(Kind::ApiGateway)
        );
        assert_eq!(find_by_name("nothing"), None);
        assert_eq!(
            find("networking.istio.io/v1alpha3", "VirtualService").map(|i| i.id),
            Some(Kind::VirtualService)
        );
        assert_eq!(find("networking.k8s.io/v1", "VirtualService"), None);
    }
}
