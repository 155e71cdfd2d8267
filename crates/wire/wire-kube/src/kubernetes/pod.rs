//! Pod: what its place in the mesh depends on.

use crate::meta::ObjectMeta;

message! {
    partial struct Pod {
        metadata: ObjectMeta,
        spec: PodSpec,
        status: PodStatus,
    }
}

message! {
    partial struct PodSpec {
        service_account_name: String,
        node_name: String,
        hostname: String,
        subdomain: String,
        host_network: bool,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
    }
}

message! {
    partial struct Container {
        name: String,
        image: String,
        ports: Vec<ContainerPort>,
        restart_policy: String,
    }
}

message! {
    partial struct ContainerPort {
        name: String,
        container_port: u32,
        protocol: String,
    }
}

message! {
    partial struct PodStatus {
        phase: String,
        pod_ip as "podIP": String,
        pod_ips as "podIPs": Vec<PodIp>,
        host_ip as "hostIP": String,
        conditions: Vec<PodCondition>,
    }
}

message! {
    partial struct PodIp {
        ip: String,
    }
}

message! {
    partial struct PodCondition {
        r#type: String,
        status: String,
    }
}
