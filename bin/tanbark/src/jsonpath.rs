//! `-o jsonpath=TEMPLATE` and the paths of `-o custom-columns=…`: kubectl's dialect, which Istio's documentation uses throughout.
//!
//! A template is text with expressions in braces: `{.items[0].metadata.name}`, `{range .items[*]}{.metadata.name}{"\n"}{end}`. The dialect is
//! that of <https://kubernetes.io/docs/reference/kubectl/jsonpath/>, which no library for JSONPath (RFC 9535) reads: dots in names are escaped
//! (`app\.kubernetes\.io/name`), names may hold dashes, quoted names are paths, and there are `range` and text. Pure.
//!
//! As in kubectl, a field that is not there gives nothing, several results are separated by a space, and an index out of bounds is an error.

mod parse;

use std::fmt::Write as _;

use serde_json::Value;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Path(Vec<Step>),
    /// `{range PATH}…{end}`
    Range(Vec<Step>, Vec<Node>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// `.name`
    Field(String),
    /// `['a.b','c']`: what each path gives, one after the other.
    Union(Vec<Vec<Step>>),
    /// `*`
    All,
    /// `[0]`, `[-1]`, `[0,2]`
    Indices(Vec<i64>),
    /// `[1:3]`, `[::2]`
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        step: i64,
    },
    /// `..`: this and everything below it.
    Deep,
    /// `[?(@.a=="b")]`, `[?(@.a)]`
    Filter(Operand, Option<(Comparison, Operand)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An index that a list does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OutOfBounds {
    index: i64,
    length: usize,
}

impl Template {
    /// # Errors
    /// What is not understood, and where it stands.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            nodes: parse::template(text)?,
        })
    }

    /// A path alone, as a column of `custom-columns` has it: `.metadata.name`, `metadata.name` or `{.metadata.name}`.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn column(text: &str) -> Result<Self, String> {
        let bare = text.trim();
        let bare = bare
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(bare);
        let dotted = if bare.starts_with(['.', '[', '$', '@']) {
            bare.to_owned()
        } else {
            format!(".{bare}")
        };
        Self::parse(&format!("{{{dotted}}}"))
    }

    /// The template with an object's values.
    ///
    /// # Errors
    /// An index that a list does not have.
    pub fn fill(&self, object: &Value) -> Result<String, String> {
        let mut out = String::new();
        write_nodes(&mut out, &self.nodes, object).map_err(|OutOfBounds { index, length }| {
            format!(
                "error executing jsonpath \"{}\": array index out of bounds: index {index}, length {length}",
                self.text
            )
        })?;
        Ok(out)
    }
}

fn write_nodes(out: &mut String, nodes: &[Node], current: &Value) -> Result<(), OutOfBounds> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Path(steps) => {
                let found = select(steps, vec![current])?;
                let texts: Vec<String> = found.into_iter().map(plain).collect();
                out.push_str(&texts.join(" "));
            }
            Node::Range(steps, inside) => {
                for each in select(steps, vec![current])? {
                    write_nodes(out, inside, each)?;
                }
            }
        }
    }
    Ok(())
}

/// Text without quotes, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn select<'a>(steps: &[Step], mut found: Vec<&'a Value>) -> Result<Vec<&'a Value>, OutOfBounds> {
    for step in steps {
        let mut next = Vec::new();
        if let Step::Union(paths) = step {
            for path in paths {
                next.extend(select(path, found.clone())?);
            }
        } else {
            for value in found {
                step.of(value, &mut next)?;
            }
        }
        found = next;
    }
    Ok(found)
}

impl Step {
    fn of<'a>(&self, value: &'a Value, found: &mut Vec<&'a Value>) -> Result<(), OutOfBounds> {
        match self {
            Self::Field(name) => found.extend(value.get(name.as_str())),
            Self::Union(paths) => {
                for path in paths {
                    found.extend(select(path, vec![value])?);
                }
            }
            Self::All => found.extend(children(value)),
            Self::Indices(indices) => {
                let Value::Array(items) = value else {
                    return Ok(());
                };
                for index in indices {
                    found.push(item(items, *index)?);
                }
            }
            Self::Slice { start, end, step } => {
                if let Value::Array(items) = value {
                    found.extend(slice(items, *start, *end, *step));
                }
            }
            Self::Deep => descend(value, found),
            Self::Filter(left, test) => {
                for each in children(value) {
                    if fits(left, test.as_ref(), each) {
                        found.push(each);
                    }
                }
            }
        }
        Ok(())
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    for child in children(value) {
        descend(child, found);
    }
}

fn item(items: &[Value], index: i64) -> Result<&Value, OutOfBounds> {
    let length = items.len();
    position(index, length)
        .and_then(|at| items.get(at))
        .ok_or(OutOfBounds { index, length })
}

/// Counted from the end where negative.
fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        usize::try_from(index).ok()
    } else {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    }
}

fn slice(
    items: &[Value],
    start: Option<i64>,
    end: Option<i64>,
    step: i64,
) -> impl Iterator<Item = &Value> {
    let bound = |index: i64| position(index, items.len()).unwrap_or(0).min(items.len());
    let (start, end) = (start.map_or(0, bound), end.map_or(items.len(), bound));
    let step = usize::try_from(step).unwrap_or(1).max(1);
    items
        .get(start..end.max(start))
        .unwrap_or_default()
        .iter()
        .step_by(step)
}

