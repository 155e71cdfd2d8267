//! The summary of a mesh in words: URLs first, then what is wrong. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pages::Page;
use crate::object::{self, list};
use crate::output::{Cell, Colour, Table, Tone};

/// How the validator's lines mark what is no error.
const WARNING: &str = ": warning: ";

/// URLs, pods that are not ready, problems of files.
pub fn text(summary: &Value, pages: &[Page], colour: Colour) -> String {
    let mut out = String::new();
    let count = |pointer: &str| {
        summary
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let (ready, total) = (count("/pods/ready"), count("/pods/total"));
    let tone = if ready == total {
        Tone::Good
    } else {
        Tone::Doubtful
    };
    out.push_str(&colour.paint(&format!("{ready}/{total} pods ready"), tone));
    out.push('\n');
    let mut table = Table::default();
    for Page { url, what } in pages {
        table.row([
            Cell(format!("  {url}"), Tone::Strong),
            Cell(what.clone(), Tone::Faint),
        ]);
    }
    out.push_str(&table.render(colour));
    for pod in list(summary, "/notReady") {
        out.push_str(&format!(
            "{} {}: {}\n",
            colour.paint("not ready:", Tone::Doubtful),
            text_of_pod(pod),
            object::text(pod, "/reason")
        ));
        let message = object::text(pod, "/message");
        if !message.is_empty() {
            out.push_str(&format!("  {}\n", message.trim_end().replace('\n', "\n  ")));
        }
    }
    // What went wrong with a pod on its way is over, or it is listed above; what is never done for it is said for one of several.
    let mut told = BTreeSet::new();
    for warning in list(summary, "/warnings") {
        let object = object::text(warning, "/object");
        let (reason, message) = (
            object::text(warning, "/reason"),
            object::text(warning, "/message"),
        );
        let lasts = reason == "Unsupported" && told.insert(message);
        if lasts || !object.starts_with("Pod ") {
            let what = format!("{object}: {reason}: {message}");
            out.push_str(&format!(
                "{} {what}\n",
                colour.paint("warning:", Tone::Doubtful)
            ));
        }
    }
    for problem in list(summary, "/problems").iter().filter_map(Value::as_str) {
        out.push_str(&problem_line(problem, colour));
        out.push('\n');
    }
    out
}

/// A problem of a file, with what it is in front.
pub fn problem_line(problem: &str, colour: Colour) -> String {
    let (word, tone) = if is_error(problem) {
        ("problem:", Tone::Bad)
    } else {
        ("warning:", Tone::Doubtful)
    };
    format!(
        "{} {}",
        colour.paint(word, tone),
        problem.replacen(WARNING, ": ", 1)
    )
}

/// Does a line of the runtime's list of problems say that something does not work?
pub fn is_error(problem: &str) -> bool {
    !problem.contains(WARNING) && !problem.ends_with("has no effect on one machine")
}

fn text_of_pod(pod: &Value) -> &str {
    object::text(pod, "/pod")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_summary_names_what_is_wrong() {
        let summary = json!({"pods": {"total": 2, "ready": 1}, "notReady": [{"pod": "a/p", "reason": "ErrImagePull", "message": "no entry\nadd it"}],
            "problems": ["f.yaml:1:2: Kind a/b: bad", "f.yaml:3:4: warning: Kind a/b: odd"]});
        let pages = [Page {
            url: "http://127.0.0.1:8080".into(),
            what: "a".into(),
        }];
        let mut summary = summary;
        let warning = |object: &str, reason: &str| json!({"object": object, "reason": reason, "message": "m"});
        let warnings = [
            ("Pod a/p", "BackOff"),
            ("Pod a/p", "Unsupported"),
            ("Pod a/q", "Unsupported"),
            ("Service a/s", "PortInUse"),
        ];
        summary["warnings"] = warnings
            .map(|(object, reason)| warning(object, reason))
            .to_vec()
            .into();
        let expected = "1/2 pods ready\n  http://127.0.0.1:8080   a\nnot ready: a/p: ErrImagePull\n  no entry\n  add it\n\
            warning: Pod a/p: Unsupported: m\nwarning: Service a/s: PortInUse: m\n\
            problem: f.yaml:1:2: Kind a/b: bad\nwarning: f.yaml:3:4: Kind a/b: odd\n";
        assert_eq!(text(&summary, &pages, Colour::Off), expected);
    }
}
