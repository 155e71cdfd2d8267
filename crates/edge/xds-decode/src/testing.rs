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
    let (decoded, refused) = parts(yaml, decode);
    match refused.into_iter().next() {
        Some(reject) => Err(reject),
        None => decoded,
    }
}

/// Decodes YAML as far as it can be obeyed, and what of it is refused.
pub(crate) fn parts<M: prost::Message + prost::Name + Default, T>(
    yaml: &str,
    decode: impl FnOnce(&mut Cx, M) -> Result<T, Refusal>,
) -> (Result<T, Reject>, Vec<Reject>) {
    let mut cx = Cx::default();
    let decoded = decode(&mut cx, message(yaml)).map_err(|refusal| refusal.into_reject("test", ""));
    let refused = cx.take_refused().into_iter();
    let refused = refused.map(|r| r.into_reject("test", "")).collect();
    (decoded, refused)
}

/// The field of the refusal and its reason.
pub(crate) fn refused<T>(result: Result<T, Reject>) -> (String, String) {
    let Err(reject) = result else {
        panic!("was accepted")
    };
    (reject.field, reject.reason)
}
