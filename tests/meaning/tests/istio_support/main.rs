//! `docs/istio-support.md`: what becomes of each field of each kind, found by trying.
//!
//! The fields are those of the structs that read them, so that a new one is on the page by itself.
//! For each, the test looks for an object that has it (in the captures of a real istiod and in
//! `support/*.yaml`), leaves it out of that object, and compares what is said and what the proxies
//! are sent. A field that makes no difference to any proxy needs a line of `support/judged.txt`:
//! why that is harmless, or which test shows what it does. A field that no object has, a line that
//! is not needed and a page that is not current fail the test; `UPDATE_EXPECT=1` rewrites the page.

#![allow(
    clippy::disallowed_methods,
    reason = "UPDATE_EXPECT in the environment rewrites the page"
)]

mod judged;
mod page;
mod sent;
mod trial;
mod walk;
mod world;

use std::{fs, path::Path};

#[test]
fn every_field_of_every_kind_is_judged() {
    let fields = walk::all_fields();
    let outcomes = trial::outcomes(&fields);
    let judged = judged::read();
    let wrong = judged::compare(&outcomes, &judged);
    assert!(
        wrong.is_empty(),
        "{} lines for support/judged.txt, or objects for support/*.yaml:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let page = page::page(&fields, &outcomes, &judged);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/istio-support.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &page).expect("written");
    }
    let published = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        published == page,
        "docs/istio-support.md is not current (UPDATE_EXPECT=1 rewrites it)"
    );
}
