//! Prometheus' text format, as far as a reader of counters and histograms needs it.
//!
//! Samples come out in the order of the page. A line that does not parse is passed over.
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    /// In the order written.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value; empty when absent.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }
}

/// Every sample whose name begins so.
pub(crate) fn samples<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = Sample> + 'a {
    text.lines()
        .filter(move |line| line.starts_with(prefix))
        .filter_map(parse)
}

fn parse(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// `a="b",c="d"} rest`
fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        labels.push((key.to_owned(), value));
        text = rest;
    }
}

/// The text up to the closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_broken_lines_passed_over() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"u,}\"} 3\nab 4.5 1700000000\na{x=\"\n c 1\nother 1\n";
        let found: Vec<Sample> = samples(text, "a").collect();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].label("x"), found[0].label("y"), found[0].value),
            ("1", "q\"u,}", 3.0)
        );
        assert_eq!((found[1].name.as_str(), found[1].value), ("ab", 4.5));
    }
}
