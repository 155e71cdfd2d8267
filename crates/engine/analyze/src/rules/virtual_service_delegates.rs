//! Do the delegates of a VirtualService exist, and do their routes lie within what they are handed?

use ingest::snapshot::reaches;
use ingest::{Domain, Key, Severity, code};
use mesh_model::virtual_service::{HttpAction, HttpRoute, VirtualService};
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Source, Units};

pub(super) const RULE: Rule = Rule {
    name: "virtual_service_delegates",
    codes: &[
        (code::REFERENCE_NOT_FOUND, Severity::Error),
        (code::UNREACHABLE_RULE, Severity::Warning),
    ],
    docs: "A route delegates to a VirtualService that does not exist, has hosts of its own or is not exported to it: the route is left out. A route of a delegate that asks for what its root's match does not hand over is left out, too.",
    reads: &[Source::Objects(Kind::VirtualService)],
    units: Units::Each {
        kinds: &[Kind::VirtualService],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::VirtualService(vs) = domain else {
        return;
    };
    for (index, route) in vs.http.iter().enumerate() {
        let HttpAction::Delegate { namespace, name } = &route.action else {
            continue;
        };
        let found = cx.meaning(&Key {
            kind: Kind::VirtualService,
            namespace: namespace.clone(),
            name: name.clone(),
        });
        let message = match found {
            Some(Domain::VirtualService(delegate)) if !delegate.hosts.is_empty() => {
                format!("VirtualService {namespace}/{name} has hosts, so it is no delegate")
            }
            Some(Domain::VirtualService(delegate))
                if !delegate.export_to.includes(&key.namespace) =>
            {
                format!(
                    "VirtualService {namespace}/{name} is not exported to namespace {}: this route is left out",
                    key.namespace
                )
            }
            Some(Domain::VirtualService(delegate)) => {
                routes_outside(cx, key, (index, route), delegate);
                continue;
            }
            _ => format!("no VirtualService {namespace}/{name} exists: this route is left out"),
        };
        let path = format!("spec.http[{index}].delegate");
        cx.say(key, code::REFERENCE_NOT_FOUND, path, message);
    }
}

/// Routes of a delegate that ask for what its root does not hand over.
fn routes_outside(
    cx: &mut Cx,
    root: &Key,
    (index, route): (usize, &HttpRoute),
    delegate: &VirtualService,
) {
    let key = Key {
        kind: Kind::VirtualService,
        namespace: delegate.meta.object.namespace.clone(),
        name: delegate.meta.object.name.clone(),
    };
    for (number, inner) in delegate.http.iter().enumerate() {
        if !reaches(route, inner) {
            let message = format!(
                "lies outside of what {root} hands over by spec.http[{index}].match: this route is left out"
            );
            let path = format!("spec.http[{number}].match");
            cx.say(&key, code::UNREACHABLE_RULE, path, message);
        }
    }
}
