//! Istio's names of clusters taken apart: `direction|port|subset|service`.

/// What a cluster's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName {
    pub direction: String,
    pub port: Option<u16>,
    pub subset: String,
    /// The service, or the whole name of a cluster that is named otherwise.
    pub service: String,
}

impl ClusterName {
    pub fn parse(name: &str) -> Self {
        let parts: Vec<&str> = name.split('|').collect();
        match parts.as_slice() {
            [direction, port, subset, service] => Self {
                direction: direction.trim_end_matches('_').trim_end_matches('.').into(),
                port: port.parse().ok(),
                subset: (*subset).into(),
                service: (*service).into(),
            },
            _ => Self {
                direction: String::new(),
                port: None,
                subset: String::new(),
                service: name.into(),
            },
        }
    }
}

/// Filters that several tables have, with istioctl's meaning: names by a part of them.
pub fn service_filter(
    name: &ClusterName,
    port: Option<u16>,
    subset: Option<&str>,
    direction: Option<&str>,
    fqdn: Option<&str>,
) -> bool {
    port.is_none_or(|port| name.port == Some(port))
        && subset.is_none_or(|subset| name.subset.contains(subset))
        && direction.is_none_or(|direction| name.direction.eq_ignore_ascii_case(direction))
        && fqdn.is_none_or(|fqdn| name.service.contains(fqdn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = ClusterName::parse("outbound|9080|v1|reviews.default.svc.cluster.local");
        assert_eq!(
            (
                name.direction.as_str(),
                name.port,
                name.subset.as_str(),
                name.service.as_str()
            ),
            (
                "outbound",
                Some(9080),
                "v1",
                "reviews.default.svc.cluster.local"
            )
        );
        assert_eq!(
            ClusterName::parse("PassthroughCluster").service,
            "PassthroughCluster"
        );
        assert_eq!(ClusterName::parse("inbound|9080||").direction, "inbound");
    }
}
