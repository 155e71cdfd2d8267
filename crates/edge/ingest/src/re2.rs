//! Regular expressions as Istio takes them: RE2's syntax.
//!
//! Ours is a Rust library's, which knows more: an expression that only it understands would work in one proxy and be refused, with the whole
//! route table around it, by another. What both know means the same in both, with one exception: `\d`, `\w`, `\s` and `\b` are ASCII in RE2
//! and Unicode here. (RE2's `\C` and `\Q…\E` are not known here, and refused with the library's own words.)

use regex::Regex;
use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSet, ClassSetItem, ClassUnicodeKind, Flag, Flags, FlagsItemKind,
    GroupKind, HexLiteralKind, LiteralKind, RepetitionKind, RepetitionRange, Visitor,
};

/// RE2's limit of `{n,m}`.
const REPETITIONS_MAX: u32 = 1000;

/// How many groups the expression has, the whole match not counted; the error ends a sentence that begins with the expression.
pub fn groups_of(expression: &str) -> Result<usize, String> {
    let compiled = Regex::new(expression).map_err(|e| {
        let text = e.to_string();
        let last = text.lines().last().unwrap_or_default().trim();
        format!(
            "is not a regular expression: {}",
            last.trim_start_matches("error: ")
        )
    })?;
    let parsed = ast::parse::Parser::new().parse(expression);
    let unknown = parsed
        .ok()
        .and_then(|tree| ast::visit(&tree, OnlyRe2).err());
    match unknown {
        Some(what) => Err(format!("is not RE2's syntax, which Istio takes: {what}")),
        None => Ok(compiled.captures_len() - 1),
    }
}

/// Checks a substitution of an expression with so many groups: `\0` … `\9` are groups, `\\` is a backslash, and there is nothing else.
pub fn check_substitution(text: &str, groups: usize) -> Result<(), String> {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit) => match digit.to_digit(10) {
                Some(group) if group as usize <= groups => {}
                Some(group) => {
                    return Err(format!(
                        "refers to group {group}, but the expression has {groups}"
                    ));
                }
                None => {
                    return Err(format!(
                        "has `\\{digit}`: write \\0 to \\9 for groups and \\\\ for a backslash"
                    ));
                }
            },
            None => return Err("ends in a single backslash: write \\\\".into()),
        }
    }
    Ok(())
}

/// Ends with the first thing that RE2 does not have.
struct OnlyRe2;

impl Visitor for OnlyRe2 {
    type Output = ();
    type Err = &'static str;

    fn finish(self) -> Result<(), Self::Err> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), Self::Err> {
        match node {
            Ast::Flags(set) => check_flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) => check_flags(flags),
                GroupKind::CaptureIndex(_) | GroupKind::CaptureName { .. } => Ok(()),
            },
            Ast::Assertion(assertion) => check_assertion(&assertion.kind),
            Ast::Literal(literal) => check_literal(&literal.kind),
            Ast::ClassUnicode(class) => check_class(&class.kind),
            Ast::Repetition(repetition) => check_repetition(&repetition.op.kind),
            Ast::Empty(_)
            | Ast::Dot(_)
            | Ast::ClassPerl(_)
            | Ast::ClassBracketed(_)
            | Ast::Alternation(_)
            | Ast::Concat(_) => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Literal(literal) => check_literal(&literal.kind),
            ClassSetItem::Range(range) => {
                check_literal(&range.start.kind).and_then(|()| check_literal(&range.end.kind))
            }
            ClassSetItem::Unicode(class) => check_class(&class.kind),
            ClassSetItem::Bracketed(inner) => match inner.kind {
                ClassSet::Item(_) | ClassSet::BinaryOp(_) => {
                    Err("`[` inside of `[…]`; write `\\[`")
                }
            },
            ClassSetItem::Empty(_)
            | ClassSetItem::Ascii(_)
            | ClassSetItem::Perl(_)
            | ClassSetItem::Union(_) => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(
        &mut self,
        _: &ast::ClassSetBinaryOp,
    ) -> Result<(), Self::Err> {
        Err("`&&`, `--` and `~~` inside of `[…]`")
    }
}

