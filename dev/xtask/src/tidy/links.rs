//! Links in the project's pages: a path that is named must exist, and a heading or symbol after `#`
//! must be in that file.

use std::path::Path;

use anyhow::Result;

use super::fault::Fault;

pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let mut pages = Vec::new();
    for folder in [root.to_owned(), root.join("docs")] {
        if folder.is_dir() {
            for entry in std::fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(path);
                }
            }
        }
    }
    let mut faults = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page)?;
        let folder = page.parent().unwrap_or(root);
        let place = page
            .strip_prefix(root)
            .unwrap_or(&page)
            .to_string_lossy()
            .into_owned();
        for (number, line) in text.lines().enumerate() {
            for target in targets(line) {
                if let Some(what) = broken(folder, target) {
                    faults.push(Fault {
                        place: format!("{place}:{}", number + 1),
                        what,
                    });
                }
            }
        }
    }
    Ok(faults)
}

/// What stands in the round brackets of Markdown links of one line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
}

fn broken(folder: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
        return None;
    }
    let (path, symbol) = target
        .split_once('#')
        .map_or((target, None), |(path, symbol)| (path, Some(symbol)));
    let file = folder.join(path);
    if !file.exists() {
        return Some(format!("link to `{path}`, which does not exist"));
    }
    let symbol = symbol.filter(|_| path.ends_with(".rs"))?;
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let defined = [
        "fn ", "struct ", "enum ", "trait ", "const ", "mod ", "type ",
    ]
    .iter()
    .any(|keyword| text.contains(&format!("{keyword}{symbol}")));
    (!defined).then(|| format!("link to `{symbol}` in `{path}`, which does not define it"))
}
