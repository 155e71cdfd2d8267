//! What a real istiod answered over xDS for named configurations, for tests of both halves.
//!
//! The data is in `istiod/` beside this crate; its README tells which istiod made it, what each
//! file is and how to renew it. What users write (`input.yaml`, `base.yaml`, `mesh.yaml`) and who
//! asked (`node-*.json`) is plain text; a scenario's answers are one compressed archive, which is
//! read once for each process. Decoders are held against the answers, generators against answers
//! and inputs.
//!
//! Only tests use this crate: what is missing or broken ends the test with the name of the file.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flate2::read::GzDecoder;

/// Files of a scenario that hold answers, in one archive.
const ANSWERS: &str = "answers.tar.gz";

/// One configuration and what istiod answered for it.
pub struct Scenario {
    /// Of the folder: two digits and words, such as `02-strict`.
    name: String,
    folder: PathBuf,
    answers: OnceLock<BTreeMap<String, Vec<u8>>>,
}

impl Scenario {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The two digits before the name.
    pub fn number(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// What is added to `base.yaml`: Kubernetes and Istio objects.
    pub fn input(&self) -> String {
        text(&self.folder.join("input.yaml"))
    }

    /// The scenario's own `mesh.yaml`, `node-sidecar.json` or `node-gateway.json`; without one,
    /// that of all scenarios.
    pub fn own_or_general(&self, file: &str) -> String {
        let own = self.folder.join(file);
        if own.is_file() {
            text(&own)
        } else {
            general(file)
        }
    }

    /// What `istioctl analyze` says of `base.yaml` and the input, as a JSON list.
    pub fn analysis(&self) -> String {
        text(&self.folder.join("analyze.json"))
    }

    /// An answer by name: `{sidecar,gateway,grpc}.{cds,eds,lds,rds,ecds,sds,nds}.{pb,json}`.
    /// `None`: nothing of this type was asked for or sent.
    pub fn answer(&self, file: &str) -> Option<&[u8]> {
        self.answers().get(file).map(Vec::as_slice)
    }

    /// Answers as protobuf (a DiscoveryResponse) with the same answer as proto3 JSON, by name
    /// without ending.
    ///
    /// # Panics
    /// If one of the two is missing.
    pub fn answers_twice(&self) -> impl Iterator<Item = (&str, &[u8], &[u8])> {
        let names = self.answers().keys();
        names
            .filter_map(|name| name.strip_suffix(".pb"))
            .map(|name| {
                let file = |ending: &str| {
                    let file = format!("{name}.{ending}");
                    self.answer(&file)
                        .unwrap_or_else(|| panic!("{}: no {file}", self.name))
                };
                (name, file("pb"), file("json"))
            })
    }

    fn answers(&self) -> &BTreeMap<String, Vec<u8>> {
        self.answers
            .get_or_init(|| unpack(&self.folder.join(ANSWERS)))
    }
}

/// All scenarios, in order of their numbers.
pub fn scenarios() -> &'static [Scenario] {
    static ALL: OnceLock<Vec<Scenario>> = OnceLock::new();
    ALL.get_or_init(|| {
        let folder = folder();
        let entries =
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut found: Vec<Scenario> = entries
            .map(|entry| entry.expect("a folder's entry").path())
            .filter(|path| path.is_dir())
            .map(|folder| Scenario {
                name: folder
                    .file_name()
                    .and_then(|name| name.to_str())
                    .expect("a scenario's name is plain text")
                    .to_owned(),
                folder,
                answers: OnceLock::new(),
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    })
}

/// The scenario of this name.
///
/// # Panics
/// If there is none.
pub fn scenario(name: &str) -> &'static Scenario {
    let found = scenarios().iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario {name} in {}", folder().display()))
}

/// A file that all scenarios have in common: `base.yaml`, `mesh.yaml`,
/// `node-{sidecar,gateway}.json`, `bootstrap-{sidecar,gateway}.json`.
///
/// # Panics
/// If it is missing.
pub fn general(file: &str) -> String {
    text(&folder().join(file))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("istiod")
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn unpack(file: &Path) -> BTreeMap<String, Vec<u8>> {
    read_archive(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn read_archive(file: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(file)?));
    let files = archive.entries()?.map(|entry| {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        Ok((name, bytes))
    });
    files.collect()
}
