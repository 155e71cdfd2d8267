//! What can be wrong with telemetry configuration. Peers cannot cause an error here: what they send
//! that does not parse is ignored (trace context) or printed as it is.

/// A configuration that telemetry cannot follow; the text names the offending part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("access log format: {0}")]
    Format(String),
    #[error("expression `{expression}`: {problem} at offset {offset}")]
    Expression {
        expression: String,
        offset: usize,
        problem: String,
    },
    #[error("regular expression `{pattern}`: {problem}")]
    Regex { pattern: String, problem: String },
    #[error("{0}: not supported")]
    Unsupported(String),
}
