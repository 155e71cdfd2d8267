//! `support/judged.txt`: what cannot be seen in what proxies are sent.
//!
//! A line is one of
//! `module.Message.field ignored: why that is harmless`,
//! `module.Message.field test: path/of/file`, a file of the repository that has the field's name,
//! `module.Message.field unsupported: where that is said`, for what is only spoken of elsewhere,
//! `module.Message.field silent: what it would do`, for what has no effect although nobody says so.
//! A message in place of a field (`module.Message.*`) is for all of its fields that need a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::trial::Outcome;
use crate::walk::Field;

pub enum Judgement {
    Ignored(String),
    Test(String),
    Silent(String),
    Unsupported(String),
}

pub fn read() -> BTreeMap<String, Judgement> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/judged.txt");
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (field, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            let judgement = match rest.split_once(": ") {
                Some(("ignored", why)) => Judgement::Ignored(why.to_owned()),
                Some(("silent", what)) => Judgement::Silent(what.to_owned()),
                Some(("unsupported", place)) => Judgement::Unsupported(place.to_owned()),
                Some(("test", path)) => Judgement::Test(path.to_owned()),
                _ => panic!("{line}: `ignored: why`, `test: file` or `silent: what`"),
            };
            (field.to_owned(), judgement)
        })
        .collect()
}

/// The line for a field: its own, or that of its message.
pub fn line_for<'a>(
    field: &Field,
    judged: &'a BTreeMap<String, Judgement>,
) -> Option<&'a Judgement> {
    let whole = format!("{}.{}.*", field.module, field.message);
    judged
        .get(&field.to_string())
        .or_else(|| judged.get(&whole))
}

/// What is wrong with the file.
pub fn compare(
    outcomes: &BTreeMap<Field, Outcome>,
    judged: &BTreeMap<String, Judgement>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (field, outcome) in outcomes {
        let name = field.to_string();
        let line = line_for(field, judged);
        let seen = match outcome {
            Outcome::Sent(_) | Outcome::Unsupported(_) => true,
            // To be needed is not yet to be obeyed.
            Outcome::Needed(..) => !judged.contains_key(&name),
            Outcome::Nothing | Outcome::Read | Outcome::Unmentioned => false,
        };
        match line {
            None if seen => {}
            None => wrong.push(format!("{field}: {outcome:?}, and nobody judged it")),
            Some(_) if seen && !judged.contains_key(&name) => continue,
            Some(_) if seen => wrong.push(format!("{field}: {outcome:?}, so no line is needed")),
            Some(Judgement::Ignored(_) | Judgement::Silent(_) | Judgement::Unsupported(_)) => {}
            Some(Judgement::Test(path)) => wrong.extend(mentioned(field, path).err()),
        }
        used.insert(format!("{}.{}.*", field.module, field.message));
        used.insert(name);
    }
    let gone = judged.keys().filter(|line| !used.contains(*line));
    wrong.extend(gone.map(|line| format!("{line}: no field needs this line")));
    wrong
}

fn mentioned(field: &Field, path: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    let text = fs::read_to_string(&file).map_err(|error| format!("{field}: {path}: {error}"))?;
    match text.contains(&field.field) {
        true => Ok(()),
        false => Err(format!("{field}: {path} does not mention it")),
    }
}
