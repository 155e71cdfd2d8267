//! Which statistics a proxy shows, and with which buckets: Istio's defaults and what ProxyConfig
//! and the pod's annotations add (OBS-002, OBS-003).
//!
//! `proxyStatsMatcher` comes in `PROXY_CONFIG` (the injector merges the pod's
//! `proxy.istio.io/config` into it) or in that annotation itself;
//! `sidecar.istio.io/statsInclusion…` annotations add to it. A bootstrap file says it all itself.

use proxy_config::bootstrap::{StatsInclusion, StatsTag};
use serde_json::Value;
use telemetry::stats::{BucketSettings, Matcher, StringMatch, TagRules};

use crate::Environment;

/// What to show and how; what in it cannot be used, by name.
pub struct Shown {
    pub matcher: Matcher,
    pub tags: TagRules,
    pub buckets: BucketSettings,
    pub problems: Vec<String>,
}

impl Environment {
    /// What this proxy's statistics show.
    pub fn shown(&self) -> Shown {
        let mut extra = Extra::default();
        extra.matcher(self.proxy_config().get("proxyStatsMatcher"));
        let annotations: Option<Value> = self
            .variable("ISTIO_META_ANNOTATIONS")
            .and_then(|text| serde_json::from_str(text).ok());
        let annotation = |name: &str| annotations.as_ref()?.get(name)?.as_str();
        if let Some(text) = annotation("proxy.istio.io/config") {
            match serde_saphyr::from_str::<Value>(text) {
                Ok(config) => extra.matcher(config.get("proxyStatsMatcher")),
                Err(error) => extra
                    .problems
                    .push(format!("annotation proxy.istio.io/config: {error}")),
            }
        }
        for (name, kind) in [
            ("sidecar.istio.io/statsInclusionPrefixes", Kind::Prefix),
            ("sidecar.istio.io/statsInclusionSuffixes", Kind::Suffix),
            ("sidecar.istio.io/statsInclusionRegexps", Kind::Regex),
        ] {
            let listed = annotation(name).unwrap_or_default();
            listed
                .split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .for_each(|text| extra.add(kind, text));
        }
        let mut buckets = BucketSettings::default();
        if let Some(text) = annotation("sidecar.istio.io/statsHistogramBuckets")
            && let Err(why) = read_buckets(text, &mut buckets)
        {
            extra.problems.push(format!(
                "annotation sidecar.istio.io/statsHistogramBuckets: {why}"
            ));
        }
        Shown {
            matcher: Matcher::istio(extra.patterns),
            tags: TagRules::istio(),
            buckets,
            problems: extra.problems,
        }
    }
}

