//! Text to tree: a recursive descent over CEL's grammar, bounded in depth and length.

use regex::Regex;

use super::attribute::Attribute;
use super::node::{Comparison, Node, TextTest};
use super::value::{Conversion, Value};
use crate::Error;

/// Deepest nesting of an expression.
const MAX_DEPTH: usize = 64;
/// Longest text of an expression, bytes.
const MAX_LENGTH: usize = 16 * 1024;

pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    if text.len() > MAX_LENGTH {
        return Err(parser.error(format!("longer than {MAX_LENGTH} bytes")));
    }
    let node = parser.conditional()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error(format!(
            "unexpected `{}`",
            parser.rest().chars().take(12).collect::<String>()
        )));
    }
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Parsed = Result<Node, Error>;

impl<'a> Parser<'a> {
    fn error(&self, problem: impl Into<String>) -> Error {
        let expression: String = self.text.chars().take(200).collect();
        Error::Expression {
            expression,
            offset: self.at,
            problem: problem.into(),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn peek(&mut self) -> Option<char> {
        self.space();
        self.rest().chars().next()
    }

    /// Takes `token` when it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn need(&mut self, token: &str) -> Result<(), Error> {
        if self.take(token) {
            Ok(())
        } else {
            Err(self.error(format!("expected `{token}`")))
        }
    }

    fn conditional(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let condition = self.or()?;
        let node = if self.take("?") {
            let yes = self.conditional()?;
            self.need(":")?;
            Node::Conditional(
                Box::new(condition),
                Box::new(yes),
                Box::new(self.conditional()?),
            )
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn or(&mut self) -> Parsed {
        let mut operands = vec![self.and()?];
        while self.take("||") {
            operands.push(self.and()?);
        }
        Ok(balanced(operands, Node::Or))
    }

    fn and(&mut self) -> Parsed {
        let mut operands = vec![self.relation()?];
        while self.take("&&") {
            operands.push(self.relation()?);
        }
        Ok(balanced(operands, Node::And))
    }

    fn relation(&mut self) -> Parsed {
        const OPERATORS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let left = self.sum()?;
        if let Some((_, comparison)) = OPERATORS.into_iter().find(|(token, _)| self.take(token)) {
            return Ok(Node::Compare(
                comparison,
                Box::new(left),
                Box::new(self.sum()?),
            ));
        }
        if self.word() == Some("in") {
            self.at += 2;
            return Ok(Node::In(Box::new(left), Box::new(self.sum()?)));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        let mut terms = 0;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.at += 1;
            self.chain(&mut terms)?;
            left = Node::Arithmetic(operator, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        let mut terms = 0;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.at += 1;
            self.chain(&mut terms)?;
            left = Node::Arithmetic(operator, Box::new(left), Box::new(self.unary()?));
        }
        Ok(left)
    }

    /// Bounds chains whose tree leans to the left, which evaluation and drop walk recursively.
    fn chain(&self, terms: &mut usize) -> Result<(), Error> {
        *terms += 1;
        if *terms > MAX_DEPTH {
            Err(self.error("too many operators in a row"))
        } else {
            Ok(())
        }
    }

    fn unary(&mut self) -> Parsed {
        let mut operators = Vec::new();
        while let Some(operator @ ('!' | '-')) = self.peek() {
            if operator == '!' && self.rest().starts_with("!=") {
                break;
            }
            self.at += 1;
            let mut count = operators.len();
            self.chain(&mut count)?;
            operators.push(operator);
        }
        let operand = self.member()?;
        Ok(operators
            .into_iter()
            .rev()
            .fold(operand, |node, operator| match operator {
                '!' => Node::Not(Box::new(node)),
                _ => Node::Negate(Box::new(node)),
            }))
    }

    /// A primary with its fields, indexes and method calls.
    fn member(&mut self) -> Parsed {
        let mut node = self.primary()?;
        let mut links = 0;
        loop {
            match self.peek() {
                Some('.') => {
                    self.at += 1;
                    let Some(name) = self.identifier() else {
                        return Err(self.error("expected a field name"));
                    };
                    node = match self.peek() {
                        Some('(') => self.method(name, node)?,
                        _ => Node::Index(
                            Box::new(node),
                            Box::new(Node::Literal(Value::Text(name.to_string()))),
                        ),
                    };
                }
                Some('[') => {
                    self.at += 1;
                    let key = self.conditional()?;
                    self.need("]")?;
                    node = Node::Index(Box::new(node), Box::new(key));
                }
                _ => return Ok(node),
            }
            self.chain(&mut links)?;
        }
    }

    fn primary(&mut self) -> Parsed {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let node = self.conditional()?;
                self.need(")")?;
                Ok(node)
            }
            Some('[') => {
                self.at += 1;
                Ok(Node::List(self.items("]")?))
            }
            Some('\'' | '"') => self.string(),
            Some(first) if first.is_ascii_digit() => self.number(),
            Some('{') => Err(self.error("map literals are not supported")),
            _ => self.name(),
        }
    }

    /// Comma separated expressions up to and with `end`.
    fn items(&mut self, end: &str) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        while !self.take(end) {
            if !items.is_empty() {
                self.need(",")?;
            }
            items.push(self.conditional()?);
        }
        Ok(items)
    }

    fn word(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .unwrap_or(rest.len());
        rest.get(..end).filter(|word| {
            !word.is_empty() && !word.starts_with(|first: char| first.is_ascii_digit())
        })
    }

    fn identifier(&mut self) -> Option<&'a str> {
        let word = self.word()?;
        self.at += word.len();
        Some(word)
    }

