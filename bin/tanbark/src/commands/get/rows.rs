//! Rows of `get`: the columns of [`machine::table`], what flags add to them, and what a cell's colour means.

use machine::table;
use serde_json::Value;

use super::Args;
use crate::jsonpath::Template;
use crate::kind::Kind;
use crate::object;
use crate::output::{Cell, Format, Table, Tone};

fn is_wide(args: &Args) -> bool {
    args.output == Some(Format::Wide)
}

/// An empty table under the titles of a kind.
pub fn titled(args: &Args, kind: &Kind) -> Table {
    if args.no_headers {
        return Table::default();
    }
    let mut titles: Vec<String> = Vec::new();
    if args.all_namespaces && kind.namespaced {
        titles.push("NAMESPACE".into());
    }
    titles.extend(
        table::columns(&kind.group, &kind.kind)
            .into_iter()
            .filter(|column| is_wide(args) || !column.wide)
            .map(|column| column.title.to_owned()),
    );
    // `app.kubernetes.io/name` is titled NAME, as kubectl does it.
    titles.extend(
        args.label_columns
            .iter()
            .map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()),
    );
    if args.show_labels {
        titles.push("LABELS".into());
    }
    Table::new(titles)
}

/// One object's cells.
pub fn of(args: &Args, kind: &Kind, each: &Value, several: bool) -> Vec<Cell> {
    let now = jiff::Timestamp::now();
    let mut cells: Vec<Cell> = Vec::new();
    if args.all_namespaces && kind.namespaced {
        cells.push(object::namespace(each).into());
    }
    for (column, text) in table::columns(&kind.group, &kind.kind)
        .into_iter()
        .zip(table::row(&kind.group, &kind.kind, each, now))
        .filter(|(column, _)| is_wide(args) || !column.wide)
    {
        let text = if several && column.title == "NAME" {
            format!("{}/{text}", kind.singular())
        } else {
            text
        };
        let tone = tone(column.title, &text);
        cells.push(Cell(text, tone));
    }
    cells.extend(
        args.label_columns
            .iter()
            .map(|label| Cell::from(object::label(each, label).unwrap_or_default())),
    );
    if args.show_labels {
        cells.push(object::pairs(each.pointer("/metadata/labels")).into());
    }
    cells
}

/// What a cell means to its reader.
fn tone(title: &str, text: &str) -> Tone {
    match title {
        "READY" => match text.split_once('/') {
            Some((part, whole)) if part != whole => Tone::Doubtful,
            _ => Tone::Plain,
        },
        "STATUS" => match text {
            "Running" | "Active" | "Ready" | "Complete" => Tone::Plain,
            "Completed" | "Succeeded" | "Terminating" => Tone::Faint,
            "Pending" | "PodInitializing" | "ContainerCreating" => Tone::Doubtful,
            init if init.starts_with("Init:")
                && !init.contains("rror")
                && !init.contains("Crash") =>
            {
                Tone::Doubtful
            }
            _ => Tone::Bad,
        },
        "TYPE" if text == "Warning" => Tone::Doubtful,
        "PROGRAMMED" | "ACCEPTED" if text == "False" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Sorts by a field: numbers by value, everything else as text, what has no such field first.
pub fn sort(objects: &mut [Value], path: &Template) {
    objects.sort_by_cached_key(|object| {
        let text = path.fill(object).unwrap_or_default();
        // Whole numbers of the same sign order as texts once they are equally long.
        match text.parse::<i64>() {
            Ok(number) => (1, i128::from(number), String::new()),
            Err(_) => (i32::from(!text.is_empty()) * 2, 0, text),
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_stands_out() {
        assert_eq!(tone("READY", "1/2"), Tone::Doubtful);
        assert_eq!(tone("READY", "2/2"), Tone::Plain);
        assert_eq!(tone("STATUS", "CrashLoopBackOff"), Tone::Bad);
        assert_eq!(tone("STATUS", "Init:0/1"), Tone::Doubtful);
        assert_eq!(tone("STATUS", "Init:Error"), Tone::Bad);
        assert_eq!(tone("TYPE", "ClusterIP"), Tone::Plain);
    }

    #[test]
    fn objects_are_sorted_by_number_or_text() {
        let mut objects: Vec<Value> = [10, 9, -1]
            .iter()
            .map(|n| json!({"n": n, "t": format!("x{n}")}))
            .collect();
        let order = |objects: &[Value]| -> Vec<i64> {
            objects
                .iter()
                .filter_map(|object| object["n"].as_i64())
                .collect()
        };
        sort(&mut objects, &Template::column(".n").expect("a path"));
        assert_eq!(order(&objects), [-1, 9, 10]);
        sort(&mut objects, &Template::column(".t").expect("a path"));
        assert_eq!(order(&objects), [-1, 10, 9]);
    }
}