impl Shown {
    /// As a bootstrap file says; one that says nothing shows all.
    pub fn of_bootstrap(stats: &StatsInclusion) -> Self {
        let mut extra = Extra::default();
        let lists = [
            (&stats.prefixes, Kind::Prefix),
            (&stats.suffixes, Kind::Suffix),
            (&stats.regexes, Kind::Regex),
        ];
        for (list, kind) in lists {
            list.iter().for_each(|text| extra.add(kind, text));
        }
        let matcher = if extra.patterns.is_empty() && extra.problems.is_empty() {
            Matcher::all()
        } else {
            Matcher::Include(extra.patterns)
        };
        let mut tags = TagRules::none();
        // Those of the file come first: the first rule of a name counts.
        for (name, tag) in stats.tags.rules.iter() {
            match tag {
                StatsTag::Fixed(value) => tags.push_fixed(name, value),
                StatsTag::Pattern(pattern) => {
                    if let Err(error) = tags.push_regex(name, pattern) {
                        extra
                            .problems
                            .push(format!("statistics tag {name}: {error}"));
                    }
                }
            }
        }
        if stats.tags.use_defaults {
            tags.extend(TagRules::envoy());
        }
        let mut buckets = BucketSettings::default();
        for (names, bounds) in stats.buckets.iter() {
            match StringMatch::regex(names) {
                Ok(names) => buckets.push(names, bounds.to_vec()),
                Err(error) => extra.problems.push(format!("histogram buckets: {error}")),
            }
        }
        Self {
            matcher,
            tags,
            buckets,
            problems: extra.problems,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Prefix,
    Suffix,
    Regex,
}

#[derive(Default)]
struct Extra {
    patterns: Vec<StringMatch>,
    problems: Vec<String>,
}

impl Extra {
    fn matcher(&mut self, matcher: Option<&Value>) {
        let Some(matcher) = matcher else { return };
        for (field, kind) in [
            ("inclusionPrefixes", Kind::Prefix),
            ("inclusionSuffixes", Kind::Suffix),
            ("inclusionRegexps", Kind::Regex),
        ] {
            let listed = matcher.get(field).and_then(Value::as_array);
            listed
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .for_each(|text| self.add(kind, text));
        }
    }

    fn add(&mut self, kind: Kind, text: &str) {
        match kind {
            Kind::Prefix => self.patterns.push(StringMatch::Prefix(text.to_owned())),
            Kind::Suffix => self.patterns.push(StringMatch::Suffix(text.to_owned())),
            Kind::Regex => match StringMatch::regex(text) {
                Ok(pattern) => self.patterns.push(pattern),
                Err(error) => self.problems.push(format!("statistics inclusion: {error}")),
            },
        }
    }
}

/// `{"istiocustom":[1,5,10],"cluster.xds-grpc":[1,5]}`: bounds by prefix of the name, ascending.
fn read_buckets(text: &str, buckets: &mut BucketSettings) -> Result<(), String> {
    let by_prefix: std::collections::BTreeMap<String, Vec<f64>> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    for (prefix, bounds) in by_prefix {
        if !bounds.iter().all(|bound| *bound > 0.0) || !bounds.is_sorted_by(|a, b| a < b) {
            return Err(format!(
                "the bounds of {prefix} must be positive and ascend"
            ));
        }
        buckets.push(StringMatch::Prefix(prefix), bounds);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(
            Role::Sidecar,
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .unwrap()
    }

    #[test]
    fn little_is_shown_unless_the_pod_asks_for_more() {
        let overflow = "cluster.outbound|80||a;.upstream_rq_pending_overflow";
        assert!(!environment(&[]).shown().matcher.shows(overflow));
        let config =
            r#"{"proxyStatsMatcher":{"inclusionRegexps":[".*upstream_rq_pending_overflow","("]}}"#;
        let shown = environment(&[("PROXY_CONFIG", config)]).shown();
        assert!(
            shown.matcher.shows(overflow)
                && !shown
                    .matcher
                    .shows("cluster.outbound|80||a;.upstream_rq_total")
        );
        assert_eq!(shown.problems.len(), 1);
        let annotations = r#"{"sidecar.istio.io/statsInclusionSuffixes":"upstream_rq_total, x",
            "proxy.istio.io/config":"proxyStatsMatcher:\n  inclusionPrefixes: [http.]\n",
            "sidecar.istio.io/statsHistogramBuckets":"{\"cluster\":[1,5]}"}"#;
        let shown = environment(&[("ISTIO_META_ANNOTATIONS", annotations)]).shown();
        assert!(
            shown.matcher.shows("cluster.a;.upstream_rq_total")
                && shown.matcher.shows("http.b.downstream_rq_total")
        );
        assert_eq!(
            (shown.buckets.bounds("cluster.a"), shown.problems.len()),
            (&[1.0, 5.0][..], 0)
        );
    }

    #[test]
    fn a_bootstrap_file_that_says_nothing_shows_all() {
        assert!(
            Shown::of_bootstrap(&StatsInclusion::default())
                .matcher
                .shows("anything")
        );
        let some = StatsInclusion {
            prefixes: ["cluster.".into()].into(),
            ..StatsInclusion::default()
        };
        assert!(!Shown::of_bootstrap(&some).matcher.shows("anything"));
    }
}
