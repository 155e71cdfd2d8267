//! References to gateways, of a VirtualService and of its matches.

use mesh_model::virtual_service::GatewayRef;

use crate::cx::Cx;
use crate::value::is_dns_label;

/// `mesh`, `name` (of the object's own namespace), `namespace/name`, or Istio's old `name.namespace.svc.…`.
pub(super) fn gateway_refs(cx: &mut Cx, gateways: &[String]) -> Vec<GatewayRef> {
    let own = cx.namespace().clone();
    cx.collect("gateways", gateways, |cx, gateway| {
        let named = |namespace: &str, name: &str| {
            Some(GatewayRef::Named {
                namespace: namespace.into(),
                name: name.into(),
            })
        };
        match (gateway.as_str(), gateway.split_once('/')) {
            ("mesh", _) => Some(GatewayRef::Mesh),
            (_, Some((namespace, name)))
                if is_dns_label(namespace) && name.split('.').all(is_dns_label) =>
            {
                named(namespace, name)
            }
            (name, None) if is_dns_label(name) => named(&own, name),
            (name, None) if name.split('.').all(is_dns_label) => {
                let mut parts = name.splitn(3, '.');
                let (first, second) = (
                    parts.next().unwrap_or_default(),
                    parts.next().unwrap_or_default(),
                );
                named(second, first)
            }
            (other, _) => {
                cx.error(format!(
                    "{other:?} is not a gateway: write name, namespace/name or mesh"
                ));
                None
            }
        }
    })
}
