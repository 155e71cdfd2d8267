//! Does a rule of a VirtualService match what an earlier one has taken already?

use ingest::{Domain, Key, Severity, code};
use mesh_model::VirtualService;
use mesh_model::virtual_service::HttpMatch;
use wire_kube::kinds::Kind;

use crate::cx::Cx;
use crate::rule::{Rule, Units};

pub(super) const RULE: Rule = Rule {
    name: "virtual_service_matches",
    codes: &[
        (code::UNREACHABLE_RULE, Severity::Warning),
        (code::INEFFECTIVE_MATCH, Severity::Info),
    ],
    docs: "A match is the same as one of an earlier rule, which takes its requests. Where that is so for all matches of a rule, the rule is never used.",
    reads: &[],
    units: Units::Each {
        kinds: &[Kind::VirtualService],
        check,
    },
};

fn check(cx: &mut Cx, key: &Key, domain: &Domain) {
    let Domain::VirtualService(vs) = domain else {
        return;
    };
    for (protocol, rules) in rules(vs) {
        let mut seen: Vec<(usize, &String)> = Vec::new();
        for (index, matches) in rules.iter().enumerate() {
            let earlier: Vec<Option<usize>> = matches
                .iter()
                .map(|own| {
                    seen.iter()
                        .find(|(_, other)| *other == own)
                        .map(|(at, _)| *at)
                })
                .collect();
            let at = format!("spec.{protocol}[{index}]");
            if let Some(Some(first)) = earlier.first()
                && earlier.iter().all(Option::is_some)
            {
                let message = format!(
                    "is never used: spec.{protocol}[{first}] has the same match and comes first"
                );
                cx.say(key, code::UNREACHABLE_RULE, at, message);
            } else {
                let doubled = earlier.iter().enumerate();
                for (entry, first) in doubled.filter_map(|(entry, first)| Some((entry, (*first)?)))
                {
                    let message =
                        format!("has no effect: spec.{protocol}[{first}] has the same match");
                    let path = format!("{at}.match[{entry}]");
                    cx.say(key, code::INEFFECTIVE_MATCH, path, message);
                }
            }
            seen.extend(matches.iter().map(|own| (index, own)));
        }
    }
}

/// Protocol → for each rule what its matches ask for, as a text that is equal where that is.
fn rules(vs: &VirtualService) -> [(&'static str, Vec<Vec<String>>); 3] {
    let nameless = |own: &HttpMatch| HttpMatch {
        name: None,
        stat_prefix: None,
        ..own.clone()
    };
    let http = vs.http.iter().map(|rule| {
        let matches = rule.matches.iter();
        matches.map(|own| format!("{:?}", nameless(own))).collect()
    });
    let tls = vs.tls.iter().map(|rule| {
        let matches = rule.matches.iter();
        matches.map(|own| format!("{own:?}")).collect()
    });
    let tcp = vs.tcp.iter().map(|rule| {
        let matches = rule.matches.iter();
        matches.map(|own| format!("{own:?}")).collect()
    });
    [
        ("http", http.collect()),
        ("tls", tls.collect()),
        ("tcp", tcp.collect()),
    ]
}