fn fits(left: &Operand, test: Option<&(Comparison, Operand)>, each: &Value) -> bool {
    let values = |operand: &Operand| match operand {
        Operand::Literal(value) => vec![value.clone()],
        // What is out of bounds within a filter is not there.
        Operand::Path(steps) => select(steps, vec![each])
            .unwrap_or_default()
            .into_iter()
            .cloned()
            .collect(),
    };
    let left = values(left);
    let Some((comparison, right)) = test else {
        return !left.is_empty();
    };
    match (left.first(), values(right).first()) {
        (Some(left), Some(right)) => compare(left, *comparison, right),
        _ => false,
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) if left == right => Some(Ordering::Equal),
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::Unequal => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// `TITLE:PATH,…` of `-o custom-columns`.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns(Vec<(String, Template)>);

impl Columns {
    /// # Errors
    /// A column without a path, or a path that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut columns = Vec::new();
        for part in text.split(',') {
            let Some((title, path)) = part.split_once(':').filter(|(_, path)| !path.is_empty())
            else {
                return Err(format!(
                    "column `{part}` is not TITLE:PATH, such as NAME:.metadata.name"
                ));
            };
            columns.push((title.to_owned(), Template::column(path)?));
        }
        Ok(Self(columns))
    }

    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(title, _)| title.as_str())
    }

    /// An object's cells; `<none>` for what is not there.
    pub fn row(&self, object: &Value) -> Vec<String> {
        let cell = |(_, path): &(String, Template)| {
            let text = path.fill(object).unwrap_or_default();
            crate::object::or_none(text)
        };
        self.0.iter().map(cell).collect()
    }
}

/// A message with the place in the template.
fn at(template: &str, place: usize, what: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "jsonpath template `{template}`: {what} at character {}",
        place + 1
    );
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, object: &Value) -> String {
        Template::parse(template)
            .expect(template)
            .fill(object)
            .expect(template)
    }

    fn pods() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a-1", "labels": {"app.kubernetes.io/name": "a", "x-y": "1"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d"}]}, "n": 3, "nil": null},
            {"metadata": {"name": "b-1"}, "spec": {"containers": [{"name": "e"}], "on": true}, "n": 5},
        ]})
    }

    #[test]
    fn what_istios_documentation_asks_for_is_answered() {
        let pods = pods();
        for (template, expected) in [
            ("{.items[0].metadata.name}", "a-1"),
            ("{.items..metadata.name}", "a-1 b-1"),
            ("{.items[*].metadata.name}", "a-1 b-1"),
            (
                "{range .items[*]}{.metadata.name}{\"\\n\"}{end}",
                "a-1\nb-1\n",
            ),
            (
                "{range .items[*]}{.metadata.name}:{range .spec.containers[*]} {.name}{end};{end}",
                "a-1: c d;b-1: e;",
            ),
            ("{.items[?(@.metadata.name==\"b-1\")].n}", "5"),
            ("{.items[?(@.n>=4)].metadata.name}", "b-1"),
            ("{.items[?(@.spec.on)].metadata.name}", "b-1"),
            ("{.items[-1:].metadata.name}", "b-1"),
            ("{.items[-1].metadata.name}", "b-1"),
            ("{.items[0]['metadata']['name']}", "a-1"),
            (
                "{.items[0].metadata.labels.app\\.kubernetes\\.io/name}",
                "a",
            ),
            (
                "{.items[0].metadata.labels['app\\.kubernetes\\.io/name']}",
                "a",
            ),
            ("{.items[0].metadata.labels.x-y}", "1"),
            ("{$.kind} {@.kind}", "List List"),
            ("{.items[0].spec.containers[0,1].name}", "c d"),
            (
                "{.items[0].metadata.labels}",
                r#"{"app.kubernetes.io/name":"a","x-y":"1"}"#,
            ),
            ("{.items[*]['metadata.name', 'n']}", "a-1 b-1 3 5"),
            ("{..nil}", "null"),
            (
                "n={.items[0].n}, on={.items[1].spec.on}, none={.nothing.here}",
                "n=3, on=true, none=",
            ),
            ("{.items[0:1].metadata.name}{'\\t'}|", "a-1\t|"),
        ] {
            assert_eq!(filled(template, &pods), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error_only_where_it_was_counted() {
        let template = Template::parse("{.items[0].metadata.name}").expect("parsed");
        let error = template.fill(&json!({"items": []})).expect_err("empty");
        assert!(
            error.ends_with("array index out of bounds: index 0, length 0"),
            "{error}"
        );
        assert_eq!(filled("{.items[*].x.y}", &pods()), "");
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (template, what) in [
            ("{.a", "`}` is missing at character 4"),
            ("{range .a[*]}{.b}", "`{end}` is missing"),
            ("{end}", "`{end}` without `{range …}`"),
            ("{.a[?(@.b==)]}", "a value is missing at character 12"),
            ("{.a[x]}", "is not an index"),
            ("{kind}", "paths begin with a dot at character 2"),
            ("{\"abc}", "the quote is not closed"),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(error.contains(what), "{template}: {error}");
        }
    }

    #[test]
    fn columns_are_paths_with_titles() {
        let columns = Columns::parse("NAME:.metadata.name,N:n,NONE:{.x}").expect("parsed");
        assert_eq!(columns.titles().collect::<Vec<_>>(), ["NAME", "N", "NONE"]);
        assert_eq!(columns.row(&pods()["items"][0]), ["a-1", "3", "<none>"]);
        assert!(Columns::parse("NAME").is_err());
    }
}
