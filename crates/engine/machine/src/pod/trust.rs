//! Which containers are the runtime's own programs and keep rights that applications give up.
//!
//! The image's name is not enough, because whoever writes YAML may write it. The control plane is
//! trusted when its container is exactly the one that the runtime makes. The proxy is trusted when
//! it is our program with its own arguments and nothing of the author's can run in it: no other
//! command, no probe or hook that executes, no mount over the system's files; variables that the
//! loader reads are taken out ([`clean`]). Whatever else has such an image runs as any application
//! does, which is reported.

use std::path::{Component, Path};

use serde_json::Value;

use super::environment::Environment;
use crate::names::CONTROL_IMAGE;
use crate::object;
use inject::ProxyKind;
use inject::{PROXY_CONTAINER, PROXY_IMAGE};

/// Whose program a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Somebody's.
    Application,
    /// The proxy or the agent beside Envoy.
    Proxy,
    /// The control plane.
    Control,
}

/// What the runtime itself would write.
#[derive(Debug)]
pub struct Own<'a> {
    /// The pod template's `spec` of the control plane.
    pub control: &'a Value,
    /// Which proxy stands beside pods.
    pub proxy: ProxyKind,
    /// Programs of the proxy.
    pub programs: &'a [&'a Path],
}

/// Whether a container of a pod is trusted.
///
/// # Errors
/// It has the image of one of our programs, but this is not as the runtime would run it.
pub fn of(pod: &Value, container: &Value, own: &Own<'_>) -> Result<Trust, String> {
    match object::text(container, "/image") {
        CONTROL_IMAGE => {
            let same = own.control.pointer("/containers/0") == Some(container)
                && own.control.get("volumes") == pod.pointer("/spec/volumes");
            if same {
                Ok(Trust::Control)
            } else {
                Err("it differs from the runtime's own control plane".into())
            }
        }
        PROXY_IMAGE => check_proxy(container, own).map(|()| Trust::Proxy),
        _ => Ok(Trust::Application),
    }
}

fn check_proxy(container: &Value, own: &Own<'_>) -> Result<(), String> {
    if object::text(container, "/name") != PROXY_CONTAINER {
        return Err(format!("its name is not {PROXY_CONTAINER}"));
    }
    if !object::list(container, "/command").is_empty() {
        return Err("it has a command of its own".into());
    }
    let roles: &[&str] = match own.proxy {
        ProxyKind::Tanbark => &["sidecar", "gateway"],
        ProxyKind::Envoy => &["agent"],
    };
    match object::list(container, "/args") {
        [role] if roles.iter().any(|known| role == known) => {}
        _ => return Err("it has arguments of its own".into()),
    }
    let actions = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    if let Some(action) = actions
        .iter()
        .find(|action| container.pointer(&format!("{action}/exec")).is_some())
    {
        return Err(format!(
            "its {} executes a command",
            action.trim_start_matches('/').replace('/', ".")
        ));
    }
    let mut targets = object::list(container, "/volumeMounts")
        .iter()
        .map(|mount| object::text(mount, "/mountPath"));
    match targets.find(|target| covers(Path::new(target), own.programs)) {
        Some(target) => Err(format!("it has a volume at {target}")),
        None => Ok(()),
    }
}

/// What a program's code comes from.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/proc",
    "/sys",
    "/dev",
    "/etc/ld.so.preload",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
];

/// Whether a mount at this place would hide or replace code.
fn covers(target: &Path, programs: &[&Path]) -> bool {
    let plain = target.is_absolute()
        && target
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let touches = |place: &Path| target.starts_with(place) || place.starts_with(target);
    !plain
        || SYSTEM.iter().any(|place| touches(Path::new(place)))
        || programs.iter().any(|program| touches(program))
}

/// Takes out of a trusted container's environment what would bring other code into it; the names
/// that were taken out.
/// `image` is what the image itself sets, which wins.
pub fn clean(environment: &mut Environment, image: &Environment) -> Vec<String> {
    let brings_code = |name: &str| {
        name.starts_with("LD_")
            || name.starts_with("GLIBC_")
            || ["GCONV_PATH", "LOCPATH", "NLSPATH", "OPENSSL_CONF", "PATH"].contains(&name)
            || name == "TANBARK_ENVOY"
    };
    let foreign: Vec<String> = environment
        .iter()
        .filter(|(name, value)| brings_code(name) && image.get(*name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    environment.retain(|name, _| !brings_code(name));
    environment.extend(
        image
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    foreign
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trust(container: Value) -> Result<Trust, String> {
        let control = json!({"volumes": [{"name": "state"}], "containers": [{"name": "discovery", "image": CONTROL_IMAGE}]});
        let own = Own {
            control: &control,
            proxy: ProxyKind::Tanbark,
            programs: &[Path::new("/home/u/tanbark-proxy")],
        };
        of(
            &json!({"spec": {"volumes": [{"name": "state"}]}}),
            &container,
            &own,
        )
    }

    fn proxy(more: Value) -> Value {
        let mut container =
            json!({"name": PROXY_CONTAINER, "image": PROXY_IMAGE, "args": ["sidecar"]});
        json_patch::merge(&mut container, &more);
        container
    }

    #[test]
    fn the_image_alone_gives_no_rights() {
        assert_eq!(
            trust(json!({"name": "c", "image": "tanbark/other"})),
            Ok(Trust::Application)
        );
        assert_eq!(
            trust(json!({"name": "discovery", "image": CONTROL_IMAGE})),
            Ok(Trust::Control)
        );
        trust(json!({"name": "discovery", "image": CONTROL_IMAGE, "command": ["sh"]}))
            .expect_err("another command");
        assert_eq!(trust(proxy(json!({}))), Ok(Trust::Proxy));
        let mount = |path: &str| json!({"volumeMounts": [{"name": "v", "mountPath": path}]});
        assert_eq!(trust(proxy(mount("/etc/certs"))), Ok(Trust::Proxy));
        for more in [
            json!({"name": "other"}),
            json!({"command": ["sh"]}),
            json!({"args": ["agent"]}),
            json!({"args": ["sidecar", "x"]}),
            json!({"lifecycle": {"postStart": {"exec": {"command": ["sh"]}}}}),
            json!({"livenessProbe": {"exec": {"command": ["sh"]}}}),
            mount("/etc"),
            mount("/etc/ld.so.preload"),
            mount("/usr/lib/x86_64-linux-gnu"),
            mount("/home/u"),
            mount("/var/../usr/lib"),
        ] {
            trust(proxy(more.clone())).expect_err(&more.to_string());
        }
    }

    #[test]
    fn variables_that_bring_code_are_taken_out() {
        let text = |name: &str, value: &str| (name.to_string(), value.to_string());
        let image = Environment::from_iter([
            text("PATH", "/usr/bin"),
            text("TANBARK_ENVOY", "/usr/bin/envoy"),
        ]);
        let mut environment = Environment::from_iter([
            text("PATH", "/usr/bin"),
            text("LD_PRELOAD", "/v/x.so"),
            text("TANBARK_ENVOY", "/v/sh"),
            text("POD_NAME", "p"),
        ]);
        assert_eq!(
            clean(&mut environment, &image),
            ["LD_PRELOAD", "TANBARK_ENVOY"]
        );
        assert_eq!(
            environment.get("TANBARK_ENVOY").map(String::as_str),
            Some("/usr/bin/envoy")
        );
        assert_eq!(environment.get("POD_NAME").map(String::as_str), Some("p"));
        assert!(!environment.contains_key("LD_PRELOAD"));
    }
}
