//! The built programs, in a folder that every user can read.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Programs that a mesh on this machine consists of.
const PROGRAMS: &[&str] = &[
    "tanbark",
    "tanbark-proxy",
    "tanbark-bookinfo",
    "tanbark-echo",
];

/// Of folders in the machine's folder for temporary files; the process's id follows.
const PREFIX: &str = "tanbark-programs-";

/// The workspace's folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// A folder with the programs of this build, the image map and the samples, readable by everyone.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        remove_old();
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the programs");
        open(&folder);
        let built = built();
        for program in PROGRAMS {
            place(&built.join(program), &folder.join(program));
        }
        copy_tree(&root().join("samples"), &folder.join("samples"));
        folder
    })
}

/// Folders of tests that have ended: a test has no moment at which all of its threads are done with the folder.
fn remove_old() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The stock Envoy that `make test-tools` installs, readable by everyone.
pub fn envoy() -> PathBuf {
    // Once, whichever of a process's tests comes first: a program that runs cannot be written.
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let placed = || {
        let copy = programs().join("envoy");
        place(&packaged_envoy(), &copy);
        copy
    };
    COPY.get_or_init(placed).clone()
}

/// The program inside the Python package; `.venv/bin/envoy` is only a script that finds it.
fn packaged_envoy() -> PathBuf {
    let libraries = root().join(".venv/lib");
    let versions = fs::read_dir(&libraries)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_else(|_| Vec::new());
    let candidates = versions
        .iter()
        .map(|python| python.join("site-packages/envoy/_bin/envoy"));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| libraries.join("python3/site-packages/envoy/_bin/envoy"))
}

/// `target/<profile>`: two levels above the test's own executable.
fn built() -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    own.ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .to_owned()
}

fn place(from: &Path, to: &Path) {
    assert!(
        from.exists(),
        "{} is missing: run `make test`, which builds and installs what the tests need",
        from.display()
    );
    // A hard link is at once; another file system needs a copy.
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("permissions");
}

pub(crate) fn open(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions");
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    open(to);
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            if entry.file_name() != "apps" {
                copy_tree(&entry.path(), &target);
            }
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).expect("permissions");
        }
    }
}
