//! What commands print: aligned columns as kubectl's, JSON, YAML, names; colours only where a person looks.
//!
//! Nothing fails for want of a reader: a closed pipe ends the program quietly, as `head` expects.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::Value;

use crate::jsonpath::{Columns, Template};
use crate::kind::Kind;

/// How columns stand apart.
#[derive(Debug, Clone, Copy)]
struct Spacing {
    /// Spaces between columns.
    gap: usize,
    /// The width of the narrowest, its gap included.
    narrowest: usize,
}

/// As kubectl has it.
const USUAL: Spacing = Spacing {
    gap: 3,
    narrowest: 6,
};

/// `-o` of commands that print objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    Json,
    Yaml,
    /// Further columns.
    Wide,
    /// `kind/name` only.
    Name,
    JsonPath(Template),
    CustomColumns(Columns),
}

impl Format {
    /// Reads what stands after `-o`.
    ///
    /// # Errors
    /// What is not supported, with what is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').unwrap_or((text, ""));
        match (name, rest) {
            ("json", "") => Ok(Self::Json),
            ("yaml", "") => Ok(Self::Yaml),
            ("wide", "") => Ok(Self::Wide),
            ("name", "") => Ok(Self::Name),
            ("jsonpath", "") => {
                Err("write the template after it: -o jsonpath='{.metadata.name}'".into())
            }
            ("jsonpath", template) => Template::parse(template).map(Self::JsonPath),
            ("custom-columns", "") => {
                Err("write the columns after it: -o custom-columns=NAME:.metadata.name".into())
            }
            ("custom-columns", columns) => Columns::parse(columns).map(Self::CustomColumns),
            (
                "go-template"
                | "go-template-file"
                | "template"
                | "templatefile"
                | "jsonpath-file"
                | "jsonpath-as-json"
                | "custom-columns-file",
                _,
            ) => Err(format!("{name} is not supported; {FORMATS} are")),
            _ => Err(format!("{FORMATS} are supported")),
        }
    }
}

/// What `-o` takes, for messages.
const FORMATS: &str = "json, yaml, wide, name, jsonpath=TEMPLATE and custom-columns=TITLE:PATH,…";

/// `-o` of commands that print no objects; `short` is another name for `table`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Report {
    #[default]
    #[value(alias = "short")]
    Table,
    Json,
    Yaml,
}

/// What a text means to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
    Faint,
    Strong,
}

/// A cell with its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(pub String, pub Tone);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(text.into(), Tone::Plain)
    }
}

/// Whether escape sequences are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Off,
    On,
}

impl Colour {
    /// On when the stream is a terminal; `NO_COLOR` (no-color.org) and `TERM=dumb` forbid colours, `CLICOLOR_FORCE` (bixense.com/clicolors)
    /// wants them anywhere.
    pub fn of(stream: &impl std::io::IsTerminal) -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::decide(
            stream.is_terminal(),
            given("NO_COLOR").is_some(),
            given("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            given("TERM").is_some_and(|term| term == "dumb"),
        )
    }

