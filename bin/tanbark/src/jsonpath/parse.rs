//! Reads templates. A cursor over characters; every mistake is told with its place.

use serde_json::Value;

use super::{Comparison, Node, Operand, Step, at};

struct Cursor<'a> {
    template: &'a str,
    characters: Vec<char>,
    place: usize,
}

/// # Errors
/// What is not understood.
pub fn template(text: &str) -> Result<Vec<Node>, String> {
    let mut cursor = Cursor {
        template: text,
        characters: text.chars().collect(),
        place: 0,
    };
    // The innermost list is the last; each `range` opens one.
    let mut open: Vec<(Vec<Step>, Vec<Node>)> = vec![(Vec::new(), Vec::new())];
    while let Some(next) = cursor.peek() {
        let node = if next == '{' {
            cursor.place += 1;
            match cursor.expression()? {
                Expression::Nodes(nodes) => nodes,
                Expression::Range(steps) => {
                    open.push((steps, Vec::new()));
                    continue;
                }
                Expression::End => match (open.pop(), open.is_empty()) {
                    (Some((steps, inside)), false) => vec![Node::Range(steps, inside)],
                    _ => return Err(cursor.wrong("`{end}` without `{range …}`")),
                },
            }
        } else {
            vec![Node::Text(cursor.text())]
        };
        if let Some((_, nodes)) = open.last_mut() {
            nodes.extend(node);
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some((_, nodes)), true) => Ok(nodes),
        _ => Err(cursor.wrong("`{end}` is missing")),
    }
}

