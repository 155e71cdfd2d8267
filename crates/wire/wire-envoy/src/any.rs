//! Packing a message into `google.protobuf.Any` and taking it out again, with its type checked.

use prost::{DecodeError, Message, Name};

use crate::pb::Any;
use crate::type_url::{message_name, type_url};

/// Why an `Any` did not hold the wanted message.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum UnpackError {
    /// It names another type.
    #[error("is a {found}, not a {wanted}")]
    Type { found: String, wanted: String },
    /// Its bytes are no such message.
    #[error("is no valid {wanted}: {source}")]
    Bytes { wanted: String, source: DecodeError },
}

/// Packs a message.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: type_url::<M>(),
        value: message.encode_to_vec(),
    }
}

/// Takes an `M` out of an `Any` that must hold one.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if message_name(&any.type_url) != M::full_name() {
        return Err(UnpackError::Type {
            found: message_name(&any.type_url).to_owned(),
            wanted: M::full_name(),
        });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Bytes {
        wanted: M::full_name(),
        source,
    })
}
