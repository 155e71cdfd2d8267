//! Kinds as people type them: `po`, `pods`, `Pod`, `vs`, `gateways.gateway.networking.k8s.io`.
//!
//! The table is the one of the runtime's local API, so whatever it serves can be asked for.

use anyhow::{Result, anyhow};
use machine::store::kinds;

/// A kind that the local API serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
}

impl From<&kinds::Kind> for Kind {
    fn from(kind: &kinds::Kind) -> Self {
        Self {
            group: kind.group.into(),
            version: kind.preferred().into(),
            kind: kind.kind.into(),
            plural: kind.plural.into(),
            namespaced: kind.namespaced(),
        }
    }
}

impl Kind {
    pub fn pods() -> Self {
        Self::from(&kinds::PODS)
    }

    pub fn services() -> Self {
        Self::from(&kinds::SERVICES)
    }

    /// The kind that somebody typed.
    ///
    /// # Errors
    /// kubectl's words.
    pub fn typed(word: &str) -> Result<Self> {
        kinds::by_word(word)
            .map(Self::from)
            .ok_or_else(|| anyhow!("the server doesn't have a resource type \"{word}\""))
    }

    /// The kind that an object says it is, in the version it says.
    ///
    /// # Errors
    /// kubectl's words.
    pub fn of_object(api_version: &str, kind: &str) -> Result<Self> {
        let found = kinds::by_object(api_version, kind).ok_or_else(|| {
            anyhow!("no matches for kind \"{kind}\" in version \"{api_version}\"")
        })?;
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        Ok(Self {
            version: version.into(),
            ..Self::from(found)
        })
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pod` or `deployment.apps`, as kubectl prints names.
    pub fn singular(&self) -> String {
        let name = self.kind.to_lowercase();
        if self.group.is_empty() {
            name
        } else {
            format!("{name}.{}", self.group)
        }
    }

    /// The path of the list or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let Self {
            group,
            version,
            plural,
            namespaced,
            ..
        } = self;
        let root = if group.is_empty() {
            "/api".to_owned()
        } else {
            format!("/apis/{group}")
        };
        let namespace = namespace
            .filter(|namespace| *namespaced && !namespace.is_empty())
            .map(|namespace| format!("/namespaces/{namespace}"))
            .unwrap_or_default();
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{root}/{version}{namespace}/{plural}{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_as_typed_and_as_written() {
        assert_eq!(
            Kind::typed("deploy")
                .expect("known")
                .path(Some("a"), Some("b")),
            "/apis/apps/v1/namespaces/a/deployments/b"
        );
        assert_eq!(
            Kind::typed("vs").expect("known").singular(),
            "virtualservice.networking.istio.io"
        );
        assert_eq!(
            Kind::of_object("networking.istio.io/v1alpha3", "Gateway")
                .expect("known")
                .path(None, None),
            "/apis/networking.istio.io/v1alpha3/gateways"
        );
        assert_eq!(
            Kind::typed("ns").expect("known").path(Some("a"), Some("b")),
            "/api/v1/namespaces/b"
        );
        assert!(
            Kind::typed("widgets")
                .expect_err("unknown")
                .to_string()
                .contains("resource type \"widgets\"")
        );
    }
}
