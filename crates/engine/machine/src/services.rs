//! Keeps the kernel's table of Service addresses equal to Services and EndpointSlices.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use serde_json::Value;

use crate::blocking::blocking;
use crate::context::Context;
use crate::object;
use crate::rules::services::{Affinity, Protocol, Vip, rules};
use crate::store::Store;
use crate::store::kinds::{ENDPOINT_SLICES, SERVICES};

/// Writes the table whenever it changes. `way_out` is the port of the listener for connections to
/// the world.
pub async fn run(context: Arc<Context>, way_out: Option<u16>) {
    let mut version = context.store.version();
    let mut last = None;
    loop {
        version.mark_unchanged();
        let vips = vips_of(&context.store);
        if last.as_ref() != Some(&vips) {
            let text = rules(&vips, way_out, context.network.firewall());
            let worker = context.clone();
            match blocking(move || worker.network.publish_services(&text)).await {
                Ok(()) => last = Some(vips),
                Err(error) => tracing::error!(%error, "the table of Services is not written"),
            }
        }
        if version.changed().await.is_err() {
            return;
        }
    }
}

/// All addresses with their ready endpoints.
pub fn vips_of(store: &Store) -> Vec<Vip> {
    let mut vips = Vec::new();
    for service in store.all(&SERVICES) {
        let Ok(address) = object::text(&service, "/spec/clusterIP").parse::<Ipv4Addr>() else {
            continue;
        };
        let affinity = match object::text(&service, "/spec/sessionAffinity") {
            "ClientIP" => Affinity::Client,
            _ => Affinity::None,
        };
        for port in object::list(&service, "/spec/ports") {
            let protocol = match object::text(port, "/protocol") {
                "UDP" => Protocol::Udp,
                "SCTP" => continue,
                _ => Protocol::Tcp,
            };
            let Some(number) =
                object::number(port, "/port").and_then(|number| u16::try_from(number).ok())
            else {
                continue;
            };
            vips.push(Vip {
                address,
                port: number,
                protocol,
                affinity,
                endpoints: endpoints_of(store, &service, object::text(port, "/name")),
            });
        }
    }
    vips
}

/// The ready endpoints of a Service's port.
pub fn endpoints_of(store: &Store, service: &Value, port_name: &str) -> Vec<SocketAddrV4> {
    let mut endpoints = Vec::new();
    for slice in store
        .list(&ENDPOINT_SLICES, Some(object::namespace(service)))
        .0
    {
        if object::labels(&slice)
            .get("kubernetes.io/service-name")
            .map(String::as_str)
            != Some(object::name(service))
        {
            continue;
        }
        let port = object::list(&slice, "/ports")
            .iter()
            .find(|port| object::text(port, "/name") == port_name);
        let Some(port) = port
            .and_then(|port| object::number(port, "/port"))
            .and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        for endpoint in object::list(&slice, "/endpoints") {
            if endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                .unwrap_or(true)
            {
                let addresses = object::list(endpoint, "/addresses")
                    .iter()
                    .filter_map(|address| address.as_str()?.parse().ok());
                endpoints.extend(addresses.map(|address| SocketAddrV4::new(address, port)));
            }
        }
    }
    endpoints.sort();
    endpoints
}
