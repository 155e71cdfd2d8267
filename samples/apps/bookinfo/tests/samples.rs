//! The YAML beside the programs: every image it names is in the image map, and the demo is the bookinfo sample.

use std::fs;
use std::path::{Path, PathBuf};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("samples/apps/bookinfo lies in samples")
        .to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml_files() -> Vec<PathBuf> {
    let folders = [
        "bookinfo",
        "demo",
        "httpbin",
        "curl",
        "helloworld",
        "tcp-echo",
    ];
    let files = folders
        .iter()
        .flat_map(|folder| fs::read_dir(samples().join(folder)).unwrap());
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

/// The values of `key: value` lines.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(key))
        .map(|value| value.trim().trim_matches('"'))
}

#[test]
fn every_image_has_an_entry_in_the_map() {
    let map = read(&samples().join("images.yaml"));
    let names: Vec<&str> = values(&map, "match:")
        .map(|pattern| pattern.strip_prefix("*/").expect("patterns begin with */"))
        .collect();
    let mut images = 0;
    for file in yaml_files() {
        for image in values(&read(&file), "image:").filter(|image| *image != "auto") {
            images += 1;
            let (name, _tag) = image.rsplit_once(':').unwrap_or((image, ""));
            assert!(
                names
                    .iter()
                    .any(|known| name == *known || name.ends_with(&format!("/{known}"))),
                "{image} of {}",
                file.display()
            );
        }
    }
    assert!(images >= 12, "only {images} images were found");
}

#[test]
fn demo_is_the_bookinfo_sample() {
    for (demo, sample) in [
        ("bookinfo.yaml", "bookinfo.yaml"),
        ("gateway.yaml", "gateway.yaml"),
    ] {
        let [demo, sample] = [
            samples().join("demo").join(demo),
            samples().join("bookinfo").join(sample),
        ];
        assert_eq!(
            read(&demo),
            read(&sample),
            "{} and {}",
            demo.display(),
            sample.display()
        );
    }
}