enum Expression {
    Nodes(Vec<Node>),
    Range(Vec<Step>),
    End,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.place).copied()
    }

    fn wrong(&self, what: &str) -> String {
        at(self.template, self.place, what)
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.place += usize::from(there);
        there
    }

    fn need(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(self.wrong(&format!("`{wanted}` is missing")))
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.place += 1;
        }
    }

    fn while_it(&mut self, fits: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(next) = self.peek().filter(|next| fits(*next)) {
            text.push(next);
            self.place += 1;
        }
        text
    }

    /// Text up to the next brace.
    fn text(&mut self) -> String {
        self.while_it(|next| next != '{')
    }

    /// What stands in braces, the opening one taken already.
    fn expression(&mut self) -> Result<Expression, String> {
        self.spaces();
        let mut nodes = Vec::new();
        loop {
            self.spaces();
            match self.peek() {
                Some('}') => {
                    self.place += 1;
                    return Ok(Expression::Nodes(nodes));
                }
                None => return Err(self.wrong("`}` is missing")),
                Some(quote @ ('"' | '\'')) => {
                    self.place += 1;
                    nodes.push(Node::Text(self.quoted(quote)?));
                }
                Some(first) if first.is_alphabetic() => {
                    let before = self.place;
                    let word = self.while_it(|next| next.is_alphanumeric());
                    match word.as_str() {
                        "range" => {
                            self.spaces();
                            let steps = self.path()?;
                            self.spaces();
                            self.need('}')?;
                            return Ok(Expression::Range(steps));
                        }
                        "end" => {
                            self.spaces();
                            self.need('}')?;
                            return Ok(Expression::End);
                        }
                        _ => {
                            self.place = before;
                            return Err(self.wrong(&format!(
                                "`{word}` is not known here; paths begin with a dot"
                            )));
                        }
                    }
                }
                Some(_) => {
                    let before = self.place;
                    let steps = self.path()?;
                    if self.place == before {
                        return Err(self.wrong("this is not part of a path"));
                    }
                    nodes.push(Node::Path(steps));
                }
            }
        }
    }

    /// The text up to the closing quote, unescaped.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let next = self
                .peek()
                .ok_or_else(|| self.wrong("the quote is not closed"))?;
            self.place += 1;
            match next {
                end if end == quote => return Ok(text),
                '\\' => {
                    let escaped = self
                        .peek()
                        .ok_or_else(|| self.wrong("the quote is not closed"))?;
                    self.place += 1;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                }
                other => text.push(other),
            }
        }
    }

    /// As many steps as there are.
    fn path(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            match self.peek() {
                // Where a path begins anyway; in a range both are the item.
                Some('$' | '@') => self.place += 1,
                Some('.') => {
                    self.place += 1;
                    if self.take('.') {
                        steps.push(Step::Deep);
                    }
                    match self.peek() {
                        Some('*') => {
                            self.place += 1;
                            steps.push(Step::All);
                        }
                        Some('[') => {}
                        _ => {
                            let name = self.name();
                            if !name.is_empty() {
                                steps.push(Step::Field(name));
                            }
                        }
                    }
                }
                Some('[') => {
                    self.place += 1;
                    steps.push(self.brackets()?);
                }
                _ => return Ok(steps),
            }
        }
    }

    /// A field's name; a backslash keeps what follows it from ending the name.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(next) = self.peek() {
            match next {
                '\\' => {
                    self.place += 1;
                    if let Some(escaped) = self.peek() {
                        name.push(escaped);
                        self.place += 1;
                    }
                }
                '.' | '[' | ']' | '{' | '}' | '(' | ')' | '=' | '!' | '<' | '>' | ',' => break,
                space if space.is_whitespace() => break,
                other => {
                    name.push(other);
                    self.place += 1;
                }
            }
        }
        name
    }

    /// What stands in brackets, the opening one taken already.
    fn brackets(&mut self) -> Result<Step, String> {
        self.spaces();
        let step = match self.peek() {
            Some('*') => {
                self.place += 1;
                Step::All
            }
            Some('?') => {
                self.place += 1;
                self.filter()?
            }
            Some('\'') => Step::Union(self.names()?),
            _ => self.indices()?,
        };
        self.spaces();
        self.need(']')?;
        Ok(step)
    }

    /// Names in single quotes, each a path.
    fn names(&mut self) -> Result<Vec<Vec<Step>>, String> {
        let mut paths = Vec::new();
        loop {
            self.spaces();
            if !self.take('\'') {
                return Err(self.wrong("a quoted name is missing"));
            }
            let name = self.while_it(|next| next != '\'');
            if !self.take('\'') {
                return Err(self.wrong("the quote is not closed"));
            }
            let dotted = if name.starts_with(['.', '[']) {
                name
            } else {
                format!(".{name}")
            };
            let mut inner = Cursor {
                template: self.template,
                characters: dotted.chars().collect(),
                place: 0,
            };
            paths.push(inner.path()?);
            self.spaces();
            if !self.take(',') {
                return Ok(paths);
            }
        }
    }

    /// `0`, `-1`, `0,2`, `1:3`, `::2`
    fn indices(&mut self) -> Result<Step, String> {
        let begin = self.place;
        let text = self.while_it(|next| next != ']');
        let number = |part: &str| -> Result<Option<i64>, String> {
            match part.trim() {
                "" => Ok(None),
                part => part
                    .parse()
                    .map(Some)
                    .map_err(|_| at(self.template, begin, &format!("`{part}` is not an index"))),
            }
        };
        let parts = |by: char| {
            text.split(by)
                .map(number)
                .collect::<Result<Vec<Option<i64>>, String>>()
        };
        if !text.contains(':') {
            let indices: Option<Vec<i64>> = parts(',')?.into_iter().collect();
            return indices
                .map(Step::Indices)
                .ok_or_else(|| at(self.template, begin, "an index is missing"));
        }
        let bounds = parts(':')?;
        match bounds.as_slice() {
            [start, end] => Ok(Step::Slice {
                start: *start,
                end: *end,
                step: 1,
            }),
            [start, end, step] => Ok(Step::Slice {
                start: *start,
                end: *end,
                step: step.unwrap_or(1),
            }),
            _ => Err(at(
                self.template,
                begin,
                &format!("`{text}` is not START:END:STEP"),
            )),
        }
    }

    /// `(LEFT OP RIGHT)` or `(PATH)`
    fn filter(&mut self) -> Result<Step, String> {
        self.need('(')?;
        let left = self.operand()?;
        self.spaces();
        let test = match self.comparison() {
            None => None,
            Some(comparison) => Some((comparison, self.operand()?)),
        };
        self.spaces();
        self.need(')')?;
        Ok(Step::Filter(left, test))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let rest: String = self.characters.iter().skip(self.place).take(2).collect();
        let all = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let (word, comparison) = all.into_iter().find(|(word, _)| rest.starts_with(word))?;
        self.place += word.len();
        Some(comparison)
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.spaces();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.place += 1;
                Ok(Operand::Literal(self.quoted(quote)?.into()))
            }
            Some('@' | '.' | '$') => Ok(Operand::Path(self.path()?)),
            _ => {
                let begin = self.place;
                let word = self.while_it(|next| {
                    next.is_alphanumeric() || ['-', '+', '.', '_'].contains(&next)
                });
                if word.is_empty() {
                    return Err(self.wrong("a value is missing"));
                }
                serde_json::from_str::<Value>(&word)
                    .map(Operand::Literal)
                    .map_err(|_| {
                        at(
                            self.template,
                            begin,
                            &format!("`{word}` is not a value; texts stand in quotes"),
                        )
                    })
            }
        }
    }
}
