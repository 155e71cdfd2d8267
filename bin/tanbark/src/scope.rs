//! The namespace that a command looks in: `-n`, before the command's name (as `kubectl -n shop get pods` has it) or after it.

use clap::Args;

/// Where objects are looked for.
#[derive(Debug, Clone, Default, Args)]
pub struct Scope {
    /// Namespace (default: `default`)
    #[arg(short = 'n', long = "namespace", value_name = "NAMESPACE")]
    chosen: Option<String>,
}

impl Scope {
    /// The namespace that was chosen, else `default`.
    pub fn namespace(&self) -> &str {
        self.chosen().unwrap_or("default")
    }

    /// The namespace, where one was chosen.
    pub fn chosen(&self) -> Option<&str> {
        self.chosen.as_deref().filter(|name| !name.is_empty())
    }

    /// What was typed before the command's name counts where nothing follows it.
    pub fn fall_back_to(&mut self, namespace: String) {
        self.chosen.get_or_insert(namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_command_counts_before_what_precedes_it() {
        let mut scope = Scope::default();
        assert_eq!((scope.namespace(), scope.chosen()), ("default", None));
        scope.fall_back_to("a".into());
        scope.fall_back_to("b".into());
        assert_eq!((scope.namespace(), scope.chosen()), ("a", Some("a")));
    }
}
