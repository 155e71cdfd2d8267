//! Objects in, meaning out. What is reported about objects is in the cases of `analyze`.

use std::fmt::Write as _;
use std::sync::Arc;

use wire_kube::manifest::{self, Document};

use super::*;
use crate::{default_mesh, parse_mesh};

/// A store with all objects of some texts, and what was said about each, with its place.
fn store_of(mesh: MeshConfig, files: &[(&str, &str)]) -> (Store, Vec<(Key, Document)>, String) {
    let mut store = Store::new(mesh);
    let mut documents = Vec::new();
    let mut unknown = String::new();
    for (name, text) in files {
        for document in manifest::load(name, text).unwrap() {
            let applied = store.apply(Arc::new(document.object.clone()));
            match applied.key {
                Some(key) => documents.push((key, document)),
                None => applied
                    .problems
                    .iter()
                    .for_each(|p| writeln!(unknown, "{}: {p}", document.source).unwrap()),
            }
        }
    }
    store.build();
    (store, documents, unknown)
}

mod meaning;
mod robustness;
mod shared_hosts;
