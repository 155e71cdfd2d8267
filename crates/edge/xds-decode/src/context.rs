//! What decoding carries along: which harmless fields were set but not looked at, and descriptors when a
//! `TypedStruct` needs them (loaded on first use, dropped with the decoder).

use std::{collections::BTreeMap, sync::Arc};

use telemetry::access_log::{Environment, Format};
use wire_envoy::{Descriptors, Unknown, pb, structs};

use crate::reject::Refusal;

#[derive(Default)]
pub(crate) struct Cx {
    notes: BTreeMap<(String, String), u64>,
    descriptors: Option<Descriptors>,
    environment: Environment,
}

impl Cx {
    /// A field that is set and ignored.
    pub(crate) fn note(&mut self, message: fn() -> String, field: &str) {
        self.note_text(message(), field.trim_start_matches("r#"));
    }

    /// Something else that was read and has no effect, e.g. one word of a list.
    pub(crate) fn note_text(&mut self, message: impl Into<String>, what: impl Into<String>) {
        *self.notes.entry((message.into(), what.into())).or_default() += 1;
    }

    pub(crate) fn notes(&self) -> &BTreeMap<(String, String), u64> {
        &self.notes
    }

    pub(crate) fn with_environment(environment: Environment) -> Self {
        Self {
            environment,
            ..Self::default()
        }
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// A format in Envoy's log language.
    pub(crate) fn format(&self, text: &str, omit_empty: bool) -> Result<Arc<Format>, Refusal> {
        Format::parse(text, &self.environment, omit_empty)
            .map(Arc::new)
            .map_err(|e| Refusal::new(e.to_string()))
    }

    /// Frees the descriptors, which cost much and are rarely needed.
    pub(crate) fn drop_descriptors(&mut self) {
        self.descriptors = None;
    }

    /// A message out of the Struct that stands for it.
    pub(crate) fn message_of<M: prost::Message + prost::Name + Default>(
        &mut self,
        value: &pb::Struct,
    ) -> Result<M, Refusal> {
        let descriptors = match self.descriptors.take() {
            Some(loaded) => loaded,
            None => Descriptors::load().map_err(|e| Refusal::new(e.to_string()))?,
        };
        let message = descriptors.from_json(structs::to_json(value), Unknown::Deny);
        self.descriptors = Some(descriptors);
        message.map_err(|e| Refusal::at("value", e.to_string()))
    }
}
