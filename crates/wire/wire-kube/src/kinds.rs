//! The table of kinds: what Tanbark knows, in which versions, and what it does with it. There is no
//! other.
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

/// What is done with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// The control plane parses and obeys them.
    Supported,
    /// The control plane knows them by name and reports that they are not supported yet; never
    /// ignored in silence.
    NotYet,
    /// The one-machine runtime obeys them; of no meaning to the control plane.
    RuntimeOnly,
    /// Stored so that files with them apply; they have no effect on one machine, which is reported.
    Inert,
}

impl KindInfo {
    /// `apiVersion` with the newest version: `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        self.in_version(self.preferred())
    }

    /// `apiVersion` with this version.
    pub fn in_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// The newest version: the one that is answered when none is asked for.
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
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The path in Kubernetes' API of the list or of one object, in the newest version.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let namespace = match namespace {
            Some(namespace) if self.namespaced() => format!("/namespaces/{namespace}"),
            _ => String::new(),
        };
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!(
            "/{root}/{}{namespace}/{}{name}",
            self.api_version(),
            self.plural
        )
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
    Pod: "" ["v1"] "pods" ["po"] Namespaced Supported;
    Service: "" ["v1"] "services" ["svc"] Namespaced Supported;
    ServiceAccount: "" ["v1"] "serviceaccounts" ["sa"] Namespaced Supported;
    Secret: "" ["v1"] "secrets" [] Namespaced Supported;
    ConfigMap: "" ["v1"] "configmaps" ["cm"] Namespaced Supported;
    EndpointSlice: "discovery.k8s.io" ["v1"] "endpointslices" [] Namespaced Supported;
    Endpoints: "" ["v1"] "endpoints" ["ep"] Namespaced RuntimeOnly;
    Event: "" ["v1"] "events" ["ev"] Namespaced RuntimeOnly;
    Deployment: "apps" ["v1"] "deployments" ["deploy"] Namespaced RuntimeOnly;
    ReplicaSet: "apps" ["v1"] "replicasets" ["rs"] Namespaced RuntimeOnly;
    StatefulSet: "apps" ["v1"] "statefulsets" ["sts"] Namespaced RuntimeOnly;
    DaemonSet: "apps" ["v1"] "daemonsets" ["ds"] Namespaced RuntimeOnly;
    Job: "batch" ["v1"] "jobs" [] Namespaced RuntimeOnly;
    Lease: "coordination.k8s.io" ["v1"] "leases" [] Namespaced RuntimeOnly;
    CronJob: "batch" ["v1"] "cronjobs" ["cj"] Namespaced Inert;
    ReplicationController: "" ["v1"] "replicationcontrollers" ["rc"] Namespaced Inert;
    PersistentVolumeClaim: "" ["v1"] "persistentvolumeclaims" ["pvc"] Namespaced Inert;
    PersistentVolume: "" ["v1"] "persistentvolumes" ["pv"] Cluster Inert;
    LimitRange: "" ["v1"] "limitranges" ["limits"] Namespaced Inert;
    ResourceQuota: "" ["v1"] "resourcequotas" ["quota"] Namespaced Inert;
    Role: "rbac.authorization.k8s.io" ["v1"] "roles" [] Namespaced Inert;
    RoleBinding: "rbac.authorization.k8s.io" ["v1"] "rolebindings" [] Namespaced Inert;
    ClusterRole: "rbac.authorization.k8s.io" ["v1"] "clusterroles" [] Cluster Inert;
    ClusterRoleBinding: "rbac.authorization.k8s.io" ["v1"] "clusterrolebindings" [] Cluster Inert;
    NetworkPolicy: "networking.k8s.io" ["v1"] "networkpolicies" ["netpol"] Namespaced Inert;
    HorizontalPodAutoscaler: "autoscaling" ["v2" "v1"] "horizontalpodautoscalers" ["hpa"] Namespaced Inert;
    PodDisruptionBudget: "policy" ["v1"] "poddisruptionbudgets" ["pdb"] Namespaced Inert;
    CustomResourceDefinition: "apiextensions.k8s.io" ["v1"] "customresourcedefinitions" ["crd"] Cluster Inert;
    MutatingWebhookConfiguration: "admissionregistration.k8s.io" ["v1"] "mutatingwebhookconfigurations" [] Cluster Inert;
    ValidatingWebhookConfiguration: "admissionregistration.k8s.io" ["v1"] "validatingwebhookconfigurations" [] Cluster Inert;
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

