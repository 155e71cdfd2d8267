//! What decoding carries along: which harmless fields were set but not looked at, which parts were
//! refused while the rest of their resource is taken, and descriptors when a `TypedStruct` needs
//! them (loaded on first use, dropped with the decoder).

use std::{collections::BTreeMap, sync::Arc};

use proxy_config::Refused;
use telemetry::access_log::{Environment, Format};
use wire_envoy::{Descriptors, Unknown, pb, structs};

use crate::reject::{Refusal, Step};

#[derive(Default)]
pub(crate) struct Cx {
    notes: BTreeMap<(String, String), u64>,
    descriptors: Option<Descriptors>,
    environment: Environment,
    /// Parts of the resource at hand that cannot be obeyed; what is taken of the resource refuses
    /// or lacks them.
    refused: Vec<Refusal>,
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

    /// Notes a part that cannot be obeyed. The caller puts the answer where the part stood, so that
    /// the part refuses what it was to guard.
    pub(crate) fn refuse(
        &mut self,
        name: &str,
        refusal: Refusal,
        cost: &'static str,
    ) -> Arc<Refused> {
        let refused = Refused {
            name: name.into(),
            reason: refusal.to_string().into(),
        };
        self.refused.push(refusal.costing(cost));
        Arc::new(refused)
    }

    /// Notes a part that cannot be obeyed and guards nothing; the resource is taken without it.
    pub(crate) fn leave_out(&mut self, refusal: Refusal) {
        self.refused.push(refusal.costing("left out"));
    }

    pub(crate) fn take_refused(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refused)
    }

    /// Decodes what stands in a field: its refusals, whether they cost the whole or a part, get the
    /// field as a step of their path.
    pub(crate) fn within<T>(
        &mut self,
        field: &'static str,
        decode: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.step(Step::Field(field), decode)
    }

    /// Decodes every item of a list, as [`Cx::within`] does one field.
    pub(crate) fn each<A, B, C: FromIterator<B>>(
        &mut self,
        field: &'static str,
        items: impl IntoIterator<Item = A>,
        mut decode: impl FnMut(&mut Self, A) -> Result<B, Refusal>,
    ) -> Result<C, Refusal> {
        items
            .into_iter()
            .enumerate()
            .map(|(index, item)| self.step(Step::Item(field, index), |cx| decode(cx, item)))
            .collect()
    }

    fn step<T>(
        &mut self,
        step: Step,
        decode: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let before = self.refused.len();
        let decoded = decode(self);
        for refusal in self.refused.iter_mut().skip(before) {
            refusal.push(step.clone());
        }
        decoded.map_err(|mut refusal| {
            refusal.push(step);
            refusal
        })
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
