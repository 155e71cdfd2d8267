//! Every `cases/NAME.yaml` is a mesh; `cases/NAME.ask` has the questions, each with its answer below it. `UPDATE_EXPECT=1` rewrites the answers.

use std::{fmt::Write as _, fs, path::Path};

use meaning::World;

/// Objects that all cases share.
const BASE: &str = "base.yaml";

#[test]
fn configuration_means_what_the_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let base = fs::read_to_string(folder.join(BASE)).expect("the shared objects");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("cases")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".ask").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 7, "only {names:?}");
    let mut wrong = String::new();
    for name in names {
        let own = fs::read_to_string(folder.join(format!("{name}.yaml"))).expect("objects");
        let world = World::new(&format!("{base}\n---\n{own}"));
        let file = folder.join(format!("{name}.ask"));
        let before = fs::read_to_string(&file).expect("questions");
        let after = answered(&world, &before);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&file, &after).expect("written");
        } else if before != after {
            let _ = write!(wrong, "--- {name}, as it is now:\n{after}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The questions with fresh answers; comments and empty lines stay.
fn answered(world: &World, text: &str) -> String {
    let mut after = String::new();
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        let _ = writeln!(after, "{line}");
        if !line.is_empty() && !line.starts_with('#') {
            let _ = writeln!(after, "    {}", world.ask(line));
        }
    }
    after
}
