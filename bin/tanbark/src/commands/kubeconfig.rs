//! `tanbark kubeconfig`: what kubectl, k9s and istioctl need to find `tanbark proxy`.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::output;
use crate::scope::Scope;

/// Where `tanbark proxy` listens when nothing else is said; `kubectl proxy` has the same.
pub const PORT: u16 = 8001;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Port of `tanbark proxy`
    #[arg(short, long, default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Into this file, which is then its user's alone, instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    pub scope: Scope,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let text = output::yaml(&kubeconfig(args.port, args.scope.namespace()))?;
    match &args.write {
        None => output::emit(&text),
        Some(file) => {
            write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
            let port = if args.port == PORT {
                String::new()
            } else {
                format!(" --port {}", args.port)
            };
            output::note(&format!(
                "{} is written; it works while `tanbark proxy{port}` runs: KUBECONFIG={} kubectl get pods -A",
                file.display(),
                file.display()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn kubeconfig(port: u16, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tanbark", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "tanbark", "user": {}}],
        "contexts": [{"name": "tanbark", "context": {"cluster": "tanbark", "user": "tanbark", "namespace": namespace}}],
        "current-context": "tanbark",
    })
}

/// Replaces a file; its mode is 0600 whatever it was.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_leads_to_the_proxy() {
        let config = kubeconfig(9000, "shop");
        let at = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
        assert_eq!(
            at("/clusters/0/cluster/server"),
            Some("http://127.0.0.1:9000")
        );
        assert_eq!(at("/contexts/0/context/namespace"), Some("shop"));
        assert_eq!(at("/contexts/0/name"), at("/current-context"));
        assert_eq!(at("/clusters/0/name"), at("/contexts/0/context/cluster"));
        assert_eq!(at("/users/0/name"), at("/contexts/0/context/user"));
    }

    #[test]
    fn a_written_file_is_its_users_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("config");
        std::fs::write(&file, "something longer than before").expect("written");
        write(&file, "new").expect("written");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "new");
        let mode = std::fs::metadata(&file)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
