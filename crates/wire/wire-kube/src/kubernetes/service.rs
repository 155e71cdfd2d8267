//! Service.

use std::collections::BTreeMap;

use crate::meta::ObjectMeta;
use crate::read::IntOrText;

message! {
    partial struct Service {
        metadata: ObjectMeta,
        spec: ServiceSpec,
        status: ServiceStatus,
    }
}

message! {
    partial struct ServiceSpec {
        r#type: String,
        ports: Vec<ServicePort>,
        selector: BTreeMap<String, String>,
        cluster_ip as "clusterIP": String,
        cluster_ips as "clusterIPs": Vec<String>,
        external_ips as "externalIPs": Vec<String>,
        external_name: String,
        publish_not_ready_addresses: bool,
        session_affinity: String,
        internal_traffic_policy: String,
        traffic_distribution: String,
    }
}

message! {
    partial struct ServicePort {
        name: String,
        protocol: String,
        app_protocol: String,
        port: u32,
        target_port: Option<IntOrText>,
        node_port: Option<u32>,
    }
}

message! {
    partial struct ServiceStatus {
        load_balancer: LoadBalancerStatus,
    }
}

message! {
    partial struct LoadBalancerStatus {
        ingress: Vec<LoadBalancerIngress>,
    }
}

message! {
    partial struct LoadBalancerIngress {
        ip: String,
        hostname: String,
    }
}