    fn name(&mut self) -> Parsed {
        let start = self.at;
        let Some(word) = self.identifier() else {
            return Err(self.error("expected an expression"));
        };
        match word {
            "true" | "false" => return Ok(Node::Literal(Value::Bool(word == "true"))),
            "null" => return Ok(Node::Literal(Value::Null)),
            _ => {}
        }
        if self.peek() == Some('(') {
            return self.function(word);
        }
        let mut path = word.to_string();
        while Attribute::is_prefix(&path) && self.take(".") {
            let Some(field) = self.identifier() else {
                return Err(self.error("expected a field name"));
            };
            path = format!("{path}.{field}");
        }
        match Attribute::by_path(&path) {
            Some(attribute) => Ok(Node::Attribute(attribute)),
            None => {
                self.at = start;
                Err(self.error(format!("attribute `{path}` is not supported")))
            }
        }
    }

    fn function(&mut self, name: &str) -> Parsed {
        self.need("(")?;
        let mut arguments = self.items(")")?.into_iter();
        let (Some(argument), None) = (arguments.next(), arguments.next()) else {
            return Err(self.error(format!(
                "function `{name}` with this number of arguments is not supported"
            )));
        };
        let argument = Box::new(argument);
        match name {
            "has" => match *argument {
                Node::Index(..) | Node::Attribute(_) => Ok(Node::Has(argument)),
                _ => Err(self.error("has() takes a field or an element")),
            },
            "size" => Ok(Node::Convert(Conversion::Size, argument)),
            "string" => Ok(Node::Convert(Conversion::Text, argument)),
            "int" | "uint" => Ok(Node::Convert(Conversion::Int, argument)),
            _ => Err(self.error(format!("function `{name}` is not supported"))),
        }
    }

    fn method(&mut self, name: &str, object: Node) -> Parsed {
        self.need("(")?;
        let mut arguments = self.items(")")?.into_iter();
        let object = Box::new(object);
        match (name, arguments.next(), arguments.next()) {
            ("contains", Some(part), None) => {
                Ok(Node::TextTest(TextTest::Contains, object, Box::new(part)))
            }
            ("startsWith", Some(part), None) => {
                Ok(Node::TextTest(TextTest::StartsWith, object, Box::new(part)))
            }
            ("endsWith", Some(part), None) => {
                Ok(Node::TextTest(TextTest::EndsWith, object, Box::new(part)))
            }
            ("matches", Some(Node::Literal(Value::Text(pattern))), None) => {
                match Regex::new(&pattern) {
                    Ok(regex) => Ok(Node::Matches(regex, object)),
                    Err(error) => Err(self.error(format!("pattern `{pattern}`: {error}"))),
                }
            }
            ("matches", ..) => {
                Err(self.error("matches() with a pattern that is not a literal is not supported"))
            }
            ("size", None, None) => Ok(Node::Convert(Conversion::Size, object)),
            ("lowerAscii", None, None) => Ok(Node::Convert(Conversion::Lower, object)),
            ("upperAscii", None, None) => Ok(Node::Convert(Conversion::Upper, object)),
            _ => Err(self.error(format!(
                "method `{name}` with these arguments is not supported"
            ))),
        }
    }

    fn number(&mut self) -> Parsed {
        let rest = self.rest();
        if rest.starts_with("0x") || rest.starts_with("0X") {
            let digits: String = rest
                .chars()
                .skip(2)
                .take_while(char::is_ascii_hexdigit)
                .collect();
            self.at += 2 + digits.len();
            let value = i64::from_str_radix(&digits, 16).map_err(|_| self.error("bad number"))?;
            return Ok(Node::Literal(Value::Int(value)));
        }
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let digits = rest.get(..end).unwrap_or_default();
        self.at += digits.len();
        let value = match digits.contains('.') {
            true => digits.parse().ok().map(Value::Double),
            false => digits.parse().ok().map(Value::Int),
        };
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
        }
        value
            .map(Node::Literal)
            .ok_or_else(|| self.error(format!("bad number `{digits}`")))
    }

    fn string(&mut self) -> Parsed {
        let mut letters = self.rest().char_indices();
        let quote = letters.next().map_or('\'', |(_, quote)| quote);
        let mut value = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.at += at + letter.len_utf8();
                    return Ok(Node::Literal(Value::Text(value)));
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, escaped @ ('\\' | '\'' | '"' | '`' | '?'))) => value.push(escaped),
                    _ => return Err(self.error("escape sequence is not supported")),
                },
                _ => value.push(letter),
            }
        }
        Err(self.error("string does not end"))
    }
}

/// Joins operands of an associative operator as a tree of logarithmic depth.
fn balanced(mut operands: Vec<Node>, join: fn(Box<Node>, Box<Node>) -> Node) -> Node {
    while operands.len() > 1 {
        let mut joined = Vec::with_capacity(operands.len().div_ceil(2));
        let mut rest = operands.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => join(Box::new(left), Box::new(right)),
                None => left,
            });
        }
        operands = joined;
    }
    operands.pop().unwrap_or(Node::Literal(Value::Null))
}