fn check_flags(flags: &Flags) -> Result<(), &'static str> {
    let known = |kind: &FlagsItemKind| match kind {
        FlagsItemKind::Negation => true,
        FlagsItemKind::Flag(flag) => match flag {
            Flag::CaseInsensitive | Flag::MultiLine | Flag::DotMatchesNewLine | Flag::SwapGreed => {
                true
            }
            Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace => false,
        },
    };
    match flags.items.iter().all(|item| known(&item.kind)) {
        true => Ok(()),
        false => Err("a flag other than i, m, s and U"),
    }
}

fn check_assertion(kind: &AssertionKind) -> Result<(), &'static str> {
    match kind {
        AssertionKind::StartLine
        | AssertionKind::EndLine
        | AssertionKind::StartText
        | AssertionKind::EndText
        | AssertionKind::WordBoundary
        | AssertionKind::NotWordBoundary => Ok(()),
        AssertionKind::WordBoundaryStart
        | AssertionKind::WordBoundaryEnd
        | AssertionKind::WordBoundaryStartAngle
        | AssertionKind::WordBoundaryEndAngle
        | AssertionKind::WordBoundaryStartHalf
        | AssertionKind::WordBoundaryEndHalf => Err("a word boundary other than `\\b` and `\\B`"),
    }
}

fn check_literal(kind: &LiteralKind) -> Result<(), &'static str> {
    match kind {
        LiteralKind::HexFixed(HexLiteralKind::X) | LiteralKind::HexBrace(HexLiteralKind::X) => {
            Ok(())
        }
        LiteralKind::HexFixed(_) | LiteralKind::HexBrace(_) => {
            Err("`\\u` and `\\U`; write `\\x{…}`")
        }
        LiteralKind::Verbatim
        | LiteralKind::Meta
        | LiteralKind::Superfluous
        | LiteralKind::Octal
        | LiteralKind::Special(_) => Ok(()),
    }
}

fn check_class(kind: &ClassUnicodeKind) -> Result<(), &'static str> {
    match kind {
        ClassUnicodeKind::OneLetter(_) | ClassUnicodeKind::Named(_) => Ok(()),
        ClassUnicodeKind::NamedValue { .. } => Err("`\\p{…=…}`"),
    }
}

fn check_repetition(kind: &RepetitionKind) -> Result<(), &'static str> {
    let most = match kind {
        RepetitionKind::Range(
            RepetitionRange::Exactly(n)
            | RepetitionRange::AtLeast(n)
            | RepetitionRange::Bounded(_, n),
        ) => *n,
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 0,
    };
    match most <= REPETITIONS_MAX {
        true => Ok(()),
        false => Err("more than 1000 repetitions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_libraries_know_is_taken_and_the_rest_is_named() {
        let good = [
            r"^/v(\d+)/.*$",
            r"(?i)a|b",
            r"(?P<name>x)\.[[:alpha:]_-]*",
            r"\x41\x{1F600}\pL\p{Greek}",
            r"a{2,1000}?",
            r"[\[\]a-z]",
            r"\Aa\b\B\z",
        ];
        for expression in good {
            assert!(groups_of(expression).is_ok(), "{expression}");
        }
        let bad = [
            ("(", "is not a regular expression: unclosed group"),
            ("a++b{", "is not a regular expression"),
            ("(?x)a b", "a flag other than"),
            ("(?-u:a)", "a flag other than"),
            ("[a-z&&[^b]]", "`&&`"),
            ("[a[b]]", "inside of"),
            (r"\b{start}a", "a word boundary"),
            (r"\u0041", r"`\u`"),
            ("(?:ab){1001}", "more than 1000"),
            (r"\p{sc=Greek}", "=…"),
            ("(?=a)", "look-around"),
        ];
        for (expression, why) in bad {
            let said = groups_of(expression).unwrap_err();
            assert!(said.contains(why), "{expression}: {said}");
        }
        assert_eq!(groups_of("(a)(?:b)(?P<c>d)"), Ok(2));
    }

    #[test]
    fn a_substitution_names_groups_that_exist() {
        for (text, groups) in [("/a", 0), (r"/\1\2\\x", 2), (r"\0", 0), ("$1", 0)] {
            assert_eq!(check_substitution(text, groups), Ok(()), "{text}");
        }
        for (text, groups) in [(r"\1", 0), (r"\q", 1), ("\\", 1), (r"\9", 8)] {
            assert!(check_substitution(text, groups).is_err(), "{text}");
        }
    }
}
