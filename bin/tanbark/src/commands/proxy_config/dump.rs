//! A proxy's `/config_dump`, taken apart. Field names are read as `snake_case` and as `camelCase`.

use serde_json::{Value, json};

/// A dump.
pub struct Dump {
    value: Value,
}

/// A field in either spelling.
pub fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| value.get(camel(name)))
}

/// A path of fields, `a.b.c`.
pub fn path<'a>(value: &'a Value, names: &str) -> Option<&'a Value> {
    names.split('.').try_fold(value, field)
}

/// A text at a path; empty when absent.
pub fn text<'a>(value: &'a Value, names: &str) -> &'a str {
    path(value, names)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A list at a path; empty when absent.
pub fn list<'a>(value: &'a Value, names: &str) -> &'a [Value] {
    path(value, names)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A number at a path, also one that is written as text.
pub fn number(value: &Value, names: &str) -> Option<u64> {
    let found = path(value, names)?;
    found.as_u64().or_else(|| found.as_str()?.parse().ok())
}

/// `connectTimeout` of `connect_timeout`.
pub fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        out.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

impl Dump {
    pub fn new(value: Value) -> Self {
        Self { value }
    }

    /// As it was.
    pub fn whole(&self) -> &Value {
        &self.value
    }

    fn section(&self, kind: &str) -> Option<&Value> {
        let wanted = format!("envoy.admin.v3.{kind}");
        list(&self.value, "configs")
            .iter()
            .find(|section| text(section, "@type").ends_with(&wanted))
    }

    /// Entries of a section's static and dynamic lists, each reduced to the resource itself.
    fn resources(&self, kind: &str, lists: &[&str], inside: &[&str]) -> Vec<Value> {
        let Some(section) = self.section(kind) else {
            return Vec::new();
        };
        let entries = lists.iter().flat_map(|name| list(section, name));
        entries
            .filter_map(|entry| inside.iter().find_map(|place| path(entry, place)).cloned())
            .collect()
    }

    pub fn listeners(&self) -> Vec<Value> {
        self.resources(
            "ListenersConfigDump",
            &["static_listeners", "dynamic_listeners"],
            &["active_state.listener", "listener"],
        )
    }

    pub fn clusters(&self) -> Vec<Value> {
        self.resources(
            "ClustersConfigDump",
            &["static_clusters", "dynamic_active_clusters"],
            &["cluster"],
        )
    }

    pub fn routes(&self) -> Vec<Value> {
        self.resources(
            "RoutesConfigDump",
            &["static_route_configs", "dynamic_route_configs"],
            &["route_config"],
        )
    }

    pub fn endpoints(&self) -> Vec<Value> {
        self.resources(
            "EndpointsConfigDump",
            &["static_endpoint_configs", "dynamic_endpoint_configs"],
            &["endpoint_config"],
        )
    }

    /// The section of secrets, its type left out.
    pub fn secrets_section(&self) -> Option<Value> {
        let mut section = self.section("SecretsConfigDump")?.clone();
        if let Some(fields) = section.as_object_mut() {
            fields.remove("@type");
        }
        Some(section)
    }

    /// Whole entries: name, state and secret.
    pub fn secrets(&self) -> Vec<Value> {
        let Some(section) = self.section("SecretsConfigDump") else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, state) in [
            ("static_secrets", "ACTIVE"),
            ("dynamic_active_secrets", "ACTIVE"),
            ("dynamic_warming_secrets", "WARMING"),
        ] {
            for entry in list(section, name) {
                let mut entry = entry.clone();
                entry["state"] = state.into();
                all.push(entry);
            }
        }
        all
    }

    pub fn bootstrap(&self) -> Option<Value> {
        self.section("BootstrapConfigDump")
            .map(|section| field(section, "bootstrap").unwrap_or(section).clone())
    }
}

/// Whose version a proxy is, of its bootstrap.
pub fn versions(bootstrap: &Value) -> String {
    let istio = text(bootstrap, "node.metadata.ISTIO_VERSION");
    let build = path(bootstrap, "node.user_agent_build_version.version");
    let part = |name: &str| build.and_then(|build| number(build, name)).unwrap_or(0);
    let proxy = text(bootstrap, "node.user_agent_name");
    let mut out = format!("Istio Version:         {istio}\n");
    if !proxy.is_empty() {
        out.push_str(&format!("Istio Proxy Name:      {proxy}\n"));
    }
    out.push_str(&format!(
        "Istio Proxy Version:   {}.{}.{}\n",
        part("major_number"),
        part("minor_number"),
        part("patch")
    ));
    out
}

/// `name.namespace` of the object that Istio's metadata names.
pub fn config_of(resource: &Value) -> Option<String> {
    let config = resource
        .pointer("/metadata")
        .and_then(|metadata| field(metadata, "filter_metadata"))?
        .get("istio")?
        .get("config")?
        .as_str()?;
    let mut parts = config.rsplit('/');
    let name = parts.next()?;
    let _kind = parts.next()?;
    Some(format!("{name}.{}", parts.next()?))
}

/// An empty object where nothing is.
pub fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_says_its_versions() {
        let bootstrap = json!({"node": {"metadata": {"ISTIO_VERSION": "1.31.0"}, "user_agent_name": "envoy", "user_agent_build_version": {"version": {"major_number": 1, "minor_number": 40}}}});
        assert_eq!(
            versions(&bootstrap),
            "Istio Version:         1.31.0\nIstio Proxy Name:      envoy\nIstio Proxy Version:   1.40.0\n"
        );
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(camel("active_state"), "activeState");
        assert_eq!(text(&json!({"aB": {"c_d": "x"}}), "a_b.c_d"), "x");
        assert_eq!(number(&json!({"port_value": "80"}), "port_value"), Some(80));
    }
}
