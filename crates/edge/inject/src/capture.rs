//! What of a pod's traffic its sidecar takes: the annotations `traffic.sidecar.istio.io/…` (Istio,
//! "Resource annotations").
//!
//! Only the reading is here; the rules of the kernel that do it are made by whoever runs the pod.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

/// Everything or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<T> {
    /// `*`
    All,
    /// These; possibly none.
    Only(Vec<T>),
}

/// What of a pod's traffic goes through its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// `includeInboundPorts`
    pub inbound: Selection<u16>,
    /// `excludeInboundPorts`, without the proxy's own.
    pub not_inbound: Vec<u16>,
    /// `includeOutboundPorts`: captured whatever the ranges say.
    pub outbound_ports: Vec<u16>,
    /// `excludeOutboundPorts`
    pub not_outbound_ports: Vec<u16>,
    /// `includeOutboundIPRanges`
    pub outbound_ranges: Selection<Ipv4Net>,
    /// `excludeOutboundIPRanges`
    pub not_outbound_ranges: Vec<Ipv4Net>,
    /// `excludeInterfaces`
    pub not_interfaces: Vec<String>,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            inbound: Selection::All,
            not_inbound: Vec::new(),
            outbound_ports: Vec::new(),
            not_outbound_ports: Vec::new(),
            outbound_ranges: Selection::All,
            not_outbound_ranges: Vec::new(),
            not_interfaces: Vec::new(),
        }
    }
}

impl Capture {
    /// Reads the `traffic.sidecar.istio.io/…` annotations.
    ///
    /// # Errors
    /// The annotation and the part of it that does not parse.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, String> {
        let text = |name: &str| {
            let key = format!("traffic.sidecar.istio.io/{name}");
            annotations.get(&key).map(|value| (key, value.as_str()))
        };
        let mut capture = Self::default();
        if let Some((key, value)) = text("includeInboundPorts") {
            capture.inbound = selection(&key, value)?;
        }
        if let Some((key, value)) = text("excludeInboundPorts") {
            capture.not_inbound = list(&key, value)?;
        }
        if let Some((key, value)) = text("includeOutboundPorts") {
            capture.outbound_ports = list(&key, value)?;
        }
        if let Some((key, value)) = text("excludeOutboundPorts") {
            capture.not_outbound_ports = list(&key, value)?;
        }
        if let Some((key, value)) = text("includeOutboundIPRanges") {
            capture.outbound_ranges = selection(&key, value)?;
        }
        if let Some((key, value)) = text("excludeOutboundIPRanges") {
            capture.not_outbound_ranges = list(&key, value)?;
        }
        if let Some((key, value)) = text("excludeInterfaces") {
            capture.not_interfaces = interfaces(&key, value)?;
        }
        Ok(capture)
    }
}

fn selection<T: std::str::FromStr>(key: &str, value: &str) -> Result<Selection<T>, String> {
    if value.trim() == "*" {
        Ok(Selection::All)
    } else {
        list(key, value).map(Selection::Only)
    }
}

fn list<T: std::str::FromStr>(key: &str, value: &str) -> Result<Vec<T>, String> {
    let parts = value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse()
                .map_err(|_| format!("annotation {key}: `{part}` is not understood"))
        })
        .collect()
}

fn interfaces(key: &str, value: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = list(key, value)?;
    let fine = |name: &&String| {
        name.len() < 16
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._-+".contains(character))
    };
    match names.iter().find(|name| !fine(name)) {
        Some(name) => Err(format!(
            "annotation {key}: `{name}` is not the name of an interface"
        )),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| (format!("traffic.sidecar.istio.io/{name}"), (*value).into()))
            .collect()
    }

    #[test]
    fn an_annotation_that_does_not_parse_is_named() {
        let error =
            Capture::parse(&annotations(&[("excludeInboundPorts", "80,x")])).expect_err("refused");
        assert_eq!(
            error,
            "annotation traffic.sidecar.istio.io/excludeInboundPorts: `x` is not understood"
        );
        Capture::parse(&annotations(&[("excludeInterfaces", "eth0\" accept")]))
            .expect_err("no way out of the quotes");
    }
}
