//! DestinationRule: how connections to a host are made (reference rows TM-040 … TM-055).

use mesh_model::DestinationRule;
use mesh_model::destination_rule::Subset;
use wire_kube::istio::destination_rule as wire;
use wire_kube::istio::selector::WorkloadSelector;

use crate::cx::Cx;
use crate::traffic_policy::traffic_policy;
use crate::value::{checked_labels, export_to};

pub fn parse(cx: &mut Cx, spec: wire::DestinationRule) -> Option<DestinationRule> {
    let wire::DestinationRule {
        host,
        traffic_policy: policy,
        subsets,
        export_to: export,
        workload_selector,
    } = spec;
    if host.is_empty() {
        cx.error_at("host", "is needed");
        return None;
    }
    let host = cx.host_at("host", &host);
    let policy = cx
        .optional("trafficPolicy", policy, |cx, p| Some(traffic_policy(cx, p)))
        .unwrap_or_default();
    let subsets = cx.collect("subsets", subsets, subset);
    for (index, subset) in subsets.iter().enumerate() {
        if subsets
            .iter()
            .take(index)
            .any(|before| before.name == subset.name)
        {
            cx.error_at(
                "subsets",
                format!("two subsets are named {:?}", &*subset.name),
            );
        }
    }
    let export_to = export_to(
        cx,
        "exportTo",
        &export,
        &cx.mesh.default_destination_rule_export_to,
    );
    let workload_selector = cx.optional("workloadSelector", workload_selector, |cx, selector| {
        let WorkloadSelector { match_labels } = selector;
        cx.within("matchLabels", |cx| checked_labels(cx, &match_labels))
    });
    Some(DestinationRule {
        meta: cx.meta.clone(),
        host: host?,
        policy,
        subsets: subsets.into(),
        export_to,
        workload_selector,
    })
}

fn subset(cx: &mut Cx, value: wire::Subset) -> Option<Subset> {
    let wire::Subset {
        name,
        labels,
        traffic_policy: policy,
    } = value;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !is_name {
        cx.error_at(
            "name",
            format!("{name:?} is not the name of a subset: use letters, digits, `-`, `_`, `.`"),
        );
    }
    let selector = cx
        .within("labels", |cx| checked_labels(cx, &labels))
        .unwrap_or_default();
    let policy = cx
        .optional("trafficPolicy", policy, |cx, p| Some(traffic_policy(cx, p)))
        .unwrap_or_default();
    Some(Subset {
        name: name.into(),
        labels: selector,
        policy,
    })
}
