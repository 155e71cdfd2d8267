//! A gRPC service that this proxy calls: a cluster and a time limit.

use std::time::Duration;

use proxy_config::ClusterName;
use wire_envoy::pb::{self, core::grpc_service::TargetSpecifier};

use crate::{
    context::Cx,
    judgement::take,
    reject::{Refusal, Within},
    scalar,
};

pub(crate) struct Service {
    pub(crate) cluster: ClusterName,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) fn service(cx: &mut Cx, value: pb::core::GrpcService) -> Result<Service, Refusal> {
    take!(cx, value => pb::core::GrpcService {
        read { timeout, target_specifier }
        ignore "what is sent is retried by its exporter" { retry_policy }
        reject "metadata is not added" { initial_metadata }
    });
    let grpc = match target_specifier.ok_or_else(|| Refusal::missing("target_specifier"))? {
        TargetSpecifier::EnvoyGrpc(grpc) => grpc,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(Refusal::at("google_grpc", "only envoy_grpc is supported"));
        }
    };
    take!(cx, grpc => pb::core::grpc_service::EnvoyGrpc {
        read { cluster_name }
        ignore "the cluster's name is the authority" { authority }
        ignore "what is sent is retried by its exporter" { retry_policy }
        ignore "answers are small" { max_receive_message_length }
        ignore "no headers of Envoy are sent" { skip_envoy_headers }
    });
    let cluster = ClusterName::parse(cluster_name)
        .map_err(|e| Refusal::at("envoy_grpc.cluster_name", e.to_string()))?;
    Ok(Service {
        cluster,
        timeout: scalar::limit("timeout", timeout, None).within("envoy_grpc")?,
    })
}
