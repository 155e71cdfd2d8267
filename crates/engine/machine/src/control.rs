//! The control plane as objects: the Deployment, Service and account `istiod` of the namespace `istio-system`.
//!
//! Names, labels and ports are those of Istio's own installation, so that its tools find them.

use serde_json::{Value, json};

use crate::names::{CONTROL_IMAGE, SYSTEM_NAMESPACE};
use crate::options::Options;
use crate::state::State;

/// `metadata` of all three.
pub fn control_metadata() -> Value {
    json!({"name": "istiod", "namespace": SYSTEM_NAMESPACE, "labels": {"app": "istiod", "istio": "pilot"}})
}

/// The control plane's Service, with istiod's name and ports.
pub fn control_service() -> Value {
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    let ports = [
        port("grpc-xds", 15_010, 15_010),
        port("https-dns", 15_012, 15_012),
        port("https-webhook", 443, 15_017),
        port("http-monitoring", 15_014, 15_014),
    ];
    json!({"metadata": control_metadata(), "spec": {"selector": {"app": "istiod", "istio": "pilot"}, "ports": ports}})
}

/// The `spec` of the control plane's pod.
pub fn control_pod(options: &Options, state: &State) -> Value {
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (socket, folder) = (path(state.socket()), path(state.control()));
    let mut environment = vec![
        json!({"name": "TANBARK_API_SOCKET", "value": socket}),
        json!({"name": "TANBARK_CONTROL_STATE", "value": folder}),
        json!({"name": "TRUST_DOMAIN", "value": options.trust_domain}),
        json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        json!({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}),
        json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
    ];
    let mut volumes = vec![
        json!({"name": "api", "hostPath": {"path": socket}}),
        json!({"name": "state", "hostPath": {"path": folder}}),
    ];
    let mut mounts = vec![
        json!({"name": "api", "mountPath": socket}),
        json!({"name": "state", "mountPath": folder}),
    ];
    if let Some(file) = &options.mesh_config {
        let file = file.display().to_string();
        environment.push(json!({"name": "TANBARK_MESH_CONFIG", "value": file}));
        volumes.push(json!({"name": "mesh", "hostPath": {"path": file}}));
        mounts.push(json!({"name": "mesh", "mountPath": file, "readOnly": true}));
    }
    let ports = [15_010, 15_012, 15_014, 15_017]
        .map(|port: u16| json!({"containerPort": port, "protocol": "TCP"}));
    json!({
        "serviceAccountName": "istiod", "volumes": volumes, "terminationGracePeriodSeconds": 5, "enableServiceLinks": false,
        "containers": [{
            "name": "discovery", "image": CONTROL_IMAGE, "env": environment, "volumeMounts": mounts,
            "ports": ports,
            "securityContext": {"runAsUser": 0, "runAsGroup": 0},
            "readinessProbe": {"tcpSocket": {"port": 15_012}, "periodSeconds": 2},
        }],
    })
}
