//! YAML of the workloads that tests use: `tanbark-echo` as a Deployment with its service account and Service.

use serde_json::{Value, json};

/// Ports of every echo: HTTP (Service 8000 → 8080), gRPC and TCP.
const PORTS: [(&str, u16, u16); 3] = [
    ("http", 8000, 8080),
    ("grpc", 9090, 9090),
    ("tcp", 9000, 9000),
];

/// A Deployment `NAME-VERSION` of the echo, labelled `app` and `version`.
#[derive(Debug, Clone)]
pub struct Workload {
    name: String,
    namespace: String,
    version: String,
    replicas: u32,
    sidecar: bool,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
    /// What runs in place of the echo.
    shell: Option<String>,
    environment: Vec<(String, String)>,
}

/// An echo with one replica, version v1, in the namespace `default`.
pub fn echo(name: &str) -> Workload {
    let (name, namespace, version) = (name.into(), "default".into(), "v1".into());
    Workload {
        name,
        namespace,
        version,
        replicas: 1,
        sidecar: true,
        labels: Vec::new(),
        annotations: Vec::new(),
        shell: None,
        environment: Vec::new(),
    }
}

/// A namespace, with sidecars or without.
pub fn namespace(name: &str, sidecars: bool) -> String {
    let injection = if sidecars { "enabled" } else { "disabled" };
    document(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"istio-injection": injection}}}),
    )
}

/// A Service with the echo's HTTP port over the pods that carry all of `selector`.
pub fn service(namespace: &str, name: &str, selector: &[(&str, &str)]) -> String {
    service_of(namespace, name, selector, &PORTS[..1])
}

/// A Service with all of the echo's ports.
pub fn whole_service(namespace: &str, name: &str, selector: &[(&str, &str)]) -> String {
    service_of(namespace, name, selector, &PORTS)
}

fn service_of(
    namespace: &str,
    name: &str,
    selector: &[(&str, &str)],
    ports: &[(&str, u16, u16)],
) -> String {
    let selector: serde_json::Map<String, Value> = selector
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target}))
        .collect();
    document(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"selector": selector, "ports": ports},
    }))
}

/// The mesh's settings that tests rely on: access logs on standard output.
pub fn mesh_settings() -> String {
    let mesh = "accessLogFile: /dev/stdout\nenablePrometheusMerge: true\n";
    document(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh}}),
    )
}

impl Workload {
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        self.version = version.into();
        self
    }

    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    pub fn without_sidecar(mut self) -> Self {
        self.sidecar = false;
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.into(), value.into()));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs a shell command in place of the echo.
    pub fn shell(mut self, command: &str) -> Self {
        self.shell = Some(command.into());
        self
    }

    /// Its service account and Deployment.
    pub fn yaml(&self) -> String {
        let Self {
            name,
            namespace,
            version,
            replicas,
            sidecar,
            labels,
            annotations,
            shell,
            environment,
        } = self;
        let mut pod_labels = json!({"app": name, "version": version});
        for (key, value) in labels {
            pod_labels[key] = json!(value);
        }
        if !sidecar {
            pod_labels["sidecar.istio.io/inject"] = json!("false");
        }
        let annotations: serde_json::Map<String, Value> = annotations
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let mut environment: Vec<Value> = environment
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        environment.push(json!({"name": "SERVICE_VERSION", "value": version}));
        environment.push(
            json!({"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        );
        let container = match shell {
            Some(command) => {
                json!({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", command], "env": environment})
            }
            None => json!({
                "name": name, "image": "tanbark/tanbark-echo", "args": ["serve", "--http", "8080", "--grpc", "9090", "--tcp", "9000"], "env": environment,
                "ports": PORTS.map(|(_, _, port)| json!({"containerPort": port})),
                "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
            }),
        };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("{name}-{version}"), "namespace": namespace},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name, "version": version}},
                "template": {
                    "metadata": {"labels": pod_labels, "annotations": annotations},
                    "spec": {"serviceAccountName": name, "terminationGracePeriodSeconds": 10, "containers": [container]},
                },
            },
        });
        format!("{}{}", document(&account), document(&deployment))
    }

    /// Its service account, Deployment, and a Service of its name over all versions.
    pub fn with_service(&self) -> String {
        format!(
            "{}{}",
            self.yaml(),
            whole_service(&self.namespace, &self.name, &[("app", &self.name)])
        )
    }
}

/// JSON is YAML; `---` ends the document.
fn document(value: &Value) -> String {
    format!("{value}\n---\n")
}