/// The kind of an object that is written in a served version.
pub fn find_served(api_version: &str, kind: &str) -> Option<&'static KindInfo> {
    let (_, version) = split_api_version(api_version);
    find(api_version, kind).filter(|info| info.serves(version))
}

/// The kind that a path of Kubernetes' API names.
pub fn find_by_plural(group: &str, version: &str, plural: &str) -> Option<&'static KindInfo> {
    KINDS
        .iter()
        .find(|info| info.group == group && info.plural == plural && info.serves(version))
}

/// The kind that a person means on a command line: `vs`, `virtualservice`, `VirtualService`,
/// `virtualservices.networking.istio.io`,
/// `deployments.v1.apps`.
pub fn find_by_name(name: &str) -> Option<&'static KindInfo> {
    let lower = name.to_ascii_lowercase();
    let (name, rest) = match lower.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (lower.as_str(), None),
    };
    KINDS.iter().find(|info| {
        let named = info.plural == name
            || info.kind.eq_ignore_ascii_case(name)
            || info.short_names.contains(&name);
        let meant = |rest: &str| {
            let versioned = |(version, group)| info.group == group && info.serves(version);
            info.group == rest || rest.split_once('.').is_some_and(versioned)
        };
        named && rest.is_none_or(meant)
    })
}

/// The kinds that a word such as `all` or `istio-io` means; empty for any other word.
pub fn find_by_category(word: &str) -> Vec<&'static KindInfo> {
    let means = |info: &&KindInfo| info.categories().contains(&word);
    KINDS.iter().filter(means).collect()
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
    fn some_words_mean_several_kinds() {
        let names = |word: &str| -> Vec<&str> {
            let found = find_by_category(word);
            found.iter().map(|info| info.plural).collect()
        };
        assert!(names("all").starts_with(&["pods", "services"]));
        assert!(names("istio-io").contains(&"virtualservices"));
        assert!(!names("all").contains(&"configmaps"));
        assert!(names("pods").is_empty());
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
        assert_eq!(
            find_by_name("deployments.v1.apps").map(|i| i.id),
            Some(Kind::Deployment)
        );
        assert_eq!(find_by_name("deployments.v2.apps"), None);
        assert_eq!(find_by_name("nothing"), None);
        assert_eq!(
            find("networking.istio.io/v1alpha3", "VirtualService").map(|i| i.id),
            Some(Kind::VirtualService)
        );
        assert_eq!(find("networking.k8s.io/v1", "VirtualService"), None);
    }

    #[test]
    fn a_version_that_is_not_served_is_known_but_not_found_as_served() {
        let (version, kind) = ("networking.istio.io/v2", "DestinationRule");
        assert!(find(version, kind).is_some() && find_served(version, kind).is_none());
        assert_eq!(find_by_plural("apps", "v2", "deployments"), None);
    }

    #[test]
    fn paths_are_kubernetes_own_and_no_two_kinds_share_one() {
        let path = |kind: Kind| kind.info().path(Some("a"), Some("b"));
        assert_eq!(
            path(Kind::Deployment),
            "/apis/apps/v1/namespaces/a/deployments/b"
        );
        assert_eq!(path(Kind::Node), "/api/v1/nodes/b");
        let mut paths: Vec<String> = KINDS.iter().map(|info| info.path(None, None)).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), KINDS.len());
    }
}
