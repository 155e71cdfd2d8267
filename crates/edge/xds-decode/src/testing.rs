//! Messages as YAML, so that tests read like the configuration they are about.

use std::sync::LazyLock;

use wire_envoy::Descriptors;

use crate::{
    context::Cx,
    reject::{Refusal, Reject},
};

static DESCRIPTORS: LazyLock<Descriptors> =
    LazyLock::new(|| Descriptors::load().expect("built-in"));

/// The message that the YAML stands for.
pub(crate) fn message<M: prost::Message + prost::Name + Default>(yaml: &str) -> M {
    DESCRIPTORS.from_yaml(yaml).expect("the test's own YAML")
}

/// Decodes YAML; a refusal as it would stand in the NACK.
pub(crate) fn decode<M: prost::Message + prost::Name + Default, T>(
    yaml: &str,
    decode: impl FnOnce(&mut Cx, M) -> Result<T, Refusal>,
) -> Result<T, Reject> {
    decode(&mut Cx::default(), message(yaml)).map_err(|refusal| refusal.into_reject("test", ""))
}

/// The field of the refusal and its reason.
pub(crate) fn refused<T>(result: Result<T, Reject>) -> (String, String) {
    let Err(reject) = result else {
        panic!("was accepted")
    };
    (reject.field, reject.reason)
}