    fn decide(terminal: bool, refused: bool, forced: bool, dumb: bool) -> Self {
        match (refused, forced) {
            (true, _) => Self::Off,
            (false, true) => Self::On,
            (false, false) if terminal && !dumb => Self::On,
            (false, false) => Self::Off,
        }
    }

    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Doubtful => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        match self {
            Self::Off => text.to_owned(),
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Rows under a header.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self {
            header: header.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The width of each column, its gap included.
    fn widths(&self, spacing: Spacing) -> Vec<usize> {
        let columns = self
            .rows
            .iter()
            .map(Vec::len)
            .chain([self.header.len()])
            .max()
            .unwrap_or(0);
        let width = |column: usize| {
            let header = self.header.get(column).map_or(0, |text| width(text));
            let widest = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(&cell.0))
                .max()
                .unwrap_or(0);
            (header.max(widest) + spacing.gap).max(spacing.narrowest)
        };
        (0..columns).map(width).collect()
    }

    /// The text, each row on a line.
    pub fn render(&self, colour: Colour) -> String {
        self.render_at_least(&mut Vec::new(), colour)
    }

    /// As [`Table::render`], no column narrower than it was before; `before` is what they are now.
    pub fn render_at_least(&self, before: &mut Vec<usize>, colour: Colour) -> String {
        let mut widths = self.widths(USUAL);
        for (width, before) in widths.iter_mut().zip(before.iter()) {
            *width = (*width).max(*before);
        }
        before.clone_from(&widths);
        self.text(&widths, colour)
    }

    /// As [`Table::render`], with less space between columns where a line would be longer than this; what is too long even so is left to
    /// who prints it.
    pub fn render_within(&self, columns: usize, colour: Colour) -> String {
        let fits = |spacing: &Spacing| {
            let widths = self.widths(*spacing);
            widths.iter().sum::<usize>().saturating_sub(spacing.gap) <= columns
        };
        let tighter = [
            USUAL,
            Spacing {
                gap: 2,
                narrowest: 0,
            },
        ];
        let spacing = tighter.into_iter().find(fits);
        let spacing = spacing.unwrap_or(Spacing {
            gap: 1,
            narrowest: 0,
        });
        self.text(&self.widths(spacing), colour)
    }

    fn text(&self, widths: &[usize], colour: Colour) -> String {
        let mut out = String::new();
        if self.header.iter().any(|title| !title.is_empty()) {
            let titles: Vec<Cell> = self
                .header
                .iter()
                .map(|title| Cell::from(title.as_str()))
                .collect();
            push_row(&mut out, &titles, widths, Colour::Off);
        }
        for row in &self.rows {
            push_row(&mut out, row, widths, colour);
        }
        out
    }

    /// Writes the table to standard output.
    pub fn print(&self) {
        emit(&self.render(Colour::of(&std::io::stdout())));
    }
}

/// How many columns of a terminal a text takes; signs such as 🔒 take two.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

/// As [`width`], of one character.
pub fn width_of(character: char) -> usize {
    if character > '\u{1f000}' { 2 } else { 1 }
}

fn push_row(out: &mut String, row: &[Cell], widths: &[usize], colour: Colour) {
    for (at, (Cell(text, tone), wanted)) in row.iter().zip(widths).enumerate() {
        out.push_str(&colour.paint(text, *tone));
        if at + 1 < row.len() {
            out.extend(std::iter::repeat_n(' ', wanted.saturating_sub(width(text))));
        }
    }
    out.push('\n');
}

/// One of several objects that are printed one after the other: by `apply`, and by `get -w`.
///
/// # Errors
/// What [`Format`] cannot print of it.
pub fn one_of_many(format: &Format, kind: &Kind, object: &Value) -> Result<String> {
    Ok(match format {
        Format::Json => json(object)?,
        Format::Yaml => format!("---\n{}", yaml(object)?),
        Format::Name | Format::Wide => {
            format!("{}/{}\n", kind.singular(), crate::object::name(object))
        }
        Format::JsonPath(template) => template.fill(object).map_err(anyhow::Error::msg)?,
        Format::CustomColumns(columns) => format!("{}\n", columns.row(object).join("   ")),
    })
}

/// `1 file`, `2 files`.
pub fn count(number: usize, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{end}")
}

/// A value as YAML, as kubectl prints it.
pub fn yaml(value: &Value) -> Result<String> {
    let text = serde_saphyr::to_string(value).context("cannot write YAML")?;
    Ok(if text.ends_with('\n') {
        text
    } else {
        format!("{text}\n")
    })
}

/// A value as indented JSON.
pub fn json(value: &Value) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes to standard output; ends the program when nobody reads it.
pub fn emit(text: &str) {
    emit_bytes(text.as_bytes());
}

/// As [`emit`], for bytes.
pub fn emit_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// One line to standard output.
pub fn say(line: &str) {
    emit(&format!("{line}\n"));
}

/// One line to standard error.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Does a person look at standard output?
pub fn is_watched() -> bool {
    std::io::stdout().is_terminal()
}

/// An error in kubectl's words: what the API refuses is told as the server's.
pub fn failure(error: &anyhow::Error) -> String {
    match error.downcast_ref::<machine::Error>() {
        Some(machine::Error::Api {
            reason, message, ..
        }) if !reason.is_empty() => format!("Error from server ({reason}): {message}"),
        _ => format!("error: {}", chain(error)),
    }
}

/// An error with its causes, none twice: many texts end with the text of their cause.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_as_kubectls() {
        let mut table = Table::new(["NAME", "READY", "AGE"]);
        table.row(["productpage-v1-abc", "2/2", "5s"]);
        table.row(["x", "0/1", "12m"]);
        assert_eq!(
            table.render(Colour::Off),
            "NAME                 READY   AGE\nproductpage-v1-abc   2/2     5s\nx                    0/1     12m\n"
        );
    }

    #[test]
    fn signs_of_two_columns_do_not_move_what_follows() {
        let mut table = Table::new(["", "A"]);
        table.row(["🔒", "x"]);
        table.row([" ", "y"]);
        assert_eq!(table.render(Colour::Off), "      A\n🔒    x\n      y\n");
    }

    #[test]
    fn columns_move_together_on_a_narrow_terminal() {
        let mut table = Table::new(["A", "B"]);
        table.row(["long-name", "x"]);
        assert_eq!(
            table.render_within(80, Colour::Off),
            "A           B\nlong-name   x\n"
        );
        assert_eq!(
            table.render_within(12, Colour::Off),
            "A          B\nlong-name  x\n"
        );
        assert_eq!(
            table.render_within(5, Colour::Off),
            "A         B\nlong-name x\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell("ok".into(), Tone::Good), Cell("x".into(), Tone::Plain)]);
        assert_eq!(
            table.render(Colour::On),
            "A     B\n\x1b[32mok\x1b[0m    x\n"
        );
    }

    #[test]
    fn colours_are_for_terminals_unless_asked_for_or_refused() {
        let on = |terminal, refused, forced, dumb| {
            Colour::decide(terminal, refused, forced, dumb) == Colour::On
        };
        assert!(on(true, false, false, false));
        assert!(!on(false, false, false, false));
        assert!(!on(true, false, false, true));
        assert!(on(false, false, true, false));
        assert!(!on(true, true, true, false));
    }

    #[test]
    fn formats_that_kubectl_has_and_this_has_not_are_refused_by_name() {
        assert_eq!(Format::parse("wide"), Ok(Format::Wide));
        assert!(matches!(
            Format::parse("jsonpath={.a}"),
            Ok(Format::JsonPath(_))
        ));
        for (text, what) in [
            ("go-template={{.a}}", "go-template is not supported"),
            ("jsonpath", "write the template after it"),
            ("table", "json, yaml, wide"),
            ("jsonpath={.a", "`}` is missing"),
        ] {
            let error = Format::parse(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let value = json!({"a": "0755", "b": "yes", "c": "line\nline\n", "d": [1, {"e": null}], "f": {}, "g": [], "h": "- x: y", "i": true, "j": "1.0"});
        let text = yaml(&value).expect("written");
        let back: Value = serde_saphyr::from_str(&text).expect("read");
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn one_is_not_several() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(
            [count(0, "error"), count(2, "error")],
            ["0 errors", "2 errors"]
        );
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("denied")
            .context("open x: denied")
            .context("start");
        assert_eq!(chain(&error), "start: open x: denied");
    }
}
