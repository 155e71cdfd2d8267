//! What the program that links this crate adds to the runtime.

use std::sync::Arc;

use wire_kube::Document;

/// What else is wrong with the documents of all files: one line for each problem.
pub type Validate = Arc<dyn Fn(&[Document]) -> Vec<String> + Send + Sync>;

/// What the program that links this crate adds.
#[derive(Clone, Default)]
pub struct Hooks {
    /// What is wrong with documents beyond their form.
    pub validate: Option<Validate>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { validate } = self;
        formatter
            .debug_struct("Hooks")
            .field("validate", &validate.is_some())
            .finish()
    }
}
