//! What a program tells about its surroundings; libraries do not read them.

use std::collections::HashMap;

/// What the process knows and formats may print; read by the program, not here.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `%HOSTNAME%`.
    pub hostname: String,
    /// `%ENVIRONMENT(NAME)%`.
    pub variables: HashMap<String, String>,
}
