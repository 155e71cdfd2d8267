//! The same configuration and the same requests through a stock Envoy and through `tanbark-proxy`:
//! what Envoy does is what is expected.
//!
//! Each file in `cases/` is a configuration in Envoy's own words, cut short where all are alike,
//! and a list of steps. Both programs run it with backends of their own, and everything that can be
//! seen (answers, what the upstreams got, a line of the access log, counters) is written down as
//! text; ports, dates and random ids are replaced by names. The two texts must be equal, and each
//! case runs once. A step with `differs: REASON` is known to differ, and the test fails when it no
//! longer does. Without an Envoy (`TANBARK_ENVOY`, or `.venv` after `make test-tools`) the tests
//! fail, unless `TANBARK_TESTS_WITHOUT_ENVOY` is set: then each says that it is left out.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

mod abuse;
mod backend;
mod case;
mod client;
mod config;
mod http2;
mod program;
mod transcript;

macro_rules! cases {
    ($($name:ident)*) => {
        $(#[test] fn $name() { transcript::compare(stringify!($name)); })*

        #[test]
        fn every_file_is_a_test() {
            let mut files: Vec<String> = std::fs::read_dir(case::folder())
                .expect("the cases")
                .map(|entry| entry.expect("an entry").path())
                .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
                .collect();
            files.sort();
            assert_eq!(files, [$(stringify!($name)),*], "in the order of the alphabet");
        }
    };
}

cases! {
    balancing edge filters framing headers http2 paths retries rewrites routes timeouts tls upgrades
}

/// `docs/envoy-differences.md` says what the cases say; `UPDATE_EXPECT=1` writes it.
#[test]
fn known_differences_are_published() {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(case::folder()).expect("the cases") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for step in case::read(&name).steps {
            let step = step.into_step();
            found.extend(step.differs.map(|why| (name.clone(), why)));
        }
    }
    let mut text = String::from(DIFFERENCES);
    for (case, why) in &found {
        let _ = writeln!(text, "| {case} | {why} |");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/envoy-differences.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&page, &text).expect("the page");
    }
    let published = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        published == text,
        "{} differs; UPDATE_EXPECT=1 rewrites it",
        page.display()
    );
}

const DIFFERENCES: &str = "\
# Where the proxy does not do as Envoy

The same configuration and the same requests go through a stock Envoy 1.40 and through `tanbark-proxy`
(`bin/tanbark-proxy/tests/envoy`), and the answers, what upstreams see, access logs and counters must be the same.
These are the exceptions, generated from the cases; a test fails when one of them no longer holds. What configuration is not
obeyed at all is in [xds-support.md](xds-support.md).

| case | how it differs |
|---|---|
";
